//! What calls came to over some edges, for judging whether a fault does more than its operator wants.

use spike_common::{
    edge::EdgeStats,
    histogram::{BUCKETS, bounds},
};

/// Sums over edges, since the agent's start or between two looks.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Connections opened.
    pub opened: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Connections torn down with a reset.
    pub reset: u64,
    /// Calls that were decoded, of the connections that were sampled.
    pub decoded: u64,
    /// Of these, the failed ones.
    pub decoded_failed: u64,
    /// Latencies of all calls by bucket.
    pub latency: Box<[u64; BUCKETS]>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            opened: 0,
            failed: 0,
            reset: 0,
            decoded: 0,
            decoded_failed: 0,
            latency: Box::new([0; BUCKETS]),
        }
    }
}

impl Tally {
    /// Adds an edge, with what was decoded of it: calls, and the failed ones of them.
    pub fn add(&mut self, stats: &EdgeStats, (decoded, decoded_failed): (u64, u64)) {
        self.opened += stats.opened;
        self.failed += stats.failed.iter().sum::<u64>();
        self.reset += stats.reset;
        self.decoded += decoded;
        self.decoded_failed += decoded_failed;
        for (sum, count) in self.latency.iter_mut().zip(stats.latency) {
            *sum += count;
        }
    }

    /// What came between `earlier` and this. An edge that was forgotten in between does not make it negative.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut latency = self.latency.clone();
        for (now, before) in latency.iter_mut().zip(earlier.latency.iter()) {
            *now = now.saturating_sub(*before);
        }
        Self {
            opened: self.opened.saturating_sub(earlier.opened),
            failed: self.failed.saturating_sub(earlier.failed),
            reset: self.reset.saturating_sub(earlier.reset),
            decoded: self.decoded.saturating_sub(earlier.decoded),
            decoded_failed: self.decoded_failed.saturating_sub(earlier.decoded_failed),
            latency,
        }
    }

    /// Calls whose latency is known.
    pub fn calls(&self) -> u64 {
        self.latency.iter().sum()
    }

    /// Nanoseconds that 99 % of the calls took less than: the end of that bucket, at most 6.3 % above the truth. None
    /// without calls.
    pub fn p99_ns(&self) -> Option<u64> {
        let rank = u128::from(self.calls()) * 99;
        let mut below = 0;
        let bucket = self.latency.iter().position(|&count| {
            below += u128::from(count) * 100;
            below > 0 && below >= rank
        })?;
        let (low, high) = bounds(bucket);
        // The last bucket has no end.
        Some(if bucket == BUCKETS - 1 { low } else { high })
    }
}
