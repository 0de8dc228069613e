//! From a histogram of latencies to what people read.

use spike_common::{
    edge::EdgeStats,
    histogram::{BUCKETS, bounds},
};

use crate::model::view::{BucketView, LatencyView};

/// Quantiles are the middles of the buckets that they fall into, within 3.2 % of the truth from 1 us to 68 s; the
/// maximum is the end of the highest bucket in use, at most 6.3 % above the truth. The mean is exact.
pub(super) fn latency_view(stats: &EdgeStats) -> Option<LatencyView> {
    let count: u64 = stats.latency.iter().sum();
    let slowest = stats.latency.iter().rposition(|&count| count > 0)?;
    let quantile = |percent: u64| {
        let rank = (u128::from(count) * u128::from(percent)).div_ceil(100);
        let mut below = 0;
        let bucket = stats.latency.iter().position(|&count| {
            below += u128::from(count);
            below >= rank
        });
        let (low, high) = limits(bucket.unwrap_or(slowest));
        microseconds(low.midpoint(high))
    };
    let mean_us = microseconds(stats.latency_sum / count);
    Some(LatencyView {
        p50_us: quantile(50),
        p90_us: quantile(90),
        p99_us: quantile(99),
        // The last bucket has no end, so its values may be far above its start.
        max_us: microseconds(limits(slowest).1).max(mean_us),
        mean_us,
    })
}

/// The latencies of an edge: the buckets that are not empty, in order.
pub fn histogram(stats: &EdgeStats) -> Vec<BucketView> {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let buckets = stats.latency.iter().enumerate().filter(|(_, calls)| **calls > 0);
    buckets
        .map(|(bucket, &calls)| {
            let (low, high) = bounds(bucket);
            BucketView {
                from_us: microseconds(low),
                to_us: (bucket != BUCKETS - 1).then(|| microseconds(high)),
                calls,
            }
        })
        .collect()
}

/// The bounds of a bucket; those of the last one, which is open, are both its start.
fn limits(bucket: usize) -> (u64, u64) {
    let (low, high) = bounds(bucket);
    if bucket == BUCKETS - 1 {
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
}
