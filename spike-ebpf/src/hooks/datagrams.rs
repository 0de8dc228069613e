//! Sees where UDP sockets send, so that their datagrams count for an edge.

use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use spike_common::address::Endpoint;
use spike_common::config::Config;
use spike_common::edge::UDP;
use spike_common::socket::DATAGRAMS;

use super::ALLOW;
use super::connect::edge_to;
use super::destination::{destination4, destination6};
use crate::maps::CONFIG;
use crate::support::{counts, storage, tasks};

#[cgroup_sock_addr(sendmsg4)]
fn spike_sendmsg4(ctx: SockAddrContext) -> i32 {
    _ = sending(&ctx, &destination4(&ctx));
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
fn spike_sendmsg6(ctx: SockAddrContext) -> i32 {
    _ = sending(&ctx, &destination6(&ctx));
    ALLOW
}

/// A socket that was bound may be a server's, and this an answer: it would be drawn the wrong way round. A client's
/// seldom is before its first datagram.
#[inline(always)]
fn sending(ctx: &SockAddrContext, destination: &Endpoint) -> Option<()> {
    // SAFETY: the context is valid; null is checked.
    let is_known = unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        (*sk).src_port == 0 || storage::get(sk).is_some_and(|socket| socket.flags & DATAGRAMS != 0)
    };
    if is_known {
        watch(ctx, CONFIG.get(0)?, destination)
    } else {
        None
    }
}

/// What the socket sends from now on counts for the edge to `destination`.
#[inline(always)]
pub(super) fn watch(ctx: &SockAddrContext, config: &Config, destination: &Endpoint) -> Option<()> {
    let raw = ctx.sock_addr;
    if tasks::tgid() == config.agent_tgid {
        return None;
    }
    // SAFETY: the context is valid; these hooks always have a full socket, and null is checked.
    let socket = unsafe {
        let sk = (*raw).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        storage::get_or_create(sk)?
    };
    if socket.edge != 0 && socket.original == *destination {
        return None;
    }
    socket.flags = DATAGRAMS;
    socket.original = *destination;
    // SAFETY: the helper takes this context.
    socket.netns = unsafe { bpf_get_netns_cookie(raw.cast()) };
    tasks::fill(&mut socket.task);
    socket.edge = counts::edge(&edge_to(socket, destination, UDP));
    let stats = counts::stats(socket.edge)?;
    // SAFETY: a map value.
    unsafe { counts::add(&raw mut (*stats).opened, 1) };
    Some(())
}
