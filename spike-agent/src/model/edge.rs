//! An edge as the kernel counted it.

use spike_common::edge::{Edge, EdgeStats};

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
