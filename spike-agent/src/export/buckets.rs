//! From the kernel side's hundreds of latency buckets to the few that are exported.

use spike_common::histogram::{BUCKETS, bounds};

use super::family::Histogram;

/// Powers of two, in nanoseconds, at which the exported buckets end: from 33 us to 34 s, closest where services are.
/// Each is an edge of the kernel side's buckets, so that nothing is guessed.
const POWERS: [u32; 17] = [15, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 33, 35];

/// The same in seconds.
///
/// The kernel side counts a latency of exactly a bound, to the nanosecond, above it.
const BOUNDS: [f64; POWERS.len()] = {
    let mut seconds = [0.0; POWERS.len()];
    let mut index = 0;
    while index < POWERS.len() {
        seconds[index] = (1_u64 << POWERS[index]) as f64 / 1e9;
        index += 1;
    }
    seconds
};

/// Calls of an edge by latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Latency {
    counts: [u64; POWERS.len() + 1],
    sum_ns: u64,
}

impl Latency {
    /// Sums the kernel side's buckets up.
    pub(super) fn new(kernel: &[u64; BUCKETS], sum_ns: u64) -> Self {
        let mut counts = [0; POWERS.len() + 1];
        for (index, &count) in kernel.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (low, _) = bounds(index);
            let bucket = POWERS.partition_point(|power| low >= 1 << power);
            counts[bucket] += count;
        }
        Self { counts, sum_ns }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.sum_ns += other.sum_ns;
    }

    /// What came after `before`; none when this is not what `before` has become.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let mut grown = Self {
            sum_ns: self.sum_ns.checked_sub(before.sum_ns)?,
            ..Self::default()
        };
        let pairs = self.counts.iter().zip(before.counts);
        for (left, (now, before)) in grown.counts.iter_mut().zip(pairs) {
            *left = now.checked_sub(before)?;
        }
        Some(grown)
    }

    pub(super) fn histogram(&self) -> Histogram {
        Histogram {
            bounds: &BOUNDS,
            counts: self.counts.to_vec(),
            sum: self.sum_ns as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use spike_common::histogram::bucket;

    use super::*;

    #[test]
    fn every_bound_is_an_edge_of_the_kernel_side() {
        for power in POWERS {
            let at = 1_u64 << power;
            assert_eq!(bounds(bucket(at) as usize).0, at);
            assert_eq!(bounds(bucket(at - 1) as usize).1, at);
        }
    }

    #[test]
    fn counts_at_the_bounds_are_exact() {
        let latencies = [
            1,
            900,
            32_767,
            32_768,
            40_000,
            1_048_575,
            1_048_576,
            1 << 34,
            1 << 40,
        ];
        let mut kernel = [0; BUCKETS];
        for latency in latencies {
            kernel[bucket(latency) as usize] += 1;
        }
        let sum = latencies.iter().sum();
        let histogram = Latency::new(&kernel, sum).histogram();
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(&histogram.counts) {
            below += count;
            let truth = latencies
                .iter()
                .filter(|latency| (**latency as f64) < bound * 1e9);
            assert_eq!(below, truth.count() as u64, "at {bound}");
        }
        assert_eq!(histogram.count(), latencies.len() as u64);
        assert_eq!(histogram.sum, sum as f64 / 1e9);
    }
}
