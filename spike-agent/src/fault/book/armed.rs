//! A fault in force: its identity, its end, and what became of the connections that it chose.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::Fault;

/// A fault in force.
#[derive(Debug)]
pub struct ArmedFault {
    /// From 1; never used again while the agent runs.
    pub id: u64,
    /// What it is; its name is not empty.
    pub fault: Fault,
    /// When it came into the book.
    pub armed_at: Instant,
    /// When it removes itself.
    pub deadline: Instant,
    /// Cancelled when the fault leaves the book, before anyone else is told.
    pub removed: CancellationToken,
    /// Number of the next matching connection, for the choice by chance.
    pub sequence: AtomicU64,
    /// Connections that the selector chose, but those that the kernel counts.
    pub matched: AtomicU64,
    /// Connections that the effect was applied to, but those that the kernel counts.
    pub affected: AtomicU64,
    /// Connections that the selector chose and that passed unharmed.
    pub escaped: AtomicU64,
    /// Set while the kernel decides this fault alone; the proxy must not roll its chance a second time.
    pub decided_in_kernel: AtomicBool,
    active: AtomicU32,
}

impl ArmedFault {
    pub(super) fn new(id: u64, fault: Fault, armed_at: Instant) -> Self {
        Self {
            id,
            armed_at,
            deadline: armed_at + fault.ttl,
            removed: CancellationToken::new(),
            sequence: AtomicU64::new(0),
            matched: AtomicU64::new(0),
            affected: AtomicU64::new(0),
            escaped: AtomicU64::new(0),
            decided_in_kernel: AtomicBool::new(false),
            active: AtomicU32::new(0),
            fault,
        }
    }

    /// Counts a connection that the selector chose; its number, from 0, decides by chance with the seed.
    pub fn count_match(&self) -> u64 {
        self.matched.fetch_add(1, Ordering::Relaxed);
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a connection that the selector chose and that passes unharmed.
    pub fn count_escape(&self) {
        self.escaped.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a chosen connection in, or lets it escape when `max_active` of them are in already.
    pub fn enter(self: &Arc<Self>) -> Option<Active> {
        let limit = self.fault.max_active.unwrap_or(u32::MAX);
        let more = |active: u32| (active < limit).then(|| active + 1);
        if self
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_err()
        {
            self.count_escape();
            return None;
        }
        self.affected.fetch_add(1, Ordering::Relaxed);
        Some(Active { armed: self.clone() })
    }

    /// Connections that the effect is applied to now.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}

/// A connection that a fault is applied to, for as long as this lives.
#[derive(Debug)]
pub struct Active {
    armed: Arc<ArmedFault>,
}

impl Active {
    /// The fault.
    pub fn fault(&self) -> &Arc<ArmedFault> {
        &self.armed
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.armed.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RawFault;

    #[test]
    fn no_more_than_the_limit_are_affected_at_one_time() {
        let body = r#"{"to":{"port":80},"effect":{"type":"reset"},"max_active":2}"#;
        let fault = Fault::try_from(&serde_json::from_str::<RawFault>(body).unwrap()).unwrap();
        let armed = Arc::new(ArmedFault::new(1, fault, Instant::now()));
        let first = armed.enter().unwrap();
        let _second = armed.enter().unwrap();
        assert!(armed.enter().is_none());
        assert_eq!(armed.active(), 2);
        drop(first);
        assert!(armed.enter().is_some());
        assert_eq!(armed.affected.load(Ordering::Relaxed), 3);
        assert_eq!(armed.escaped.load(Ordering::Relaxed), 1);
    }
}
