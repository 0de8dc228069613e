//! Every operator verb, once, for all doors alike.

mod captures;
mod error;
mod execs;
mod faults;
mod map;
mod planes;
mod recordings;
mod replays;

use std::sync::Arc;

pub use captures::CaptureStream;
pub use error::ControlError;
pub use planes::{CaptureCounts, CaptureHandle, CaptureOutput, Planes};

use futures_util::{StreamExt as _, stream::BoxStream};

/// What the map can be drawn as, for the doors.
pub use crate::topology::DrawFormat;
pub use map::MapQuery;

use self::{captures::Captures, execs::Execs, recordings::Recordings};
use crate::{
    audit::Audit,
    export::Format,
    fault::book::{ArmedFault, Book},
    model::{
        CALL_FIELDS, CaptureSpec, FieldError, Find, RawCapture, Selector, User,
        view::{
            Actor, AuditEvent, CallEvent, CaptureView, EdgeDetailView, ExecView, MapView, ServiceList, Status,
        },
    },
    replay::stub::Stubs,
    topology::services,
};

/// Carries out what operators ask for; cheap to clone.
#[derive(Clone)]
pub struct Control {
    book: Arc<Book>,
    planes: Arc<dyn Planes>,
    captures: Arc<Captures>,
    execs: Arc<Execs>,
    recordings: Arc<Recordings>,
    stubs: Arc<Stubs>,
    /// Where it is written down what is done with faults; none in tests.
    audit: Option<Arc<Audit>>,
    /// Who does it.
    actor: Arc<Actor>,
}

impl Control {
    /// Joins the book of faults with the planes that carry them out.
    pub fn new(book: Arc<Book>, planes: Arc<dyn Planes>) -> Self {
        let captures = Arc::new(Captures::of_earlier_agents(planes.captures_kept()));
        Self {
            book,
            planes,
            captures,
            execs: Arc::default(),
            recordings: Arc::default(),
            stubs: Arc::default(),
            audit: None,
            actor: Arc::new(Actor::by("agent")),
        }
    }

    /// The same, with what is done with faults written down.
    #[must_use]
    pub fn with_audit(self, audit: Audit) -> Self {
        Self {
            audit: Some(Arc::new(audit)),
            ..self
        }
    }

    /// How the agent is doing.
    pub fn status(&self) -> Status {
        let mut status = self.planes.status();
        status.faults = self.book.list().len() as u64;
        status.captures = self.captures.running();
        status.recordings = self.recordings().iter().filter(|view| view.running).count() as u64;
        status.stubs = self.stubs.list().len() as u64;
        status
    }

    /// Who calls whom.
    pub fn service_map(&self) -> Result<MapView, ControlError> {
        self.planes
            .service_map()
            .map_err(|error| ControlError::internal("read the service map", &error))
    }

    /// The services of the map.
    pub fn services(&self) -> Result<ServiceList, ControlError> {
        self.service_map().map(|map| services(&map))
    }

    /// One edge of the map, by the id that it has there.
    pub fn edge(&self, id: &str) -> Result<EdgeDetailView, ControlError> {
        let found = match u64::from_str_radix(id, 16) {
            Ok(number) => self
                .planes
                .edge(number)
                .map_err(|error| ControlError::internal("read the edge", &error))?,
            Err(_) => None,
        };
        found.ok_or_else(|| ControlError::no_such("edge", id))
    }

