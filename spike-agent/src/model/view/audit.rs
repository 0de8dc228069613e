//! What the audit log says.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::RawFault;

/// Something that an operator, or the agent, did with a fault.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct AuditEntry {
    /// When, RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// What was done.
    pub event: AuditEvent,
    /// The fault's name.
    pub fault: String,
    /// The fault's number, which no other of this agent has.
    pub id: u64,
    /// By whom.
    pub by: Actor,
    /// The fault as it then was, with every default filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<RawFault>,
    /// Why it ended, when nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Connections that its selector had chosen.
    pub matched: u64,
    /// Connections that its effect had been applied to.
    pub affected: u64,
    /// Connections that it had let pass unharmed.
    pub escaped: u64,
    /// Connections that were open before and were closed for it.
    #[serde(default)]
    pub closed: u64,
}

/// What was done with a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// It came into force.
    #[default]
    Armed,
    /// It was changed.
    Changed,
    /// An operator removed it.
    Removed,
    /// Its time was over.
    Expired,
    /// Calls went worse than its `abort_when`.
    Aborted,
    /// `spike panic` or SIGUSR1 removed it.
    Panic,
    /// The command of `spike exec` that it was for has ended.
    CommandEnded,
    /// The agent stopped.
    AgentStopped,
}

/// Who did it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Actor {
    /// The way in: `unix`, `tcp`, `toxiproxy`, `signal`, or `agent` when it did it by itself.
    pub door: String,
    /// The user, as the kernel says; known for the Unix socket alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The process, as the kernel says; known for the Unix socket alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

impl Actor {
    /// Someone of whom no more than the way in is known.
    pub fn by(door: &str) -> Self {
        Self {
            door: door.to_owned(),
            uid: None,
            pid: None,
        }
    }
}

/// The last entries of the audit log.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct AuditList {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
}
