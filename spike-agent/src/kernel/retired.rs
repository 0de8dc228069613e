//! Takes edges that rest out of the hooks' table, whose room is limited, and keeps their counts.

use std::{collections::HashMap, time::Instant};

use spike_common::edge::{Edge, EdgeStats};

use super::Kernel;
use crate::lock::lock;
use crate::model::edge::{Compact, EdgeSample, MOST_EDGES};

/// Most memory that the hooks' counts of edges take, on hosts with so many CPUs that it matters.
const MEMORY: usize = 64 << 20;

/// How many edges the hooks' table has room for.
pub(super) fn room(cpus: usize) -> u32 {
    let each = size_of::<EdgeStats>() * cpus.max(1);
    u32::try_from(MEMORY / each).unwrap_or(u32::MAX).clamp(1024, 8192)
}

/// Edges that were taken out.
#[derive(Debug, Default)]
pub(super) struct Retired {
    kept: HashMap<u64, EdgeSample>,
    /// What the others had counted at the last look.
    before: HashMap<u64, u64>,
}

impl Retired {
    /// The edges that are kept; some may be back in the hooks' table.
    pub(super) fn iter(&self) -> impl Iterator<Item = &EdgeSample> {
        self.kept.values()
    }

    /// An edge as it was when it was taken out.
    pub(super) fn get(&self, id: u64) -> Option<&EdgeSample> {
        self.kept.get(&id)
    }

    /// Their numbers.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.kept.keys().copied()
    }

    /// Which of these edges have no open connection, and nothing new since the last look.
    fn resting<'a>(&mut self, edges: &'a [(u64, Edge, EdgeStats)]) -> Vec<&'a (u64, Edge, EdgeStats)> {
        let now: HashMap<u64, u64> = edges.iter().map(|(id, _, stats)| (*id, sum(stats))).collect();
        let rests = |(id, _, stats): &&(u64, Edge, EdgeStats)| {
            stats.opened == stats.closed && self.before.get(id) == now.get(id)
        };
        let resting = edges.iter().filter(rests).collect();
        self.before = now;
        resting
    }

    fn keep(&mut self, id: u64, edge: Edge, mut stats: EdgeStats) {
        if let Some(earlier) = self.get(id) {
            stats.add(&earlier.stats.full());
        }
        let stats = Compact::from(&stats);
        self.kept.insert(id, EdgeSample { id, edge, stats });
    }
}

/// Every event adds to it.
fn sum(stats: &EdgeStats) -> u64 {
    stats.words().iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

impl Kernel {
    /// Makes room in the hooks' table when it fills up. An edge that comes back counts on from zero there; [`Kernel::edges`]
    /// adds what was kept.
    pub fn retire_edges(&self) {
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        if lock(&self.edges).keys().flatten().count() <= room(cpus) as usize / 2 {
            return;
        }
        let Ok(found) = self.hooks_edges() else { return };
        let mut retired = lock(&self.retired);
        let resting = retired.resting(&found);
        let (start, count) = (Instant::now(), resting.len());
        for &(id, edge, stats) in resting {
            // What the hooks' table then has no room for is counted as such.
            if retired.kept.len() >= MOST_EDGES {
                return;
            }
            // A connection that opens between this look and the removal would be lost: a microsecond, on an edge that had
            // none for seconds.
            let is_unchanged = self.hooks_stats(id).is_some_and(|now| sum(&now) == sum(&stats));
            if is_unchanged && lock(&self.stats).remove(&id).is_ok() {
                _ = lock(&self.edges).remove(&id);
                retired.keep(id, edge, stats);
            }
        }
        tracing::debug!(of = found.len(), count, took = ?start.elapsed(), "edges at rest taken out of the hooks' table");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_cpus_have_less_room_each() {
        assert_eq!((room(1), room(2), room(1024)), (8192, 8192, 1024));
        assert!((1024..8192).contains(&room(16)), "{}", room(16));
    }

    #[test]
    fn an_edge_rests_when_nothing_is_open_and_nothing_new() {
        let mut retired = Retired::default();
        let stats = |opened, closed, last| {
            let mut stats = EdgeStats {
                opened,
                closed,
                ..EdgeStats::default()
            };
            stats.latency[stats.latency.len() - 1] = last;
            stats
        };
        let edges = |second: EdgeStats| {
            [
                (1, Edge::default(), stats(3, 3, 7)),
                (2, Edge::default(), second),
                (3, Edge::default(), stats(3, 2, 1)),
            ]
        };
        let mut resting = |second| {
            let edges = edges(second);
            let resting = retired.resting(&edges);
            resting.iter().map(|(id, ..)| *id).collect::<Vec<u64>>()
        };
        assert!(resting(stats(1, 1, 0)).is_empty(), "nobody knows yet");
        assert_eq!(resting(stats(2, 2, 0)), [1]);
        assert_eq!(resting(stats(2, 2, 0)), [1, 2]);
        retired.keep(1, Edge::default(), stats(3, 3, 7));
        retired.keep(1, Edge::default(), stats(1, 1, 2));
        let kept = retired.get(1).unwrap().stats.full();
        assert_eq!((kept.opened, kept.closed, kept.latency.last()), (4, 4, Some(&9)));
        assert_eq!(retired.iter().count(), 1);
    }
}
