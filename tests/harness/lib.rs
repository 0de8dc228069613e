//! What the system tests stand on: worlds, workloads, agents and oracles.
//!
//! Everything here panics when it cannot do its job, so that a failed test shows where it stood.

pub mod agent;
pub mod helper;
pub mod init;
pub mod needs;
pub mod oracle;
pub mod shop;
pub mod tools;
pub mod topology;
pub mod workload;
pub mod world;

use std::time::{Duration, Instant};

/// Tries until `attempt` gives something, and panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let limit = needs::patience(limit);
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
