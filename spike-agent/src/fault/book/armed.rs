//! A fault in force: its identity, its end, and what became of the connections that it chose.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{fault::chance, model::Fault};

/// A fault in force, as it was last changed.
#[derive(Debug)]
pub struct ArmedFault {
    /// From 1; never used again while the agent runs.
    pub id: u64,
    /// What it is; its name is not empty.
    pub fault: Arc<Fault>,
    /// When it came into the book.
    pub armed_at: Instant,
    /// When it removes itself.
    pub deadline: Instant,
    /// Cancelled when the fault leaves the book, before anyone else is told.
    pub removed: CancellationToken,
    /// Set while the kernel decides this fault alone; the proxy must not roll its chance a second time.
    pub decided_in_kernel: AtomicBool,
    /// What stays through changes.
    pub counts: Arc<Counts>,
}

/// What became of the connections that a fault chose, and what those that it has must hear.
#[derive(Debug)]
pub struct Counts {
    /// Number of the next matching connection, for the choice by chance.
    pub sequence: AtomicU64,
    /// Connections that the selector chose, but those that the kernel counts.
    pub matched: AtomicU64,
    /// Connections that the effect was applied to, but those that the kernel counts.
    pub affected: AtomicU64,
    /// Connections that the selector chose and that passed unharmed.
    pub escaped: AtomicU64,
    /// Connections that were closed when the fault was armed or changed.
    pub closed: AtomicU64,
    /// Of a dry run: connections that its selector had chosen before it was armed.
    pub seen_before: AtomicU64,
    active: AtomicU32,
    /// `book --Fault--> connections that it has`: as it was last changed; none when it is removed.
    now_tx: watch::Sender<Option<Arc<Fault>>>,
}

impl ArmedFault {
    pub(super) fn new(id: u64, fault: Fault, armed_at: Instant) -> Self {
        let fault = Arc::new(fault);
        Self {
            id,
            armed_at,
            deadline: armed_at + fault.ttl,
            removed: CancellationToken::new(),
            decided_in_kernel: AtomicBool::new(false),
            counts: Arc::new(Counts {
                sequence: AtomicU64::new(0),
                matched: AtomicU64::new(0),
                affected: AtomicU64::new(0),
                escaped: AtomicU64::new(0),
                closed: AtomicU64::new(0),
                seen_before: AtomicU64::new(0),
                active: AtomicU32::new(0),
                now_tx: watch::Sender::new(Some(fault.clone())),
            }),
            fault,
        }
    }

    /// The same fault, changed: its time to live starts again, its connections stay and hear of it.
    pub(super) fn changed(&self, fault: Fault, at: Instant) -> Self {
        let fault = Arc::new(fault);
        self.counts.now_tx.send_replace(Some(fault.clone()));
        Self {
            id: self.id,
            armed_at: self.armed_at,
            deadline: at + fault.ttl,
            removed: self.removed.clone(),
            decided_in_kernel: AtomicBool::new(self.decided_in_kernel.load(Ordering::Relaxed)),
            counts: self.counts.clone(),
            fault,
        }
    }

    /// Tells the connections that it has to go on without it.
    pub(super) fn end(&self) {
        self.removed.cancel();
        self.counts.now_tx.send_replace(None);
    }

    /// Counts a connection that the selector chose; its number, from 0, decides by chance with the seed.
    pub fn count_match(&self) -> u64 {
        self.counts.matched.fetch_add(1, Ordering::Relaxed);
        self.counts.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a connection that the selector chose and that passes unharmed.
    pub fn count_escape(&self) {
        self.counts.escaped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts for a dry run: `seen` connections so far are such that the selector chooses them.
    pub fn count_dry(&self, seen: u64) {
        let matched = seen.saturating_sub(self.counts.seen_before.load(Ordering::Relaxed));
        // One at a time: a second look at the same moment finds them counted.
        let from = self.counts.matched.fetch_max(matched, Ordering::Relaxed);
        for connection in from..matched {
            let count = if chance::is_chosen(&self.fault, connection) {
                &self.counts.affected
            } else {
                &self.counts.escaped
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a chosen connection in, or lets it escape when `max_active` of them are in already.
    pub fn enter(&self) -> Option<Active> {
        let limit = self.fault.max_active.unwrap_or(u32::MAX);
        let more = |active: u32| (active < limit).then(|| active + 1);
        if self
            .counts
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_err()
        {
            self.count_escape();
            return None;
        }
        self.counts.affected.fetch_add(1, Ordering::Relaxed);
        Some(Active {
            counts: self.counts.clone(),
        })
    }

    /// Connections that the effect is applied to now.
    pub fn active(&self) -> u32 {
        self.counts.active.load(Ordering::Relaxed)
    }
}

/// A connection that a fault is applied to, for as long as this lives.
#[derive(Debug)]
pub struct Active {
    counts: Arc<Counts>,
}

impl Active {
    /// The fault as it is now and will be.
    pub(in crate::fault) fn now(&self) -> watch::Receiver<Option<Arc<Fault>>> {
        self.counts.now_tx.subscribe()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.counts.active.fetch_sub(1, Ordering::Relaxed);
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
        let armed = ArmedFault::new(1, fault, Instant::now());
        let first = armed.enter().unwrap();
        let _second = armed.enter().unwrap();
        assert!(armed.enter().is_none());
        assert_eq!(armed.active(), 2);
        drop(first);
        assert!(armed.enter().is_some());
        assert_eq!(armed.counts.affected.load(Ordering::Relaxed), 3);
        assert_eq!(armed.counts.escaped.load(Ordering::Relaxed), 1);
    }
}
