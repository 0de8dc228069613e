//! The state of a socket, by the raw helpers: aya's take a connect context only.

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use spike_common::socket::{DatagramSlots, Socket};

use crate::maps::{DATAGRAM_SLOTS, SOCKETS};

/// The socket's state, if it has one.
///
/// # Safety
/// `sk` must be a full socket that the verifier trusts, not null.
#[inline(always)]
pub(crate) unsafe fn get(sk: *mut bpf_sock) -> Option<&'static mut Socket> {
    // SAFETY: the caller's promise; a null value with no flag only looks up.
    let socket = unsafe { bpf_sk_storage_get(SOCKETS.as_ptr(), sk.cast::<c_void>(), null_mut(), 0) };
    // SAFETY: the helper returns null or a value that lives as long as the program runs.
    unsafe { socket.cast::<Socket>().as_mut() }
}

/// The socket's state, zeroed if it had none.
///
/// # Safety
/// As [`get`].
#[inline(always)]
pub(crate) unsafe fn get_or_create(sk: *mut bpf_sock) -> Option<&'static mut Socket> {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the caller's promise; without a value the kernel zeroes a new one.
    let socket = unsafe { bpf_sk_storage_get(SOCKETS.as_ptr(), sk.cast::<c_void>(), null_mut(), flags) };
    // SAFETY: as in `get`.
    unsafe { socket.cast::<Socket>().as_mut() }
}

/// Where the datagrams of a UDP socket were meant to go, if any went to the agent.
///
/// # Safety
/// As [`get`].
#[inline(always)]
pub(crate) unsafe fn slots(sk: *mut bpf_sock, create: bool) -> Option<&'static mut DatagramSlots> {
    let flags = if create {
        u64::from(BPF_SK_STORAGE_GET_F_CREATE)
    } else {
        0
    };
    // SAFETY: the caller's promise; without a value the kernel zeroes a new one.
    let slots =
        unsafe { bpf_sk_storage_get(DATAGRAM_SLOTS.as_ptr(), sk.cast::<c_void>(), null_mut(), flags) };
    // SAFETY: as in `get`.
    unsafe { slots.cast::<DatagramSlots>().as_mut() }
}
