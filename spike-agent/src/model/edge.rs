//! An edge as the kernel counted it.

use spike_common::edge::{Edge, EdgeStats};

/// Most edges that an agent keeps: those in the hooks' table, and those that rested and were taken out of it.
pub const MOST_EDGES: usize = 131_072;

/// One edge as it was read from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct EdgeSample {
    /// Its key in the kernel's maps.
    pub id: u64,
    /// What it is between.
    pub edge: Edge,
    /// Its counts, summed over all CPUs.
    pub stats: EdgeStats,
}

/// What decoding found out about an edge, of the connections that were sampled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoded {
    /// What most of them speak, when that is known.
    pub protocol: Option<&'static str>,
    /// Calls that were decoded.
    pub calls: u64,
    /// Of these, the failed ones.
    pub failed: u64,
    /// Calls that began but whose response, or times, could no longer be told.
    pub lost_calls: u64,
    /// Messages that are not what the protocol says.
    pub undecodable: u64,
    /// How often the decoder had to find the way again.
    pub resyncs: u64,
}
