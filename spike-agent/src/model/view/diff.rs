//! What is different on the map between two times.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LinkView, NodeView};

/// What is different between two stretches of time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct DiffView {
    /// The first stretch.
    pub before: StretchView,
    /// The second one.
    pub after: StretchView,
    /// Services that are in the second alone.
    pub new_services: Vec<NodeView>,
    /// Services that are in the first alone, where that is no chance.
    pub gone_services: Vec<NodeView>,
    /// Edges that are in the second alone.
    pub new_edges: Vec<LinkView>,
    /// Edges that are in the first alone, and had so many calls that this is no chance.
    pub gone_edges: Vec<LinkView>,
    /// What changed on edges that are in both, beyond noise; the largest first.
    pub changes: Vec<ChangeView>,
    /// Edges that are in both and did not change beyond noise.
    pub same: u64,
}

/// A stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct StretchView {
    /// Its start, RFC 3339 in UTC.
    pub from: String,
    /// Its end.
    pub to: String,
    /// How long it is.
    pub seconds: f64,
    /// Calls in it.
    pub calls: u64,
}

/// A number of an edge that changed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct ChangeView {
    /// Who calls.
    pub from: String,
    /// Who is called.
    pub to: String,
    /// What is spoken.
    pub protocol: String,
    /// Which number.
    pub what: Changed,
    /// What it was.
    pub before: f64,
    /// What it is.
    pub after: f64,
    /// How far it is out of what chance explains: 1 is just beyond.
    pub beyond_noise: f64,
}

/// Which number of an edge changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// Calls per second.
    #[default]
    Rate,
    /// Share of attempts that came to nothing, in percent.
    Errors,
    /// Median latency, in microseconds.
    P50,
    /// Latency that 99 percent do not exceed, in microseconds.
    P99,
}
