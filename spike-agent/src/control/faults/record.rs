//! What of faults goes into the audit log.

use std::time::SystemTime;

use super::{Control, ControlError};
use crate::{
    fault::book::ArmedFault,
    model::{
        RawFault,
        view::{AuditEntry, AuditEvent, AuditList},
    },
};

/// Most entries that are shown at once.
const MAX_SHOWN: usize = 10_000;

impl Control {
    /// The last entries of the audit log, oldest first; at most 10,000.
    pub fn audit(&self, count: usize) -> Result<AuditList, ControlError> {
        let Some(audit) = &self.audit else {
            return Ok(AuditList { entries: Vec::new() });
        };
        let entries = audit.last(count.min(MAX_SHOWN));
        let entries = entries.map_err(|error| ControlError::internal("read the audit log", &error.into()))?;
        Ok(AuditList { entries })
    }

    pub(super) fn record(&self, armed: &ArmedFault, event: AuditEvent, why: Option<String>) {
        self.write(&self.entry(armed, event, why));
    }

    pub(super) fn write(&self, entry: &AuditEntry) {
        if let Some(audit) = &self.audit {
            audit.write(entry);
        }
    }

    pub(super) fn entry(&self, armed: &ArmedFault, event: AuditEvent, why: Option<String>) -> AuditEntry {
        let view = self.fault_view(armed);
        let is_start = matches!(event, AuditEvent::Armed | AuditEvent::Changed);
        AuditEntry {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            event,
            fault: view.name,
            id: armed.id,
            by: (*self.actor).clone(),
            spec: is_start.then(|| RawFault::from(&*armed.fault)),
            why,
            matched: view.matched,
            affected: view.affected,
            escaped: view.escaped,
            closed: view.closed,
        }
    }
}
