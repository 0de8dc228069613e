//! The audit log as a table.

use super::describe;
use crate::{
    cli::table::{Column, Table},
    model::view::{Actor, AuditEntry, AuditEvent},
};

pub(super) fn table(entries: &[AuditEntry]) -> Table {
    let mut table = Table::new([
        Column::Text("AT"),
        Column::Text("EVENT"),
        Column::Text("FAULT"),
        Column::Text("BY"),
        Column::Number("MATCHED"),
        Column::Number("AFFECTED"),
        Column::Number("ESCAPED"),
        Column::Number("CLOSED"),
        Column::Text("WHAT"),
    ]);
    for entry in entries {
        let spec = entry.spec.as_ref().map(describe::effects);
        table.row([
            entry.at.clone(),
            event(entry.event).to_owned(),
            entry.fault.clone(),
            by(&entry.by),
            entry.matched.to_string(),
            entry.affected.to_string(),
            entry.escaped.to_string(),
            entry.closed.to_string(),
            entry.why.clone().or(spec).unwrap_or_default(),
        ]);
    }
    table
}

fn event(event: AuditEvent) -> &'static str {
    match event {
        AuditEvent::Armed => "armed",
        AuditEvent::Changed => "changed",
        AuditEvent::Removed => "removed",
        AuditEvent::Expired => "expired",
        AuditEvent::Aborted => "aborted",
        AuditEvent::Panic => "panic",
        AuditEvent::CommandEnded => "command ended",
        AuditEvent::AgentStopped => "agent stopped",
    }
}

/// Such as `unix uid 1000 pid 5`.
fn by(actor: &Actor) -> String {
    let mut text = actor.door.clone();
    for (what, number) in [("uid", actor.uid), ("pid", actor.pid)] {
        if let Some(number) = number {
            text += &format!(" {what} {number}");
        }
    }
    text
}
