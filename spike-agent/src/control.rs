//! Every operator verb, once, for all doors alike.

mod captures;
mod error;
mod execs;
mod map;
mod planes;

use std::sync::Arc;

pub use captures::CaptureStream;
pub use error::ControlError;
pub use planes::{CaptureCounts, CaptureHandle, Planes};

use futures_util::{StreamExt as _, stream::BoxStream};

/// What the map can be drawn as, for the doors.
pub use crate::topology::DrawFormat;
pub use map::MapQuery;

use self::{captures::Captures, execs::Execs};
use crate::{
    export::Format,
    fault::book::{ArmedFault, Book},
    model::{
        CALL_FIELDS, CaptureSpec, Fault, FieldError, Find, RawCapture, RawFault, Selector, User,
        view::{
            CallEvent, CaptureView, EdgeDetailView, ExecView, FaultList, FaultView, MapView, PanicView,
            ServiceList, Status,
        },
    },
    topology::services,
};

/// Carries out what operators ask for; cheap to clone.
#[derive(Clone)]
pub struct Control {
    book: Arc<Book>,
    planes: Arc<dyn Planes>,
    captures: Arc<Captures>,
    execs: Arc<Execs>,
}

impl Control {
    /// Joins the book of faults with the planes that carry them out.
    pub fn new(book: Arc<Book>, planes: Arc<dyn Planes>) -> Self {
        Self {
            book,
            planes,
            captures: Arc::default(),
            execs: Arc::default(),
        }
    }

    /// How the agent is doing.
    pub fn status(&self) -> Status {
        let mut status = self.planes.status();
        status.faults = self.book.list().len() as u64;
        status.captures = self.captures.running();
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

    /// Arms a fault; answers once it is in force.
    pub async fn fault_add(&self, raw: &RawFault) -> Result<FaultView, ControlError> {
        let fault = Fault::try_from(raw)?;
        self.check_selector(&fault.selector)?;
        let armed = self.book.add(fault)?;
        if let Err(error) = self.planes.settle().await {
            self.book.remove_where(|other| other.id == armed.id);
            return Err(match error.downcast::<FieldError>() {
                Ok(field) => field.into(),
                Err(error) => ControlError::unavailable("put the fault in force", &error),
            });
        }
        tracing::info!(
            fault = armed.fault.name,
            effect = armed.fault.effect.kind(),
            "fault armed"
        );
        Ok(self.fault_view(&armed))
    }

    /// All armed faults.
    pub fn faults(&self) -> FaultList {
        FaultList {
            faults: self
                .book
                .list()
                .iter()
                .map(|armed| self.fault_view(armed))
                .collect(),
        }
    }

    /// One armed fault.
    pub fn fault(&self, name: &str) -> Result<FaultView, ControlError> {
        let armed = self
            .book
            .get(name)
            .ok_or_else(|| ControlError::no_such("fault", name))?;
        Ok(self.fault_view(&armed))
    }

    /// Removes a fault; answers, with its last counts, once it is out of force.
    pub async fn fault_remove(&self, name: &str) -> Result<FaultView, ControlError> {
        let armed = self
            .book
            .get(name)
            .ok_or_else(|| ControlError::no_such("fault", name))?;
        // The kernel's counts go with its rules.
        let view = self.fault_view(&armed);
        self.remove_where(|other| other.id == armed.id).await?;
        Ok(view)
    }

    /// Removes all faults; answers, with their names, once they are out of force.
    pub async fn fault_clear(&self) -> Result<Vec<String>, ControlError> {
        self.remove_where(|_| true).await
    }

    /// Everything off: removes all faults and stops all captures.
    pub async fn panic(&self) -> Result<PanicView, ControlError> {
        let captures = self.capture_stop_all();
        let faults = self.fault_clear().await?;
        tracing::warn!(
            faults = faults.len(),
            captures = captures.len(),
            "panic: everything is off"
        );
        Ok(PanicView { faults, captures })
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

    /// The file of a capture as it grows; it has one reader.
    pub fn capture_stream(&self, id: &str) -> Result<CaptureStream, ControlError> {
        self.captures.stream(id)
    }

    /// Stops a capture; its stream then ends properly.
    pub fn capture_stop(&self, id: &str) -> Result<CaptureView, ControlError> {
        self.captures.stop(id)
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

    /// Ends what `exec_begin` began: removes the faults and stops the captures of its cgroup, and frees it.
    pub async fn exec_end(&self, id: &str) -> Result<(), ControlError> {
        let exec = self
            .execs
            .take(id)
            .ok_or_else(|| ControlError::no_such("command", id))?;
        self.captures.stop_of_cgroup(&exec.cgroup);
        let is_its_own =
            |armed: &ArmedFault| armed.fault.selector.from.cgroup.as_deref() == Some(&*exec.cgroup);
        let removed = self.remove_where(is_its_own).await;
        self.planes
            .exec_end(id)
            .map_err(|error| ControlError::internal("free the command's cgroup", &error))?;
        removed.map(drop)
    }

    async fn remove_where(
        &self,
        is_chosen: impl Fn(&ArmedFault) -> bool,
    ) -> Result<Vec<String>, ControlError> {
        let removed = self.book.remove_where(is_chosen);
        let names: Vec<String> = removed.iter().map(|armed| armed.fault.name.clone()).collect();
        if !names.is_empty() {
            tracing::info!(faults = ?names, "faults removed");
            let settled = self.planes.settle().await;
            settled.map_err(|error| ControlError::unavailable("take the faults out of force", &error))?;
        }
        Ok(names)
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

    fn fault_view(&self, armed: &ArmedFault) -> FaultView {
        armed.view(self.planes.kernel_counts(armed.id))
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
