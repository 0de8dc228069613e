//! What is told of stubs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stub that answers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct StubView {
    /// Names it.
    pub name: String,
    /// The recording.
    pub file: String,
    /// The servers that it stands in for.
    pub servers: Vec<StubServerView>,
    /// Connections that it took.
    pub connections: u64,
    /// Requests answered from the recording.
    pub answered: u64,
    /// Requests that were not recorded.
    pub missed: u64,
    /// Of them, those that the real server answered.
    pub passed: u64,
    /// Milliseconds until it ends by itself.
    pub expires_in_ms: u64,
    /// What of the recording cannot be replayed, and why.
    pub left_out: Vec<String>,
}

/// A recorded server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct StubServerView {
    /// Address and port.
    pub server: String,
    /// The name that callers found it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Different requests that are recorded.
    pub requests: u64,
}

/// The stubs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct StubList {
    /// The oldest first.
    pub replays: Vec<StubView>,
}

/// A request that was not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct MissView {
    /// Address and port of the server that was asked.
    pub server: String,
    /// The request.
    pub request: String,
    /// How often it came.
    pub count: u64,
    /// The recorded request that is most like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// Where the two differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<DifferenceView>,
    /// All of it in one line.
    pub text: String,
}

/// A part that two messages say differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct DifferenceView {
    /// Its name, such as `body.total`.
    pub part: String,
    /// What was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// What came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came: Option<String>,
}

/// Requests that were not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct MissList {
    /// The oldest first; at most 1000 different ones.
    pub misses: Vec<MissView>,
}
