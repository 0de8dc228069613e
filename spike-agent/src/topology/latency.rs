//! From a histogram of latencies to what people read.

use serde::{Deserialize, Serialize};
use spike_common::{
    edge::EdgeStats,
    histogram::{BUCKETS, bounds},
};

use crate::model::view::{BucketView, LatencyView};

/// Latencies by bucket (see [`spike_common::histogram`]): the buckets that are not empty, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Histogram(Vec<(u16, u64)>);

impl Histogram {
    /// How many latencies are in it.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Adds the latencies of another one.
    pub fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        if self.add_in_place(other) {
            return;
        }
        let mut merged = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.0 == b.0 => {
                    merged.push((a.0, a.1.saturating_add(b.1)));
                    left.next();
                    right.next();
                }
                (Some(a), Some(b)) if a.0 < b.0 => merged.extend(left.next()),
                (_, Some(_)) => merged.extend(right.next()),
                (Some(_), None) => merged.extend(left.next()),
                (None, None) => break,
            }
        }
        self.0 = merged;
    }

    /// Adds to the buckets that are in use already; false, and nothing is changed, when they do not do. Latencies of one
    /// edge mostly fall into the same ones.
    fn add_in_place(&mut self, other: &Self) -> bool {
        let mut mine = self.0.iter().map(|(bucket, _)| *bucket);
        let all = other
            .0
            .iter()
            .all(|(wanted, _)| mine.any(|bucket| bucket == *wanted));
        if all {
            let mut mine = self.0.iter_mut();
            for (wanted, count) in &other.0 {
                if let Some((_, sum)) = mine.find(|(bucket, _)| bucket == wanted) {
                    *sum = sum.saturating_add(*count);
                }
            }
        }
        all
    }

    /// What came since it was like `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut before = before.0.iter().peekable();
        let grown = self.0.iter().filter_map(|(bucket, count)| {
            while before.next_if(|(other, _)| other < bucket).is_some() {}
            let was = before
                .next_if(|(other, _)| other == bucket)
                .map_or(0, |(_, count)| *count);
            let grown = count.saturating_sub(was);
            (grown > 0).then_some((*bucket, grown))
        });
        Self(grown.collect())
    }

    /// The latency, in nanoseconds, that so many per mille of the calls do not exceed: the middle of its bucket.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        self.at_rank(rank(self.count(), per_mille))
    }

    /// The latency, in nanoseconds, of the `rank`th fastest call, counted from 1; none when there are fewer.
    pub fn at_rank(&self, rank: u64) -> Option<u64> {
        let mut below = 0;
        let bucket = self.0.iter().find(|(_, count)| {
            below += count;
            below >= rank
        });
        let (low, high) = limits(usize::from(bucket?.0));
        Some(low.midpoint(high))
    }

    /// Quantiles are the middles of the buckets that they fall into, within 3.2 % of the truth from 1 us to 68 s; the
    /// maximum is the end of the highest bucket in use, at most 6.3 % above the truth. The mean of `sum`, in
    /// nanoseconds, is exact.
    pub fn view(&self, sum: u64) -> Option<LatencyView> {
        let slowest = usize::from(self.0.last()?.0);
        let count = self.count();
        let quantile = |per_mille| self.at_rank(rank(count, per_mille)).map(microseconds);
        let mean_us = microseconds(sum / count.max(1));
        Some(LatencyView {
            p50_us: quantile(500)?,
            p90_us: quantile(900)?,
            p99_us: quantile(990)?,
            // The last bucket has no end, so its values may be far above its start.
            max_us: microseconds(limits(slowest).1).max(mean_us),
            mean_us,
        })
    }

    /// The buckets that are not empty, in order.
    pub fn buckets(&self) -> Vec<BucketView> {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let view = |(bucket, calls): &(u16, u64)| {
            let bucket = usize::from(*bucket);
            let (low, high) = bounds(bucket);
            BucketView {
                from_us: microseconds(low),
                to_us: (bucket != BUCKETS - 1).then(|| microseconds(high)),
                calls: *calls,
            }
        };
        self.0.iter().map(view).collect()
    }
}

