//! Choices by chance that come from a fault's seed alone, so that a run can be repeated.

use spike_common::chance;

use super::book::{Active, ArmedFault};
use crate::model::Fault;

/// Counts a matching connection, and takes it in if chance and the fault's limit say so: the connection's number, from
/// 0, and what keeps it counted.
pub(super) fn take(armed: &ArmedFault) -> Option<(u64, Active)> {
    let connection = armed.count_match();
    if !is_chosen(&armed.fault, connection) {
        armed.count_escape();
        return None;
    }
    armed.enter().map(|active| (connection, active))
}

/// Does the fault's share take its `connection`-th matching connection?
pub(super) fn is_chosen(fault: &Fault, connection: u64) -> bool {
    chance::chosen(fault.seed, connection, chance::threshold(fault.percent))
}

/// Does the `index`-th effect's own share take this connection of the fault?
pub(super) fn takes_step(seed: u64, index: usize, connection: u64, percent: f64) -> bool {
    percent >= 100.0 || chance::chosen(step_seed(seed, index), connection, chance::threshold(percent))
}

/// A seed for the `index`-th effect of a fault, unlike the fault's own and unlike those of its other effects.
pub(super) fn step_seed(seed: u64, index: usize) -> u64 {
    let index = index as u64 + 1;
    seed ^ (u64::from(chance::roll(seed, u64::MAX - index)) << 32) ^ index.rotate_right(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_one_fault_choose_by_themselves() {
        let chosen = |index| {
            (0..1000)
                .filter(|&connection| takes_step(7, index, connection, 50.0))
                .collect::<Vec<_>>()
        };
        let both = chosen(0).iter().filter(|one| chosen(1).contains(one)).count();
        assert!((180..320).contains(&both), "{both}");
        assert!((430..570).contains(&chosen(0).len()));
        assert!((0..1000).all(|connection| takes_step(7, 0, connection, 100.0)));
        assert!((0..1000).all(|connection| !takes_step(7, 0, connection, 0.0)));
    }
}
