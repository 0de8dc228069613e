//! Recordings and what is in them so far.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::RawRecording;

/// All recordings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct RecordingList {
    /// In the order in which they were started.
    pub recordings: Vec<RecordingView>,
}

/// A recording and what is in it so far.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct RecordingView {
    /// Names it in the API.
    pub id: String,
    /// Whether it still records.
    pub running: bool,
    /// What it records.
    pub recording: RawRecording,
    /// The file.
    pub file: String,
    /// Connections.
    pub connections: u64,
    /// Calls that ended.
    pub calls: u64,
    /// Bytes of both directions.
    pub bytes: u64,
    /// Bytes that were not recorded as the file was behind.
    pub lost_bytes: u64,
    /// Bytes beyond the body limit.
    pub cut_bytes: u64,
    /// Why it could not go on, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