    /// Decoded calls, from now on, as they end; only those of which the condition `find` is true.
    pub fn calls(&self, find: Option<&str>) -> Result<BoxStream<'static, CallEvent>, ControlError> {
        let find = find.map(|text| Find::parse(text, CALL_FIELDS));
        let find = find.transpose().map_err(|error| FieldError::new("find", error))?;
        let events = self.planes.calls();
        let Some(find) = find else { return Ok(events) };
        let is_wanted = move |event: &CallEvent| match event {
            CallEvent::Call(call) => find.matches(call),
            CallEvent::Missed(_) => true,
        };
        Ok(events
            .filter(move |event| std::future::ready(is_wanted(event)))
            .boxed())
    }

    /// All metrics as text.
    pub async fn metrics(&self, format: Format) -> Result<String, ControlError> {
        let text = self.planes.metrics(format).await;
        text.map_err(|error| ControlError::internal("read the metrics", &error))
    }

    /// Starts a capture; answers once it takes packets.
    pub async fn capture_start(&self, raw: &RawCapture) -> Result<CaptureView, ControlError> {
        let spec = CaptureSpec::try_from(raw)?;
        self.check_selector(&spec.selector)?;
        self.captures.check_room()?;
        let handle = self
            .planes
            .capture_start(spec)
            .await
            .map_err(ControlError::from_planes("start the capture"))?;
        Ok(Captures::insert(&self.captures, handle))
    }

    /// All captures: those that run and the last that ended.
    pub fn captures(&self) -> Vec<CaptureView> {
        self.captures.list()
    }

    /// One capture.
    pub fn capture(&self, id: &str) -> Result<CaptureView, ControlError> {
        self.captures.view(id)
    }

    /// The pcapng file of a capture. One that is not kept has one reader, which has it as it grows. Of one that is kept
    /// everyone may have it: all that is there, and with `follows` what is still to come.
    pub fn capture_stream(&self, id: &str, follows: bool) -> Result<CaptureStream, ControlError> {
        self.captures.stream(id, follows)
    }

    /// Stops a capture; its stream then ends properly.
    pub fn capture_stop(&self, id: &str) -> Result<CaptureView, ControlError> {
        self.captures.stop(id)
    }

    /// One capture, once all that it took before its stop is on the disk, or when that takes too long.
    pub async fn capture_settled(&self, id: &str) -> Result<CaptureView, ControlError> {
        self.captures.settled(id).await
    }

    /// Tells a capture that what it waits for has happened.
    pub fn capture_trigger(&self, id: &str) -> Result<CaptureView, ControlError> {
        self.captures.trigger(id)
    }

    /// Stops a capture, and takes it off the disk where it is kept.
    pub fn capture_remove(&self, id: &str) -> Result<CaptureView, ControlError> {
        self.captures.remove(id)
    }

    /// Stops all captures and tells their ids; their streams then end properly.
    pub fn capture_stop_all(&self) -> Vec<String> {
        self.captures.stop_all()
    }

    /// Puts the process `pid`, a child of the client `client_pid`, into a cgroup of its own.
    ///
    /// It ends with the client, if that does not end it.
    pub fn exec_begin(&self, pid: u32, client_pid: u32) -> Result<ExecView, ControlError> {
        let watch = execs::watch(client_pid)?;
        let begun = self.planes.exec_begin(pid, client_pid);
        let view = begun.map_err(ControlError::from_planes(
            "put the command in a cgroup of its own",
        ))?;
        self.execs.insert(view.clone());
        let (control, id) = (self.clone(), view.id.clone());
        tokio::spawn(async move {
            watch.ended().await;
            if let Ok(()) = control.exec_end(&id).await {
                tracing::warn!(
                    exec = id,
                    client_pid,
                    "client of `spike exec` is gone; its faults are removed"
                );
            }
        });
        Ok(view)
    }

    /// Ends what `exec_begin` began: removes the faults and stops the captures and recordings of its cgroup, and frees it.
    pub async fn exec_end(&self, id: &str) -> Result<(), ControlError> {
        let exec = self
            .execs
            .take(id)
            .ok_or_else(|| ControlError::no_such("command", id))?;
        self.captures.stop_of_cgroup(&exec.cgroup);
        self.recording_stop_of_cgroup(&exec.cgroup).await;
        let is_its_own =
            |armed: &ArmedFault| armed.fault.selector.from.cgroup.as_deref() == Some(&*exec.cgroup);
        let removed = self.remove_where(AuditEvent::CommandEnded, is_its_own).await;
        let stubs = self
            .stub_remove(|stub| stub.spec.selector.from.cgroup.as_deref() == Some(&*exec.cgroup))
            .await;
        self.planes
            .exec_end(id)
            .map_err(|error| ControlError::internal("free the command's cgroup", &error))?;
        removed.and(stubs).map(drop)
    }

    /// Cgroups and users that are not there are most often misspelled; other things may come later.
    fn check_selector(&self, selector: &Selector) -> Result<(), FieldError> {
        for (end, name) in [(&selector.from, "from"), (&selector.to, "to")] {
            if let Some(path) = end.cgroup.as_deref().filter(|path| *path != "/") {
                let known = self.planes.check_cgroup(path);
                known.map_err(|error| error.within(name))?;
            }
            if let Some(User::Name(user)) = &end.user {
                let known = self.planes.check_user(user);
                known.map_err(|error| error.within(name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
