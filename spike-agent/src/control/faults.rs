//! The verbs of faults: arm, change, show, remove; what they close, what they hit, and when they end by themselves.

mod change;
mod record;
mod watch;

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use super::{Control, ControlError};
use crate::{
    fault::book::ArmedFault,
    model::{
        Existing, Fault, FieldError, RawFault, Selector,
        view::{Actor, AuditEntry, AuditEvent, FaultList, FaultView, PanicView},
    },
};

impl Control {
    /// Arms a fault; answers once it is in force.
    pub async fn fault_add(&self, raw: &RawFault) -> Result<FaultView, ControlError> {
        let fault = Fault::try_from(raw)?;
        let armed = self.arm(fault).await?;
        Ok(self.fault_view(&armed))
    }

    /// Arms a fault that is already checked; answers once it is in force.
    pub async fn arm(&self, fault: Fault) -> Result<Arc<ArmedFault>, ControlError> {
        self.check(&fault)?;
        self.prepare(&fault).await?;
        let armed = self.book.add(fault)?;
        if let Err(error) = self.put_in_force(&armed).await {
            self.book.remove_where(|other| other.id == armed.id);
            // What of it reached the kernel goes again.
            let _ = self.planes.settle().await;
            return Err(error);
        }
        tracing::info!(
            fault = armed.fault.name,
            effect = armed.fault.kind(),
            "fault armed"
        );
        self.record(&armed, AuditEvent::Armed, None);
        Ok(armed)
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
        let armed = self.armed(name)?;
        Ok(self.fault_view(&armed))
    }

    /// Removes a fault; answers, with its last counts, once it is out of force.
    pub async fn fault_remove(&self, name: &str) -> Result<FaultView, ControlError> {
        let armed = self.armed(name)?;
        // The kernel's counts go with its rules.
        let view = self.fault_view(&armed);
        self.remove_where(AuditEvent::Removed, |other| other.id == armed.id)
            .await?;
        Ok(view)
    }

    /// Removes the fault of this number, if it is still there.
    pub async fn remove(&self, id: u64) -> Result<(), ControlError> {
        let removed = self
            .remove_where(AuditEvent::Removed, |other| other.id == id)
            .await;
        removed.map(drop)
    }

    /// Removes all faults; answers, with their names, once they are out of force.
    pub async fn fault_clear(&self) -> Result<Vec<String>, ControlError> {
        self.remove_where(AuditEvent::Removed, |_| true).await
    }

    /// Everything off: removes all faults and stubs, and stops all captures and recordings.
    pub async fn panic(&self) -> Result<PanicView, ControlError> {
        let captures = self.capture_stop_all();
        let recordings = self.recording_stop_all().await;
        let faults = self.remove_where(AuditEvent::Panic, |_| true).await?;
        let stubs = self.stub_remove(|_| true).await?;
        tracing::warn!(
            faults = faults.len(),
            captures = captures.len(),
            recordings = recordings.len(),
            stubs = stubs.len(),
            "panic: everything is off"
        );
        Ok(PanicView {
            faults,
            captures,
            recordings,
            stubs,
        })
    }

    /// The end of the agent: removes all faults.
    pub async fn fault_stop(&self) {
        if let Err(error) = self.remove_where(AuditEvent::AgentStopped, |_| true).await {
            tracing::warn!("remove all faults: {error}");
        }
        if let Err(error) = self.stub_remove(|_| true).await {
            tracing::warn!("end all stubs: {error}");
        }
    }

    /// Removes the faults that `is_chosen` says; answers, with their names, once they are out of force.
    pub(super) async fn remove_where(
        &self,
        event: AuditEvent,
        is_chosen: impl Fn(&ArmedFault) -> bool,
    ) -> Result<Vec<String>, ControlError> {
        // Before their rules go, and with them the kernel's counts.
        let entries: Vec<(u64, AuditEntry)> = self
            .book
            .list()
            .iter()
            .filter(|armed| is_chosen(armed))
            .map(|armed| (armed.id, self.entry(armed, event, None)))
            .collect();
        let removed = self.book.remove_where(is_chosen);
        let gone: HashSet<u64> = removed.iter().map(|armed| armed.id).collect();
        for (_, entry) in entries.iter().filter(|(id, _)| gone.contains(id)) {
            self.write(entry);
        }
        let names: Vec<String> = removed.iter().map(|armed| armed.fault.name.clone()).collect();
        if !names.is_empty() {
            tracing::info!(faults = ?names, "faults removed");
            let settled = self.planes.settle().await;
            settled.map_err(|error| ControlError::unavailable("take the faults out of force", &error))?;
        }
        Ok(names)
    }

    /// What has to be right before a fault is armed or changed.
    fn check(&self, fault: &Fault) -> Result<(), ControlError> {
        self.check_selector(&fault.selector)?;
        if fault.existing == Existing::Reset && !fault.dry_run {
            let can = self.planes.can_close();
            can.map_err(|error| FieldError::new("existing", format_args!("`reset` needs to {error:#}")))?;
        }
        Ok(())
    }

    /// What takes long, before the fault's time begins.
    async fn prepare(&self, fault: &Fault) -> Result<(), ControlError> {
        let prepared = self.planes.prepare(fault).await;
        prepared.map_err(|error| ControlError::unavailable("make the fault ready", &error))
    }

    /// Has the kernel and the listeners follow, then closes what was open if that is wanted.
    async fn put_in_force(&self, armed: &Arc<ArmedFault>) -> Result<(), ControlError> {
        let counts = &armed.counts;
        if armed.fault.dry_run {
            counts
                .seen_before
                .store(self.seen(&armed.fault.selector), Ordering::Relaxed);
        }
        let settled = self.planes.settle().await;
        settled.map_err(|error| match error.downcast::<FieldError>() {
            Ok(field) => field.into(),
            Err(error) => ControlError::unavailable("put the fault in force", &error),
        })?;
        if armed.fault.existing == Existing::Reset && !armed.fault.dry_run {
            let closed = self.planes.close_existing(armed.clone()).await;
            let closed =
                closed.map_err(|error| ControlError::unavailable("close the open connections", &error))?;
            counts.closed.fetch_add(closed, Ordering::Relaxed);
        }
        Ok(())
    }

    fn armed(&self, name: &str) -> Result<Arc<ArmedFault>, ControlError> {
        self.book
            .get(name)
            .ok_or_else(|| ControlError::no_such("fault", name))
    }

    fn fault_view(&self, armed: &ArmedFault) -> FaultView {
        if armed.fault.dry_run {
            let seen = self.seen(&armed.fault.selector);
            armed.count_dry(seen);
        }
        armed.view(self.planes.kernel_counts(armed.id))
    }

    /// Connections that were opened, or tried to, by what a selector chooses, as far as they are seen.
    fn seen(&self, selector: &Selector) -> u64 {
        match self.planes.tally(selector) {
            Ok(tally) => tally.opened + tally.failed,
            Err(error) => {
                tracing::warn!("count the connections of a dry run: {error:#}");
                0
            }
        }
    }

    /// The same verbs, done by someone else.
    #[must_use]
    pub fn by(&self, actor: Actor) -> Self {
        Self {
            actor: Arc::new(actor),
            ..self.clone()
        }
    }
}
