//! Captures and what they took.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::RawCapture;

/// All captures.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct CaptureList {
    /// In the order in which they were started.
    pub captures: Vec<CaptureView>,
}

/// A capture and what it took so far.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct CaptureView {
    /// Names it in the API.
    pub id: String,
    /// Whether it still takes packets.
    pub state: CaptureState,
    /// What it takes, with every default filled in.
    pub capture: RawCapture,
    /// The interfaces that it listens on.
    pub interfaces: Vec<String>,
    /// Packets written.
    pub packets: u64,
    /// Bytes of the pcapng file that the reader has had; of one that the agent keeps, bytes on the disk.
    pub bytes: u64,
    /// Packets that were chosen but lost, because the reader, the disk or the agent was too slow.
    pub dropped: u64,
    /// Files that the agent keeps.
    #[serde(default)]
    pub files: u64,
    /// What it waited for, once that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered: Option<String>,
    /// What is to be known of its end: why it could not go on, or what is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether a capture still takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureState {
    /// It keeps packets in memory until something happens.
    Waiting,
    /// It takes packets.
    Running,
    /// It was stopped or reached its limit.
    Ended,
}
