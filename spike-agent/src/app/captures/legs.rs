//! Tells for which intercepted connection the agent made one of its own.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use spike_common::socket::FlowKey;
use spike_common::task::Task;

use super::Parts;
use crate::model::Caller;

/// Bounds the memory; the connections that were made longest ago go first.
const MOST: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// The agent's connections, by their two ends.
pub(super) struct Legs {
    by_ends: Mutex<LruCache<(SocketAddr, SocketAddr), Arc<Leg>>>,
    /// Grows with each.
    learned: AtomicU64,
}

/// For whom the agent made a connection.
#[derive(Debug)]
pub(super) struct Leg {
    /// The cookie of the application's socket.
    pub(super) cookie: u64,
    pub(super) caller: Caller,
    pub(super) task: Task,
    /// The cookie of the application's network namespace.
    pub(super) netns: u64,
    /// Where the application asked to go.
    pub(super) original: SocketAddr,
}

impl Default for Legs {
    fn default() -> Self {
        Self {
            by_ends: Mutex::new(LruCache::new(MOST)),
            learned: AtomicU64::new(0),
        }
    }
}

impl Legs {
    /// `client` is the accepted connection's peer and its own address, `upstream` the new one's own address and its peer.
    pub(super) fn learn(
        &self,
        parts: &Parts,
        netns: u64,
        client: (SocketAddr, SocketAddr),
        upstream: (SocketAddr, SocketAddr),
    ) {
        let key = FlowKey::new(netns, client.0.into(), client.1.into());
        let Some(flow) = parts.kernel.flow(&key) else {
            return;
        };
        let mut caller = parts.known.process(&flow.task);
        caller.source = Some(client.0);
        let leg = Leg {
            cookie: flow.cookie,
            caller,
            task: flow.task,
            netns,
            original: flow.original.socket_addr(),
        };
        let mut by_ends = self.by_ends.lock().unwrap_or_else(PoisonError::into_inner);
        by_ends.put(upstream, Arc::new(leg));
        self.learned.fetch_add(1, Ordering::Release);
    }

    /// The leg that a packet between two ends, either way, is of.
    pub(super) fn find(&self, ends: (SocketAddr, SocketAddr)) -> Option<Arc<Leg>> {
        let mut by_ends = self.by_ends.lock().unwrap_or_else(PoisonError::into_inner);
        let found = by_ends.get(&ends).cloned();
        found.or_else(|| by_ends.get(&(ends.1, ends.0)).cloned())
    }

    /// Changes when there is more to find.
    pub(super) fn learned(&self) -> u64 {
        self.learned.load(Ordering::Acquire)
    }
}
