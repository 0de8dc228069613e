//! An edge as the kernel counted it.

use std::sync::Arc;

use spike_common::edge::{Edge, EdgeStats, WORDS};

/// Most edges that an agent keeps: those in the hooks' table, and those that rested and were taken out of it.
pub const MOST_EDGES: usize = 131_072;

/// One edge as it was read from the kernel.
#[derive(Clone, Debug)]
pub struct EdgeSample {
    /// Its key in the kernel's maps.
    pub id: u64,
    /// What it is between.
    pub edge: Edge,
    /// Its counts, summed over all CPUs.
    pub stats: Compact,
}

/// The counts of an edge without the many that are zero: some hundred bytes in the place of 3.5 kB.
#[derive(Clone, Debug)]
pub struct Compact(Arc<[(u16, u64)]>);

impl Compact {
    /// All of them.
    pub fn full(&self) -> EdgeStats {
        let mut words = [0; WORDS];
        for &(at, count) in &*self.0 {
            if let Some(word) = words.get_mut(usize::from(at)) {
                *word = count;
            }
        }
        EdgeStats::from_words(words)
    }
}

impl From<&EdgeStats> for Compact {
    fn from(stats: &EdgeStats) -> Self {
        let counts = (0_u16..).zip(stats.words().iter().copied());
        Self(counts.filter(|&(_, count)| count != 0).collect())
    }
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