impl From<&EdgeStats> for Histogram {
    fn from(stats: &EdgeStats) -> Self {
        let buckets = stats.latency.iter().enumerate().filter(|(_, calls)| **calls > 0);
        // There are few hundred buckets.
        let narrow = |bucket: usize| u16::try_from(bucket).unwrap_or(u16::MAX);
        Self(buckets.map(|(bucket, calls)| (narrow(bucket), *calls)).collect())
    }
}

/// The latencies of an edge for people.
pub(super) fn latency_view(stats: &EdgeStats) -> Option<LatencyView> {
    Histogram::from(stats).view(stats.latency_sum)
}

/// The latencies of an edge: the buckets that are not empty, in order.
pub fn histogram(stats: &EdgeStats) -> Vec<BucketView> {
    Histogram::from(stats).buckets()
}

/// Which of so many, counted from 1 at the fastest, so many per mille do not exceed.
fn rank(count: u64, per_mille: u64) -> u64 {
    let rank = (u128::from(count) * u128::from(per_mille)).div_ceil(1000);
    u64::try_from(rank).unwrap_or(u64::MAX)
}

/// The bounds of a bucket; those of the last one, which is open, are both its start.
fn limits(bucket: usize) -> (u64, u64) {
    let (low, high) = bounds(bucket);
    if bucket >= BUCKETS - 1 {
        (low, low)
    } else {
        (low, high)
    }
}

fn microseconds(nanoseconds: u64) -> u64 {
    nanoseconds.saturating_add(500) / 1000
}

#[cfg(test)]
mod tests {
    use spike_common::histogram::bucket;

    use super::*;

    fn stats(latencies_us: impl IntoIterator<Item = u64>) -> EdgeStats {
        let mut stats = EdgeStats {
            opened: 1,
            ..EdgeStats::default()
        };
        for latency in latencies_us {
            stats.calls += 1;
            stats.latency_sum += latency * 1000;
            stats.latency[bucket(latency * 1000) as usize] += 1;
        }
        stats
    }

    #[track_caller]
    fn assert_near(measured: u64, truth: u64) {
        let off = measured.abs_diff(truth) as f64 / truth as f64;
        assert!(off < 0.065, "{measured} is {off} off {truth}");
    }

    #[test]
    fn quantiles_are_those_of_the_calls() {
        let latency = latency_view(&stats(1..=10_000)).unwrap();
        assert_near(latency.p50_us, 5_000);
        assert_near(latency.p90_us, 9_000);
        assert_near(latency.p99_us, 9_900);
        assert_near(latency.max_us, 10_000);
        assert!(latency.max_us >= 10_000);
        assert_eq!(latency.mean_us, 5_001, "5000.5 rounded");
        let one = latency_view(&stats([200_000])).unwrap();
        assert_near(one.p50_us, 200_000);
        assert_eq!(
            (one.p50_us, one.p90_us, one.mean_us),
            (one.p99_us, one.p99_us, 200_000)
        );
        let rare = latency_view(&stats([100; 99].into_iter().chain([1_000_000]))).unwrap();
        assert_near(rare.p99_us, 100);
        assert_near(rare.max_us, 1_000_000);
    }

    #[test]
    fn no_call_has_no_latency_and_the_open_bucket_has_a_maximum() {
        assert_eq!(latency_view(&stats([])), None);
        let slow = latency_view(&stats([100_000_000])).unwrap();
        assert_eq!((slow.p50_us, slow.max_us), (68_719_477, 100_000_000));
    }

    #[test]
    fn what_is_added_can_be_taken_away_again() {
        let of = |latencies: &[u64]| Histogram::from(&stats(latencies.iter().copied()));
        let (first, second) = (of(&[5, 50, 500, 500]), of(&[1, 50, 700, 90_000_000]));
        let mut both = first.clone();
        both.add(&second);
        assert_eq!(both, of(&[1, 5, 50, 50, 500, 500, 700, 90_000_000]));
        assert_eq!(both.since(&first), second);
        assert_eq!(both.since(&second), first);
        assert_eq!(both.since(&Histogram::default()), both);
        assert_eq!(first.since(&both), Histogram::default());
        let mut none = Histogram::default();
        none.add(&first);
        assert_eq!(none, first);
        assert_eq!(both.count(), 8);
        assert_near(both.at_rank(7).unwrap(), 700_000);
        assert_eq!(both.at_rank(9), None);
    }
}
