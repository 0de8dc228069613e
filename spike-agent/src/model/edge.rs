//! An edge as the kernel counted it.

use std::{mem::offset_of, sync::Arc};

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// Are there connections that were opened and not closed?
    pub fn has_open(&self) -> bool {
        let of = |word: usize| {
            let found = self.0.iter().find(|(at, _)| usize::from(*at) == word);
            found.map_or(0, |(_, count)| *count)
        };
        of(offset_of!(EdgeStats, opened) / 8) > of(offset_of!(EdgeStats, closed) / 8)
    }
}

impl From<&EdgeStats> for Compact {
    fn from(stats: &EdgeStats) -> Self {
        let counts = (0_u16..).zip(stats.words().iter().copied());
        Self(counts.filter(|&(_, count)| count != 0).collect())
    }
}

/// All that was counted of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By the kernel.
    pub stats: Compact,
    /// By decoding.
    pub decoded: Option<Decoded>,
}

/// What decoding found out about an edge, of the connections that were sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
