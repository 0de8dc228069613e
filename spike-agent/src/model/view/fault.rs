//! Faults and what became of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::RawFault;

/// All armed faults.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct FaultList {
    /// In the order in which they were armed.
    pub faults: Vec<FaultView>,
}

/// An armed fault and what became of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct FaultView {
    /// Its name.
    pub name: String,
    /// The fault with every default filled in.
    pub fault: RawFault,
    /// Start of its choices by chance.
    pub seed: u64,
    /// Milliseconds until it removes itself.
    pub expires_in_ms: u64,
    /// Connections that its selector chose; packets, for a fault on packets, here and in the next two.
    pub matched: u64,
    /// Connections that its effect was applied to.
    pub affected: u64,
    /// Connections that its selector chose and that passed unharmed: by chance, or because of a limit.
    pub escaped: u64,
    /// Connections that its effect is applied to now.
    pub active: u32,
    /// Connections that were open before and were closed for it (`existing: reset`).
    #[serde(default)]
    pub closed: u64,
    /// What the numbers mean, when it is not obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What `clear` removed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct FaultsRemoved {
    /// Names of the faults.
    pub removed: Vec<String>,
}

/// What `panic` undid.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct PanicView {
    /// Names of the faults that were removed.
    pub faults: Vec<String>,
    /// Captures that were stopped.
    pub captures: Vec<String>,
    /// Recordings that were stopped.
    #[serde(default)]
    pub recordings: Vec<String>,
    /// Stubs that were ended.
    #[serde(default)]
    pub stubs: Vec<String>,
}
