//! The service map.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::CounterView;
use crate::model::ServiceKind;

/// Who calls whom, summed since the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct MapView {
    /// When it was read, RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// One entry for each caller, destination and protocol.
    pub edges: Vec<EdgeView>,
    /// What is not on the map, and why; only what was seen to be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<CounterView>,
}

/// Calls from one process to one destination.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
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
    /// What most of its decoded connections speak, such as `http`; `tcp` or `udp` while that is not known.
    pub protocol: String,
    /// Connections opened; of UDP, sockets that sent there.
    pub opened: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Of these, how many for which reason.
    #[serde(default)]
    pub failures: FailuresView,
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
    /// Segments that were sent again, by either end, SYNs included.
    #[serde(default)]
    pub retransmits: u64,
    /// Mean of the smoothed round-trip times (RFC 6298) of its connections, in microseconds; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// What decoding found out; none when nothing of it was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoding: Option<EdgeDecodingView>,
}

/// Why attempts to connect failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct FailuresView {
    /// The other end refused, or a fault did (`ECONNREFUSED`).
    pub refused: u64,
    /// Nobody answered (`ETIMEDOUT`).
    pub timed_out: u64,
    /// There was no way to it (`EHOSTUNREACH`, `ENETUNREACH`).
    pub unreachable: u64,
    /// The caller gave up before there was an answer.
    pub aborted: u64,
    /// For another reason, or on a kernel that does not tell.
    pub other: u64,
}

/// What decoding found out about an edge, of the connections that were sampled. The edge's other numbers are of all
/// connections, and exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct EdgeDecodingView {
    /// Calls that were decoded.
    pub calls: u64,
    /// Of these, the failed ones.
    pub failed: u64,
    /// Segments that the decoder was given.
    pub segments: u64,
    /// Segments that it should have been given, but the ring buffer was full.
    pub lost_segments: u64,
    /// Calls that began but whose response, or times, could no longer be told.
    pub lost_calls: u64,
    /// Messages that are not what the protocol says.
    pub undecodable: u64,
    /// How often the decoder had to find the way again.
    pub resyncs: u64,
    /// How much of what was sampled is in these numbers: the share of segments that arrived, times the share of calls
    /// that could be told.
    pub confidence_percent: f64,
}

/// The end of a connection at which it was observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// At the caller.
    #[default]
    Client,
    /// At the destination.
    Server,
}

/// A process at an end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema)]
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
