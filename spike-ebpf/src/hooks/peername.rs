//! Keeps getpeername() truthful after connect() was redirected.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use spike_common::address::Endpoint;
use spike_common::socket::REDIRECTED;

use super::ALLOW;
use crate::support::storage;

#[cgroup_sock_addr(getpeername4)]
fn spike_getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx) {
        // SAFETY: these context fields are writable in getpeername hooks.
        unsafe {
            (*ctx.sock_addr).user_ip4 = original.address.0[3];
            (*ctx.sock_addr).user_port = u32::from(original.port.to_be());
        }
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
fn spike_getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx) {
        let raw = ctx.sock_addr;
        // SAFETY: as above.
        unsafe {
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[0], original.address.0[0]);
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[1], original.address.0[1]);
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[2], original.address.0[2]);
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[3], original.address.0[3]);
            (*raw).user_port = u32::from(original.port.to_be());
        }
    }
    ALLOW
}

/// Where a redirected socket was meant to go.
#[inline(always)]
fn original(ctx: &SockAddrContext) -> Option<Endpoint> {
    // SAFETY: the context and its socket are valid while the program runs; null is checked.
    let socket = unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        storage::get(sk)?
    };
    (socket.flags & REDIRECTED != 0).then_some(socket.original)
}
