//! Keeps decoding within its share of a processor: measures what it takes, and samples fewer or more connections.

use std::time::Duration;

/// What a sample costs the process that sends or receives the segment, on the kernel side.
const KERNEL_SIDE: Duration = Duration::from_nanos(600);
/// How long a choice of connections stays when not all are chosen, so that each has its turn.
const TURN: Duration = Duration::from_secs(2);
/// Never less than this share of connections, in 1/2^32: one in about 65,000.
const LEAST: u32 = 1 << 16;

/// Which connections are sampled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Those whose roll is below this; 0 for none, all ones for each.
    pub below: u32,
    /// What they roll with.
    pub seed: u32,
}

/// The share of one processor that decoding may take, the kernel side's part included.
#[derive(Debug)]
pub struct Budget {
    /// 0.05 is 5 % of one core.
    share: f64,
    turn: Turn,
    turned: Duration,
    /// What was used lately, as a share of one core.
    used: f64,
}

impl Budget {
    /// Starts with every connection; with a share of 0 nothing is ever sampled.
    pub fn new(share: f64) -> Self {
        let below = if share > 0.0 { u32::MAX } else { 0 };
        Self {
            share,
            turn: Turn { below, seed: 0 },
            turned: Duration::ZERO,
            used: 0.0,
        }
    }

    /// Which connections are sampled.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// What was used lately, as a share of one core.
    pub fn used(&self) -> f64 {
        self.used
    }

    /// The share of connections that are sampled, 0 to 1.
    pub fn sampled(&self) -> f64 {
        f64::from(self.turn.below) / f64::from(u32::MAX)
    }

    /// Whether what was used in part of a `window` is all that the whole of it may take.
    pub fn is_spent(&self, window: Duration, busy: Duration, samples: u32) -> bool {
        self.share > 0.0 && busy + KERNEL_SIDE * samples > window.mul_f64(self.share)
    }

    /// Takes in what the last `wall` of time took: `busy` of the agent's own time, and `samples`. True when the turn
    /// changed.
    pub fn adjust(&mut self, wall: Duration, busy: Duration, samples: u32) -> bool {
        if wall.is_zero() || self.share <= 0.0 {
            return false;
        }
        let cost = busy + KERNEL_SIDE * samples;
        self.used = cost.as_secs_f64() / wall.as_secs_f64();
        self.turned += wall;
        let before = self.turn;
        // Down at once, up in steps: what comes with more connections is not known beforehand.
        let factor = if self.used > 0.0 {
            self.share / self.used
        } else {
            2.0
        };
        if !(0.9..=1.2).contains(&factor) {
            let wanted = f64::from(self.turn.below) * factor.clamp(0.1, 1.5);
            self.turn.below = if wanted >= f64::from(u32::MAX) {
                u32::MAX
            } else {
                (wanted as u32).max(LEAST)
            };
        }
        if self.turned >= TURN && self.turn.below != u32::MAX {
            self.turn.seed = self.turn.seed.wrapping_add(1);
            self.turned = Duration::ZERO;
        }
        self.turn != before
    }
}
