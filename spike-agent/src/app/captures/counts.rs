//! What one capture got and lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spike_common::counter::Counter;

use crate::capture::record::DropCounts;
use crate::control::CaptureCounts;
use crate::kernel::Kernel;

/// By interface, as the session has them.
pub(super) struct Counts {
    kernel: Arc<Kernel>,
    /// The ring buffer's losses at the start: it is shared, so each capture counts all losses of its time.
    lost_before: u64,
    received: Vec<AtomicU64>,
    dropped: Vec<AtomicU64>,
    shown: Arc<CaptureCounts>,
}

impl Counts {
    pub(super) fn new(kernel: &Arc<Kernel>, interfaces: usize, shown: Arc<CaptureCounts>) -> Self {
        let zeroes = || (0..interfaces).map(|_| AtomicU64::new(0)).collect();
        Self {
            kernel: Arc::clone(kernel),
            lost_before: kernel.counter(Counter::TapRingFull),
            received: zeroes(),
            dropped: zeroes(),
            shown,
        }
    }

    /// A packet was chosen.
    pub(super) fn chose(&self, interface: u32) {
        if let Some(count) = self.received.get(interface as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It found no room.
    pub(super) fn lost(&self, interface: u32) {
        if let Some(count) = self.dropped.get(interface as usize) {
            count.fetch_add(1, Ordering::Relaxed);
            self.shown.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its losses are final.
    pub(super) fn end(&self, dropped: u64) {
        self.shown.dropped.store(dropped, Ordering::Relaxed);
    }

    /// The ring buffer does not tell interfaces apart: the first one bears its losses.
    fn with_ring_losses(&self, counts: &[AtomicU64], interface: u32) -> u64 {
        let own = counts
            .get(interface as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed));
        let in_ring = match interface {
            0 => self
                .kernel
                .counter(Counter::TapRingFull)
                .saturating_sub(self.lost_before),
            _ => 0,
        };
        own + in_ring
    }
}

impl DropCounts for Counts {
    fn received(&self, interface: u32) -> u64 {
        self.with_ring_losses(&self.received, interface)
    }

    fn dropped(&self, interface: u32) -> u64 {
        self.with_ring_losses(&self.dropped, interface)
    }

    fn written(&self, _interface: u32, _wire_bytes: u32) {
        self.shown.packets.fetch_add(1, Ordering::Relaxed);
    }

    fn triggered(&self, what: &str) {
        _ = self.shown.triggered.set(what.to_owned());
    }

    fn note(&self, note: String) {
        _ = self.shown.note.set(note);
    }
}
