//! Keeps counters of edges that only grow, in a bounded number of series.
//!
//! The kernel side forgets edges, and names change as they become known. So what an edge has counted since the last look
//! is added to the series that it belongs to now, and no series ever falls back, which Prometheus would take for a
//! restart.

mod families;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::HashMap,
    time::{Duration, Instant},
};

use spike_common::edge::EdgeStats;

use super::{buckets::Latency, conventions, source::ObservedEdge};
use crate::{model::edge::Decoded, protocol::Side};

/// How long what an edge had counted is kept when it is not there: a read of the kernel's table may miss it.
const FORGET: Duration = Duration::from_secs(60);
/// How long a series without an edge keeps its place when others want it.
const IDLE: Duration = Duration::from_secs(600);

/// What is counted of each edge. To add one: a name here, and a row in [`families::COUNTERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Opened,
    Refused,
    TimedOut,
    Unreachable,
    Aborted,
    FailedOtherwise,
    Reset,
    Calls,
    BytesSent,
    BytesReceived,
    Retransmits,
    RttMicroseconds,
    RttSamples,
    Segments,
    SegmentsLost,
    Decoded,
    DecodedFailed,
    Undecodable,
    Unpaired,
}

const COUNTS: usize = Count::Unpaired as usize + 1;
/// Attempts to connect that failed, by reason.
const FAILURES: [Count; 5] = [
    Count::Refused,
    Count::TimedOut,
    Count::Unreachable,
    Count::Aborted,
    Count::FailedOtherwise,
];

/// What was counted of an edge: the kernel side's numbers, with fewer buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounts {
    counts: [u64; COUNTS],
    open: u64,
    latency: Latency,
}

impl EdgeCounts {
    /// From the numbers of the kernel side and of the decoders.
    pub fn new(stats: &EdgeStats, decoded: &Decoded) -> Self {
        let mut counts = [0; COUNTS];
        for row in families::COUNTERS {
            counts[row.count as usize] = (row.read)(stats, decoded);
        }
        Self {
            counts,
            open: 0,
            latency: Latency::new(&stats.latency, stats.latency_sum),
        }
    }

    /// With so many connections that are open.
    #[must_use]
    pub fn open_now(self, open: u64) -> Self {
        Self { open, ..self }
    }

    pub(super) fn get(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// Everything but what is open, which is no counter.
    fn add(&mut self, grown: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(grown.counts) {
            *sum += count;
        }
        self.latency.add(&grown.latency);
    }

    /// What was counted since `before`; all of it when the edge was forgotten in between.
    fn since(&self, before: &Self) -> Self {
        let mut grown = *self;
        for (left, before) in grown.counts.iter_mut().zip(before.counts) {
            match left.checked_sub(before) {
                Some(rest) => *left = rest,
                None => return *self,
            }
        }
        match self.latency.since(&before.latency) {
            Some(latency) => Self { latency, ..grown },
            None => *self,
        }
    }

    fn failed(&self) -> u64 {
        FAILURES.iter().map(|failure| self.get(*failure)).sum()
    }

    fn traffic(&self) -> u64 {
        self.get(Count::BytesSent) + self.get(Count::BytesReceived)
    }
}

/// What makes a series of edges its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: String,
    server: String,
    port: u16,
    protocol: String,
    seen_at_client: bool,
    /// What the service graph calls the kind of the connection.
    connection: &'static str,
}

impl Key {
    fn of(edge: &ObservedEdge) -> Self {
        let both_known = edge.ends.client_is_here() && edge.ends.server_is_here;
        Self {
            client: edge.ends.client.clone(),
            server: edge.ends.server.clone(),
            port: edge.ends.port,
            protocol: edge.protocol.clone(),
            seen_at_client: edge.ends.seen_at == Side::Client,
            connection: conventions::connection_type(&edge.protocol, both_known),
        }
    }
}

#[derive(Debug)]
struct Series {
    totals: EdgeCounts,
    /// When an edge of it was last there.
    used: Instant,
}

#[derive(Debug)]
struct Seen {
    counts: EdgeCounts,
    at: Instant,
    /// Whether it is in the sum of the others.
    folded: bool,
}

/// Counters of all edges.
#[derive(Debug)]
pub(super) struct EdgeLedger {
    /// Bounds what a scrape costs; at least 1.
    limit: usize,
    series: HashMap<Key, Series>,
    /// The sum of the edges that have no series.
    other: EdgeCounts,
    seen: HashMap<u64, Seen>,
    /// Edges that were ever put into `other`.
    folded: u64,
}

impl EdgeLedger {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            series: HashMap::new(),
            other: EdgeCounts::default(),
            seen: HashMap::new(),
            folded: 0,
        }
    }

    /// Takes in what was counted until now; those with most traffic get a series first.
    pub(super) fn update(&mut self, mut edges: Vec<ObservedEdge>, now: Instant) {
        edges.sort_by_key(|edge| (Reverse(edge.counts.traffic()), edge.id));
        self.other.open = 0;
        for series in self.series.values_mut() {
            series.totals.open = 0;
        }
        for edge in &edges {
            let key = Key::of(edge);
            let has_series = self.series.contains_key(&key) || self.make_room(now);
            let before = self.seen.get(&edge.id);
            let grown = before.map_or(edge.counts, |seen| edge.counts.since(&seen.counts));
            let was_folded = before.is_some_and(|seen| seen.folded);
            self.folded += u64::from(!has_series && !was_folded);
            let seen = Seen {
                counts: edge.counts,
                at: now,
                folded: !has_series,
            };
            self.seen.insert(edge.id, seen);
            let totals = if has_series {
                let fresh = || Series {
                    totals: EdgeCounts::default(),
                    used: now,
                };
                let series = self.series.entry(key).or_insert_with(fresh);
                series.used = now;
                &mut series.totals
            } else {
                &mut self.other
            };
            totals.add(&grown);
            totals.open += edge.counts.open;
        }
        self.seen
            .retain(|_, seen| now.saturating_duration_since(seen.at) < FORGET);
    }

    /// Whether there is room for one more series, if need be that of one whose edges are gone.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.series.len() < self.limit {
            return true;
        }
        let idle = |series: &Series| now.saturating_duration_since(series.used);
        let oldest = self
            .series
            .iter()
            .max_by_key(|(_, series)| idle(series))
            .filter(|(_, series)| idle(series) >= IDLE)
            .map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.series.remove(&key).is_some())
    }
}
