//! Lets an answer that comes by way of the agent look as if it came from the address that was asked.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use spike_common::address::Endpoint;
use spike_common::socket::DATAGRAMS_REDIRECTED;

use super::destination::{destination4, destination6};
use super::{ALLOW, redirected};
use crate::support::storage;

#[cgroup_sock_addr(recvmsg4)]
fn spike_recvmsg4(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx, &destination4(&ctx)) {
        // SAFETY: these context fields are writable in recvmsg hooks.
        unsafe {
            (*ctx.sock_addr).user_ip4 = original.address.0[3];
            (*ctx.sock_addr).user_port = u32::from(original.port.to_be());
        }
    }
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
fn spike_recvmsg6(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx, &destination6(&ctx)) {
        let raw = ctx.sock_addr;
        // SAFETY: as above.
        unsafe {
            write_volatile(&raw mut (*raw).user_ip6[0], original.address.0[0]);
            write_volatile(&raw mut (*raw).user_ip6[1], original.address.0[1]);
            write_volatile(&raw mut (*raw).user_ip6[2], original.address.0[2]);
            write_volatile(&raw mut (*raw).user_ip6[3], original.address.0[3]);
            (*raw).user_port = u32::from(original.port.to_be());
        }
    }
    ALLOW
}

/// Whom an answer from `source` is really from, when that is the agent.
#[inline(always)]
fn original(ctx: &SockAddrContext, source: &Endpoint) -> Option<Endpoint> {
    // SAFETY: the context and its socket are valid while the program runs; null is checked.
    unsafe {
        let sk = read_volatile(&raw const (*ctx.sock_addr).__bindgen_anon_1.sk);
        if sk.is_null() {
            return None;
        }
        let socket = storage::get(sk)?;
        if socket.flags & DATAGRAMS_REDIRECTED == 0 {
            return None;
        }
        redirected::original(sk, source)
    }
}
