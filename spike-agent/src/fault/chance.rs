//! Choices by chance that come from a fault's seed alone, so that a run can be repeated.

use std::{sync::Arc, time::Duration};

use spike_common::chance;

use super::book::{Active, ArmedFault};

/// A matching connection that a fault takes in.
pub(super) struct Taken {
    /// Keeps the connection counted.
    pub(super) active: Active,
    /// The how-many-th matching connection it is, from 0.
    pub(super) connection: u64,
}

/// Counts a matching connection, and takes it in if chance and the fault's limit say so.
pub(super) fn take(armed: &Arc<ArmedFault>) -> Option<Taken> {
    let connection = armed.count_match();
    if !chance::chosen(
        armed.fault.seed,
        connection,
        chance::threshold(armed.fault.percent),
    ) {
        armed.count_escape();
        return None;
    }
    let active = armed.enter()?;
    Some(Taken { active, connection })
}

/// Delays spread evenly over `delay` ± `jitter`.
pub(super) struct Spread {
    /// The middle.
    pub(super) delay: Duration,
    /// At most `delay`.
    pub(super) jitter: Duration,
    /// Of this connection and direction.
    pub(super) seed: u64,
}

impl Spread {
    /// The delay of the `index`-th chunk.
    pub(super) fn delay_of(&self, index: u64) -> Duration {
        let share = f64::from(chance::roll(self.seed, index)) / f64::from(u32::MAX);
        self.delay.saturating_sub(self.jitter) + (self.jitter * 2).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_the_jitter_and_repeat() {
        let spread = |seed| Spread {
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(40),
            seed,
        };
        let delays = |seed| {
            (0..1000)
                .map(|index| spread(seed).delay_of(index))
                .collect::<Vec<_>>()
        };
        let range = Duration::from_millis(60)..=Duration::from_millis(140);
        assert!(delays(1).iter().all(|delay| range.contains(delay)));
        let mean = delays(1).iter().sum::<Duration>() / 1000;
        assert!(
            mean.abs_diff(Duration::from_millis(100)) < Duration::from_millis(5),
            "{mean:?}"
        );
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
