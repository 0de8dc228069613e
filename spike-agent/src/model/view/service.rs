//! Services, and single edges.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::EdgeView;
use crate::model::ServiceKind;

/// All services, those on this host and those that it calls or is called by.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct ServiceList {
    /// By name.
    pub services: Vec<ServiceView>,
}

/// A service and its traffic, summed since the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct ServiceView {
    /// Its name; for one on another host the name that its callers resolved, else its address.
    pub name: String,
    /// What the name is from.
    pub kind: ServiceKind,
    /// What it calls.
    pub calls: TrafficView,
    /// What it is called with.
    pub called: TrafficView,
}

/// Traffic of several edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct TrafficView {
    /// How many edges.
    pub edges: u64,
    /// Connections opened.
    pub opened: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Connections torn down with a reset.
    pub reset: u64,
    /// Requests that were followed by a response.
    pub requests: u64,
    /// Bytes from the callers to the called.
    pub bytes_out: u64,
    /// Bytes from the called to the callers.
    pub bytes_in: u64,
}

/// An edge with all that is known of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct EdgeDetailView {
    /// As on the map.
    #[serde(flatten)]
    pub edge: EdgeView,
    /// Its latencies: the buckets that are not empty, in order.
    pub histogram: Vec<BucketView>,
}

/// Calls by the time that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct BucketView {
    /// From this time on, in microseconds.
    pub from_us: f64,
    /// Up to this time, in microseconds; none for the last bucket, which is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_us: Option<f64>,
    /// So many calls.
    pub calls: u64,
}
