//! The service map.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::ServiceKind;

/// Who calls whom, summed since the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct MapView {
    /// When it was read, RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// One entry for each caller, destination and protocol.
    pub edges: Vec<EdgeView>,
}

/// Calls from one process to one destination.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct EdgeView {
    /// Names it for as long as the agent runs.
    pub id: String,
    /// Who calls; none when it is on another host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<EndView>,
    /// The caller's address, when it is on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What is called.
    pub destination: DestinationView,
    /// The end at which it was observed.
    pub role: Role,
    /// What most of its decoded connections speak, such as `http`; `tcp` while that is not known.
    pub protocol: String,
    /// Connections opened.
    pub opened: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Connections torn down with a reset.
    pub reset: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests that were followed by a response.
    pub calls: u64,
    /// Bytes from the caller to the destination.
    pub bytes_out: u64,
    /// Bytes from the destination to the caller.
    pub bytes_in: u64,
    /// Time from a request's last byte to its response's first; none before the first call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyView>,
}

/// The end of a connection at which it was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// At the caller.
    Client,
    /// At the destination.
    Server,
}

/// A process at an end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct EndView {
    /// Process id as the agent sees it.
    pub pid: u32,
    /// Path of its executable, or its bare name when the path is unknown.
    pub executable: String,
    /// Base name of its executable.
    pub name: String,
    /// Name of the service that it is of.
    pub service: String,
    /// What the service has its name from.
    pub kind: ServiceKind,
    /// Absolute path within the cgroup2 hierarchy.
    pub cgroup: String,
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct DestinationView {
    /// IPv4 or IPv6 address; IPv4-mapped ones are shown as IPv4.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Name of the service or host, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The process there, when it is on this host and known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<EndView>,
}

/// How long calls took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct LatencyView {
    /// Half of the calls took at most this.
    pub p50_us: u64,
    /// 90 percent of the calls took at most this.
    pub p90_us: u64,
    /// 99 percent of the calls took at most this.
    pub p99_us: u64,
    /// The slowest call.
    pub max_us: u64,
    /// The mean.
    pub mean_us: u64,
}
