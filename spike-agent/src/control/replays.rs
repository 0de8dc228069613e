//! The verbs of stubs: start, show, begin again, stop; and when they end by themselves.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::{Instant, sleep_until};

use super::{Control, ControlError, execs};
use crate::{
    model::{
        FieldError, OnMiss, RawStub, StubSpec,
        view::{DifferenceView, MissList, MissView, StubList, StubServerView, StubView},
    },
    recording::live::Live,
    replay::{
        load,
        stub::{ArmedStub, Miss, Stubs},
    },
};

impl Control {
    /// The same, with stubs that others see, too.
    #[must_use]
    pub fn with_stubs(self, stubs: Arc<Stubs>) -> Self {
        Self { stubs, ..self }
    }

    /// Has a recording answer calls; answers once it does. `client` is who asks, and ends what is `attached` by its end.
    pub async fn stub_start(&self, raw: &RawStub, client: Option<u32>) -> Result<StubView, ControlError> {
        let spec = StubSpec::try_from(raw)?;
        self.check_selector(&spec.selector)?;
        let watch = match (raw.attached, client) {
            (true, Some(client)) => Some(execs::watch(client)?),
            (true, None) => {
                let message = "only a client on the Unix socket can be waited for";
                return Err(FieldError::new("attached", message).into());
            }
            (false, _) => None,
        };
        let stubs = self.stubs.clone();
        // Who may not write there has it kept in memory.
        let keeps = spec.on_miss == OnMiss::Record && self.may_write_anywhere();
        let made = tokio::task::spawn_blocking(move || {
            let unread = |error: &dyn std::fmt::Display| FieldError::new("file", error);
            let loaded = load(&spec.file).map_err(|error| unread(&error))?;
            let kept = keeps.then(|| Live::append(&spec.file)).transpose();
            let kept = kept.map_err(|error| unread(&error))?;
            stubs.add(spec, &loaded, kept.map(Arc::new))
        });
        let made = made
            .await
            .map_err(|error| ControlError::Internal(format!("read the recording: {error}")))?;
        let armed = made?;
        if let Err(error) = self.planes.settle().await {
            self.stub_remove(|other| Arc::ptr_eq(&other.stub, &armed.stub))
                .await?;
            return Err(ControlError::unavailable("put the stub in force", &error));
        }
        tracing::info!(stub = armed.name, file = %armed.spec.file.display(), "stub answers");
        let (control, stub) = (self.clone(), armed.clone());
        tokio::spawn(async move {
            let client_ends = async {
                match watch {
                    Some(watch) => watch.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = client_ends => {}
                () = sleep_until(stub.deadline) => {}
            }
            if let Err(error) = control
                .stub_remove(|other| Arc::ptr_eq(&other.stub, &stub.stub))
                .await
            {
                tracing::warn!("end the stub {}: {error}", stub.name);
            }
        });
        Ok(view(&armed))
    }

    /// All stubs.
    pub fn stubs(&self) -> StubList {
        StubList {
            replays: self.stubs.list().iter().map(|armed| view(armed)).collect(),
        }
    }

    /// One stub.
    pub fn stub(&self, name: &str) -> Result<StubView, ControlError> {
        self.stub_of(name).map(|armed| view(&armed))
    }

    /// What a stub was asked that is not recorded.
    pub fn stub_misses(&self, name: &str) -> Result<MissList, ControlError> {
        let armed = self.stub_of(name)?;
        Ok(MissList {
            misses: armed.stub.misses().iter().map(miss_view).collect(),
        })
    }

    /// Has a stub begin again with the first answers.
    pub fn stub_restart(&self, name: &str) -> Result<StubView, ControlError> {
        let armed = self.stub_of(name)?;
        armed.stub.restart();
        Ok(view(&armed))
    }

    /// Ends a stub; answers, with its last counts, once calls go to the real server again.
    pub async fn stub_stop(&self, name: &str) -> Result<StubView, ControlError> {
        let armed = self.stub_of(name)?;
        self.stub_remove(|other| Arc::ptr_eq(&other.stub, &armed.stub))
            .await?;
        Ok(view(&armed))
    }

    /// Ends the stubs that `is_chosen` says; answers, with their names, once they are out of force.
    pub(super) async fn stub_remove(
        &self,
        is_chosen: impl Fn(&ArmedStub) -> bool,
    ) -> Result<Vec<String>, ControlError> {
        let removed = self.stubs.remove_where(is_chosen);
        let names: Vec<String> = removed.iter().map(|armed| armed.name.clone()).collect();
        if !names.is_empty() {
            tracing::info!(stubs = ?names, "stubs ended");
            let settled = self.planes.settle().await;
            for armed in &removed {
                armed.stub.finish().await;
            }
            settled.map_err(|error| ControlError::unavailable("take the stubs out of force", &error))?;
        }
        Ok(names)
    }

    fn stub_of(&self, name: &str) -> Result<Arc<ArmedStub>, ControlError> {
        self.stubs
            .get(name)
            .ok_or_else(|| ControlError::no_such("stub", name))
    }
}

fn view(armed: &ArmedStub) -> StubView {
    let counts = armed.stub.counts();
    let left = armed.deadline.saturating_duration_since(Instant::now());
    let servers = armed
        .stub
        .servers()
        .map(|(server, host, requests)| StubServerView {
            server: server.to_owned(),
            host: host.map(str::to_owned),
            requests: requests as u64,
        });
    StubView {
        name: armed.name.clone(),
        file: armed.spec.file.display().to_string(),
        servers: servers.collect(),
        connections: counts.connections.load(Ordering::Relaxed),
        answered: counts.answered.load(Ordering::Relaxed),
        missed: counts.missed.load(Ordering::Relaxed),
        passed: counts.passed.load(Ordering::Relaxed),
        expires_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        left_out: armed.left_out.clone(),
    }
}

fn miss_view(miss: &Miss) -> MissView {
    let differences = miss.nearest.iter().flat_map(|nearest| &nearest.differences);
    MissView {
        server: miss.server.clone(),
        request: miss.label.clone(),
        count: miss.count,
        nearest: miss.nearest.as_ref().map(|nearest| nearest.label.clone()),
        differences: differences
            .map(|difference| DifferenceView {
                part: difference.part.clone(),
                recorded: difference.recorded.clone(),
                came: difference.came.clone(),
            })
            .collect(),
        text: miss.explain(),
    }
}
