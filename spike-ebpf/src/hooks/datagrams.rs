//! Sees where UDP sockets send, so that their datagrams count for an edge.

use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use spike_common::address::Endpoint;
use spike_common::config::{Config, DATAGRAMS as INTERCEPTED};
use spike_common::counter::Counter;
use spike_common::edge::UDP;
use spike_common::rule::REDIRECT_DATAGRAMS;
use spike_common::socket::{ANSWERS, BOUND, DATAGRAMS, DATAGRAMS_REDIRECTED, Socket};

use super::connect::edge_to;
use super::destination::{destination4, destination6};
use super::select::{live, select};
use super::{ALLOW, redirected};
use crate::maps::CONFIG;
use crate::support::{counts, storage, tasks};

/// The first port that the kernel gives to those who bind none (`net.ipv4.ip_local_port_range`, unless changed).
const FIRST_EPHEMERAL: u32 = 32_768;

#[cgroup_sock_addr(sendmsg4)]
fn spike_sendmsg4(ctx: SockAddrContext) -> i32 {
    _ = sending::<false>(&ctx, &destination4(&ctx));
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
fn spike_sendmsg6(ctx: SockAddrContext) -> i32 {
    _ = sending::<true>(&ctx, &destination6(&ctx));
    ALLOW
}

#[inline(always)]
fn sending<const IPV6: bool>(ctx: &SockAddrContext, destination: &Endpoint) -> Option<()> {
    let raw = ctx.sock_addr;
    // SAFETY: the context is valid; null is checked.
    let sk = unsafe { (*raw).__bindgen_anon_1.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null.
    let asks = unsafe {
        match storage::get(sk) {
            // One that was bound speaks first when it asks, and last when it answers: its answers would be drawn the
            // wrong way round.
            Some(socket) => socket.flags & ANSWERS == 0,
            // From before the agent: those that answer were bound, below the ports that the kernel gives the others.
            None => (*sk).src_port == 0 || (*sk).src_port >= FIRST_EPHEMERAL,
        }
    };
    if !asks {
        return None;
    }
    let (config, socket) = observe(ctx, destination)?;
    if config.intercept_flags & INTERCEPTED == 0 || config.intercept.count == 0 {
        return None;
    }
    // SAFETY: a map value; read anew for the verifier, as in the connect hook.
    let anew = unsafe { read_volatile(&raw const socket.original) };
    let destination = if IPV6 { &anew } else { destination };
    let selected = select(config, socket, destination, false);
    if selected.flags & REDIRECT_DATAGRAMS == 0 {
        return None;
    }
    if !live() {
        counts::count(Counter::EscapedHeartbeat);
        return None;
    }
    // SAFETY: the context's socket, not null.
    unsafe { redirected::send_to_agent::<IPV6>(raw, sk, socket, destination) }
}

/// What the socket sends from now on counts for the edge to `destination`. Returns none for what is not to be
/// intercepted.
#[inline(always)]
pub(super) fn observe(
    ctx: &SockAddrContext,
    destination: &Endpoint,
) -> Option<(&'static Config, &'static mut Socket)> {
    let config = CONFIG.get(0)?;
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
        return Some((config, socket));
    }
    socket.flags = DATAGRAMS | socket.flags & (BOUND | DATAGRAMS_REDIRECTED);
    socket.original = *destination;
    // SAFETY: the helper takes this context.
    socket.netns = unsafe { bpf_get_netns_cookie(raw.cast()) };
    tasks::fill(&mut socket.task);
    socket.edge = counts::edge(&edge_to(socket, destination, UDP));
    if let Some(stats) = counts::stats(socket.edge) {
        // SAFETY: a map value.
        unsafe { counts::add(&raw mut (*stats).opened, 1) };
    }
    Some((config, socket))
}
