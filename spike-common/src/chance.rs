//! Seeded choice: the same fault seed and the same n-th match decide the same way, in the kernel and in the agent.

/// What a [`threshold`] of 100 % is: above every 32-bit roll.
pub const ALWAYS: u64 = 1 << 32;

/// The 32-bit roll of the `n`-th match under `seed` (SplitMix64's finaliser: every bit of both inputs counts).
#[inline(always)]
pub const fn roll(seed: u64, n: u64) -> u32 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}

/// Whether the `n`-th match is hit.
#[inline(always)]
pub const fn chosen(seed: u64, n: u64, threshold: u64) -> bool {
    (roll(seed, n) as u64) < threshold
}

/// The roll below which a match is hit, for a share in percent (0 to 100).
pub fn threshold(percent: f64) -> u64 {
    (percent / 100.0 * ALWAYS as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_none_are_exact() {
        assert!((0..10_000).all(|n| chosen(7, n, threshold(100.0))));
        assert!((0..10_000).all(|n| !chosen(7, n, threshold(0.0))));
    }

    #[test]
    fn shares_stay_within_binomial_bounds() {
        for (seed, percent) in [(1, 1.0), (2, 10.0), (3, 50.0), (4, 90.0)] {
            let trials = 100_000_u32;
            let hits = (0..u64::from(trials))
                .filter(|&n| chosen(seed, n, threshold(percent)))
                .count() as f64;
            let p = percent / 100.0;
            let mean = f64::from(trials) * p;
            let five_sigma_squared = 25.0 * mean * (1.0 - p);
            assert!(
                (hits - mean) * (hits - mean) < five_sigma_squared,
                "{percent} %: {hits} of {trials}"
            );
        }
    }

    #[test]
    fn seeds_differ() {
        let differ = (0..1000)
            .filter(|&n| chosen(1, n, threshold(50.0)) != chosen(2, n, threshold(50.0)))
            .count();
        assert!((400..600).contains(&differ));
    }
}
