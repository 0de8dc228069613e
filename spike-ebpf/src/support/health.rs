//! What TCP itself knows of a connection: round-trip time, retransmissions, why it failed.

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock, bpf_tcp_sock};
use spike_common::edge::{EdgeStats, FAILURES, Failure};
use spike_common::socket::Socket;

use crate::support::counts;

/// `sock.sk_err`: an offset in bytes from the kernel's BTF, set by the agent before loading; 0 when it is not known.
#[unsafe(no_mangle)]
static OFFSET_SK_ERR: Global<u32> = Global::new(0);

/// Adds the smoothed round-trip time as it is now, and the retransmissions since the last look.
///
/// # Safety
/// `sk` must be a full socket that the verifier trusts, not null; `stats` a map value.
#[inline(always)]
pub(crate) unsafe fn look(sk: *mut bpf_sock, socket: &mut Socket, stats: *mut EdgeStats) {
    // SAFETY: the caller's promise; null is checked.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() {
            return;
        }
        // The kernel keeps eight times the time (tcp_rtt_estimator); 0 before the first measurement.
        let rtt = (*tcp).srtt_us >> 3;
        if rtt != 0 {
            counts::add(&raw mut (*stats).rtt_sum, u64::from(rtt));
            counts::add(&raw mut (*stats).rtt_count, 1);
        }
        let total = (*tcp).total_retrans;
        let fresh = total.wrapping_sub(socket.retransmits);
        if fresh != 0 {
            socket.retransmits = total;
            counts::add(&raw mut (*stats).retransmits, u64::from(fresh));
        }
    }
}

/// Counts a connection that was not established, by the error that the socket has.
///
/// # Safety
/// As [`look`].
#[inline(always)]
pub(crate) unsafe fn failed(sk: *mut bpf_sock, stats: *mut EdgeStats) {
    // SAFETY: the caller's promise.
    unsafe { count_failure(stats, errno(sk).map_or(Failure::Other, Failure::of)) };
}

/// Counts a connection that was not established.
///
/// # Safety
/// `stats` must be a map value.
#[inline(always)]
pub(crate) unsafe fn count_failure(stats: *mut EdgeStats, failure: Failure) {
    let index = core::hint::black_box(failure as u32) as usize;
    if index < FAILURES {
        // SAFETY: the caller's promise, and within the array.
        unsafe { counts::add((&raw mut (*stats).failed).cast::<u64>().add(index), 1) };
    }
}

/// The error that the socket's owner is told.
///
/// # Safety
/// `sk` must be a full socket that the verifier trusts, not null.
#[inline(always)]
unsafe fn errno(sk: *mut bpf_sock) -> Option<u32> {
    if OFFSET_SK_ERR.load() == 0 {
        return None;
    }
    let mut errno = 0_u32;
    // SAFETY: null is checked; the helper checks the source and writes four bytes to a local.
    let result = unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk.cast());
        if tcp.is_null() {
            return None;
        }
        bpf_probe_read_kernel(
            (&raw mut errno).cast(),
            4,
            tcp.cast::<u8>().add(OFFSET_SK_ERR.load() as usize).cast(),
        )
    };
    (result == 0).then_some(errno)
}
