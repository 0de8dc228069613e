//! What is wrong with the architecture.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was found on the map.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct AnalysisView {
    /// Start of the stretch of time that was looked at, RFC 3339 in UTC.
    pub from: String,
    /// Its end.
    pub to: String,
    /// How many services were looked at.
    pub services: u64,
    /// How many edges between them.
    pub edges: u64,
    /// How many single calls were looked at: for what takes more than counts, such as N+1 and retries.
    pub calls: u64,
    /// The worst first.
    pub findings: Vec<FindingView>,
    /// What would be without a service, when that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<WithoutView>,
}

/// What sort of thing was found.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A service through which alone others are reached, or that many share, and that has a single instance.
    #[default]
    SinglePointOfFailure,
    /// Services that call each other in a ring.
    Cycle,
    /// The only link between two parts of the map.
    Bridge,
    /// Many calls in a row, each waiting for the next.
    LongChain,
    /// Calls in a row that take long, and where the time goes.
    SlowChain,
    /// A service that calls very many others.
    FanOut,
    /// Many calls on one edge for each call that comes in.
    Chatty,
    /// The same request again and again for each call that comes in.
    NPlusOne,
    /// Calls that failed are repeated at once, which makes the trouble worse.
    RetryStorm,
    /// An edge that carries most of all calls.
    HotEdge,
    /// Connections that are kept open and not used.
    IdleEdge,
    /// Instances of one service that get, or take, very unlike shares.
    UnevenBackends,
    /// Attempts that come to nothing.
    FailingEdge,
    /// A new connection for every call or so.
    ConnectPerCall,
    /// A password or token that anyone on the way can read.
    PlaintextCredentials,
    /// A certificate that expires soon, or has.
    CertificateExpiry,
}

/// How bad it is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It breaks, or will.
    High,
    /// It hurts, or may break.
    Medium,
    /// Worth knowing.
    #[default]
    Low,
}

/// One thing that was found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct FindingView {
    /// What sort of thing.
    pub kind: FindingKind,
    /// How bad it is.
    pub severity: Severity,
    /// What, in one line.
    pub title: String,
    /// Where: the services, in the order that the title speaks of them.
    pub services: Vec<String>,
    /// Ids of the edges, at most 50.
    #[serde(default)]
    pub edges: Vec<String>,
    /// The numbers, by name; times are in microseconds where the name ends in `_us`.
    pub numbers: BTreeMap<String, f64>,
    /// Why it matters.
    pub why: String,
    /// What to try.
    pub advice: String,
    /// A command that shows what happens when it goes wrong, for a minute; empty when no fault can show it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub test: String,
}

/// What would be without a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct WithoutView {
    /// The service that is thought away.
    pub service: String,
    /// Services that no call would reach any more.
    pub cut_off: Vec<String>,
    /// Services that call it, or that call one of these, nearest first: what they do may fail.
    pub affected: Vec<AffectedView>,
    /// The share of all calls that go to or from it or the services that are cut off, in percent.
    pub calls_percent: f64,
    /// A command that shows it, for a minute; empty when it listens on no known port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub test: String,
}

/// A service that needs another.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct AffectedView {
    /// Its name.
    pub service: String,
    /// Calls in a row from it to the one that is thought away.
    pub distance: u64,
}
