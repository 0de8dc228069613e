//! How the agent is doing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::DecodingView;

/// How the agent is doing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// Directory of the cgroup that it observes.
    pub cgroup: String,
    /// Release of the kernel that it runs on.
    pub kernel_release: String,
    /// Hooks that are attached, such as `connect4`.
    pub hooks: Vec<String>,
    /// The part that gets in the way of chosen connections.
    pub intercept: InterceptView,
    /// Faults that are armed.
    pub faults: u64,
    /// Captures that are running.
    pub captures: u64,
    /// Recordings that are running.
    #[serde(default)]
    pub recordings: u64,
    /// Stubs that answer.
    #[serde(default)]
    pub stubs: u64,
    /// Edges of the service map.
    pub edges: u64,
    /// How much of the traffic is decoded.
    pub decoding: DecodingView,
    /// How pushing to a collector goes, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpView>,
    /// What was lost or let through, and why, since the agent's start.
    pub losses: Vec<CounterView>,
}

/// The part that gets in the way of chosen connections.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct InterceptView {
    /// True while a fault makes the connect hook look at connections.
    pub armed: bool,
    /// Network namespaces in which connections can be intercepted, or why they cannot.
    pub namespaces: Vec<NamespaceView>,
    /// Why callers are told that they are connected before the server has answered; none where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_held: Option<String>,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct NamespaceView {
    /// Inode number, as in `/proc/PID/ns/net`.
    pub inode: u64,
    /// The kernel's cookie for it.
    pub cookie: u64,
    /// Its name under `/run/netns`, or of what runs in it, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether connections are intercepted there.
    pub state: NamespaceState,
    /// More about the state, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Whether connections of a network namespace are intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceState {
    /// The agent listens there.
    Ready,
    /// Its loopback interface is down; its connections are left alone.
    LoDown,
    /// The agent cannot enter it; its connections are left alone.
    Unreachable,
}

/// Pushing of metrics and spans to a collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct OtlpView {
    /// Base URL of the collector.
    pub url: String,
    /// Points of metrics that it took.
    pub points_sent: u64,
    /// Points of metrics that did not arrive or were rejected.
    pub points_dropped: u64,
    /// Spans that it took.
    pub spans_sent: u64,
    /// Spans that did not arrive, were rejected, or found the queue full.
    pub spans_dropped: u64,
    /// Spans that wait to be pushed.
    pub waiting: u64,
    /// Why the last push failed, or what the collector said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A counter of something that was lost or let through.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct CounterView {
    /// Short name.
    pub name: String,
    /// What it counts.
    pub description: String,
    /// How often since the agent's start.
    pub count: u64,
}

/// A command run in a cgroup of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct ExecView {
    /// Names it in the API.
    pub id: String,
    /// The command's cgroup: absolute path within the cgroup2 hierarchy, for `from.cgroup`.
    pub cgroup: String,
}
