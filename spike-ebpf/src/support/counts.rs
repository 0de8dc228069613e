//! Adds to counters and edges.

use spike_common::counter::Counter;
use spike_common::edge::{Edge, EdgeStats};

use crate::maps::{COUNTERS, EDGE_STATS, EDGES, NO_STATS};

/// Adds to a number that other CPUs, or a softirq on this one, may add to as well. In assembly because the target has
/// no compare-and-swap before kernel 5.12, for which `core` withholds all of `fetch_add`.
///
/// # Safety
/// `number` must be valid for writes and aligned.
#[inline(always)]
pub(crate) unsafe fn add(number: *mut u64, amount: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("lock *(u64 *)({number} + 0) += {amount}", number = in(reg) number, amount = in(reg) amount);
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        _ = (number, amount);
        unreachable!("built for the kernel only");
    }
}

#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(number) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a map value, checked by the look-up.
        unsafe { add(number, 1) };
    }
}

/// The counts of an edge on this CPU.
#[inline(always)]
pub(crate) fn stats(edge: u64) -> Option<*mut EdgeStats> {
    EDGE_STATS.get_ptr_mut(edge)
}

/// Finds or makes an edge. Returns its number, or 0 when there is no room.
#[inline(always)]
pub(crate) fn edge(edge: &Edge) -> u64 {
    let id = edge.id();
    if stats(id).is_some() {
        return id;
    }
    let Some(zero) = NO_STATS.get(0) else { return 0 };
    // Two CPUs may race to insert: who comes second finds the first one's entry, which is as good.
    let inserted = EDGE_STATS.insert(id, zero, 1).is_ok() || stats(id).is_some();
    if !inserted || EDGES.insert(id, edge, 0).is_err() {
        count(Counter::EdgesFull);
        return 0;
    }
    id
}
