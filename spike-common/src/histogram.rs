//! Log-linear latency buckets: exact enough for quantiles within 5 %, cheap enough to fill in the kernel.
//!
//! Each power of two is cut into 16 equal parts, so a bucket is at most 1/16 of its lower bound wide and its middle at
//! most 1/33 (3.1 %) away from any value in it. Values below 1.024 us share bucket 0; values of 68.7 s (2^36 ns) and
//! more share the last.

/// Sub-buckets in each power of two, as a power of two.
const SUB_BITS: u32 = 4;
/// The power of two, in nanoseconds, at which the buckets start.
const FIRST_POWER: u32 = 10;
/// The power of two, in nanoseconds, from which values share the last bucket.
const LAST_POWER: u32 = 36;

/// How many buckets there are.
pub const BUCKETS: usize = (((LAST_POWER - FIRST_POWER) << SUB_BITS) + 2) as usize;

/// The bucket of a latency in nanoseconds: 0 to [`BUCKETS`] - 1.
#[inline(always)]
pub const fn bucket(nanoseconds: u64) -> u32 {
    if nanoseconds < 1 << FIRST_POWER {
        return 0;
    }
    if nanoseconds >= 1 << LAST_POWER {
        return BUCKETS as u32 - 1;
    }
    let power = log2(nanoseconds);
    let sub = (nanoseconds >> (power - SUB_BITS)) as u32 & ((1 << SUB_BITS) - 1);
    1 + ((power - FIRST_POWER) << SUB_BITS) + sub
}

/// The bounds of a bucket in nanoseconds: the first value in it and the first above it.
pub const fn bounds(bucket: usize) -> (u64, u64) {
    if bucket == 0 {
        return (0, 1 << FIRST_POWER);
    }
    if bucket >= BUCKETS - 1 {
        return (1 << LAST_POWER, u64::MAX);
    }
    let power = FIRST_POWER + ((bucket - 1) as u32 >> SUB_BITS);
    let sub = (bucket as u64 - 1) & ((1 << SUB_BITS) - 1);
    let width = 1_u64 << (power - SUB_BITS);
    let low = (1_u64 << power) + sub * width;
    (low, low + width)
}

/// Floor of the binary logarithm of a value of at least 1. By halving: eBPF has no instruction for it, and the
/// compiler's own expansion is longer.
#[inline(always)]
const fn log2(mut value: u64) -> u32 {
    let mut power = 0;
    if value >> 32 != 0 {
        value >>= 32;
        power += 32;
    }
    if value >> 16 != 0 {
        value >>= 16;
        power += 16;
    }
    if value >> 8 != 0 {
        value >>= 8;
        power += 8;
    }
    if value >> 4 != 0 {
        value >>= 4;
        power += 4;
    }
    if value >> 2 != 0 {
        value >>= 2;
        power += 2;
    }
    power + (value >> 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_holds_its_own_bounds_and_touches_the_next() {
        for index in 0..BUCKETS {
            let (low, high) = bounds(index);
            assert_eq!(bucket(low) as usize, index);
            assert_eq!(bucket(high - 1) as usize, index);
            if index + 1 < BUCKETS {
                assert_eq!(bounds(index + 1).0, high);
            }
        }
    }

    #[test]
    fn the_middle_of_a_bucket_is_within_5_percent_of_all_in_it() {
        for index in 1..BUCKETS - 1 {
            let (low, high) = bounds(index);
            let middle = (low + high) as f64 / 2.0;
            assert!((middle - low as f64) / (low as f64) < 0.05);
            assert!((high as f64 - middle) / (high as f64) < 0.05);
        }
    }

    #[test]
    fn log2_agrees_with_the_standard_library() {
        for power in 0..64 {
            for value in [1_u64 << power, (1 << power) | 1, u64::MAX >> (63 - power)] {
                assert_eq!(log2(value), value.ilog2());
            }
        }
    }
}
