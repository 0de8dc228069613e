//! Single delays by chance, by the distribution that a latency asks for.

use std::{f64::consts::TAU, time::Duration};

use spike_common::chance;

use crate::model::{Distribution, effect::MAX_DELAY};

/// Delays of one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    pub(super) delay: Duration,
    /// At most `delay`; what it means, `distribution` says.
    pub(super) jitter: Duration,
    pub(super) distribution: Distribution,
    /// Of this connection and direction.
    pub(super) seed: u64,
}

impl Delays {
    /// The delay of what begins with the direction's `position`-th byte.
    pub(super) fn at(&self, position: u64) -> Duration {
        if self.jitter.is_zero() {
            return self.delay;
        }
        let (delay, jitter) = (self.delay.as_secs_f64(), self.jitter.as_secs_f64());
        let share = within_0_and_1(chance::roll(self.seed, position));
        let seconds = match self.distribution {
            Distribution::Uniform => delay - jitter + 2.0 * jitter * share,
            Distribution::Normal => {
                let other = within_0_and_1(chance::roll(!self.seed, position));
                // Box and Muller.
                delay + jitter * (-2.0 * share.ln()).sqrt() * (TAU * other).cos()
            }
            // Scale `delay`, and the shape that makes the mean `delay` + `jitter`.
            Distribution::Pareto => delay * share.powf(-1.0 / pareto_shape(delay, jitter)),
        };
        Duration::from_secs_f64(seconds.clamp(0.0, MAX_DELAY.as_secs_f64()))
    }
}

fn pareto_shape(delay: f64, jitter: f64) -> f64 {
    1.0 + delay / jitter
}

/// Above 0 and below 1.
fn within_0_and_1(roll: u32) -> f64 {
    (f64::from(roll) + 0.5) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 10_000;
    /// Kolmogorov-Smirnov: a right sample of this size is further off once in a thousand times.
    const FARTHEST: f64 = 1.95;

    fn delays(distribution: Distribution, jitter: u64, seed: u64) -> Delays {
        Delays {
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(jitter),
            distribution,
            seed,
        }
    }

    /// Of 10,000 delays in seconds, from least to most.
    fn sample(delays: &Delays) -> Vec<f64> {
        let mut sample: Vec<f64> = (0..COUNT)
            .map(|index| delays.at(u64::from(index) * 100).as_secs_f64())
            .collect();
        sample.sort_by(f64::total_cmp);
        sample
    }

    /// Largest distance between a sample's distribution and the one by definition.
    fn distance(sample: &[f64], below: impl Fn(f64) -> f64) -> f64 {
        let count = f64::from(COUNT);
        let mut farthest = 0.0_f64;
        for (index, &value) in (0_u32..).zip(sample) {
            // Values that are equal count as one step.
            if sample.get(index as usize + 1) == Some(&value) {
                continue;
            }
            farthest = farthest.max((f64::from(index + 1) / count - below(value)).abs());
        }
        farthest
    }

    /// The standard normal distribution's, by Abramowitz and Stegun 7.1.26: exact to 2e-7.
    fn normal_below(x: f64) -> f64 {
        let z = x.abs() / 2.0_f64.sqrt();
        let t = 1.0 / (1.0 + 0.327_591_1 * z);
        let polynomial = t
            * (0.254_829_592
                + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
        let error = 1.0 - polynomial * (-z * z).exp();
        if x < 0.0 {
            (1.0 - error) / 2.0
        } else {
            f64::midpoint(1.0, error)
        }
    }

    #[test]
    fn each_distribution_is_what_it_says() {
        let limit = FARTHEST / f64::from(COUNT).sqrt();
        for seed in 1..=5 {
            for jitter in [10, 40, 100] {
                let (mean, spread) = (0.1, f64::from(u32::try_from(jitter).unwrap()) / 1000.0);
                let uniform = sample(&delays(Distribution::Uniform, jitter, seed));
                let off = distance(&uniform, |x| (x - mean + spread) / (2.0 * spread));
                assert!(off < limit, "uniform, {jitter} ms, seed {seed}: {off}");
                let normal = sample(&delays(Distribution::Normal, jitter, seed));
                let off = distance(&normal, |x| normal_below((x - mean) / spread));
                assert!(off < limit, "normal, {jitter} ms, seed {seed}: {off}");
                let pareto = sample(&delays(Distribution::Pareto, jitter, seed));
                let off = distance(&pareto, |x| 1.0 - (mean / x).powf(pareto_shape(mean, spread)));
                assert!(off < limit, "pareto, {jitter} ms, seed {seed}: {off}");
                // The test can tell them apart.
                assert!(distance(&uniform, |x| normal_below((x - mean) / spread)) > limit);
            }
        }
    }

    #[test]
    fn means_and_ranges_are_as_documented() {
        let mean = |sample: &[f64]| sample.iter().sum::<f64>() / f64::from(COUNT);
        let uniform = sample(&delays(Distribution::Uniform, 40, 1));
        assert!(uniform[0] >= 0.06 && *uniform.last().unwrap() <= 0.14);
        let pareto = sample(&delays(Distribution::Pareto, 40, 1));
        assert!(pareto[0] >= 0.1 && (mean(&pareto) - 0.14).abs() < 0.003);
        let normal = sample(&delays(Distribution::Normal, 40, 1));
        assert!((mean(&normal) - 0.1).abs() < 0.002);
        assert_eq!(
            delays(Distribution::Uniform, 0, 1).at(7),
            Duration::from_millis(100)
        );
    }

    #[test]
    fn the_same_seed_and_byte_give_the_same_delay() {
        let some = |seed| sample(&delays(Distribution::Normal, 40, seed));
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
    }
}
