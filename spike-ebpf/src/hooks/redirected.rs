//! Sends UDP datagrams to the agent, and notes where they were meant to go: each destination of a socket has one of the
//! agent's ports, so that an answer tells by its source whose it is.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns};
use aya_ebpf::programs::SkBuffContext;
use spike_common::address::Endpoint;
use spike_common::config::{DATAGRAM_PORTS, DatagramPorts};
use spike_common::counter::Counter;
use spike_common::socket::{
    DATAGRAMS_REDIRECTED, DatagramSlots, Flow, FlowKey, REDIRECTED, SLOT_KEPT_NS, Socket,
};

use super::connect::{LOOPBACK_INTERFACE, redirect, want_namespace};
use crate::maps::{DATAGRAM_FLOWS, DATAGRAM_LISTENERS};
use crate::support::headers::Ends;
use crate::support::{counts, storage};

/// Points a datagram, or what a socket sends from now on, at the agent.
///
/// # Safety
/// `sk` must be the context's socket, not null.
#[inline(always)]
pub(super) unsafe fn send_to_agent<const IPV6: bool>(
    raw: *mut bpf_sock_addr,
    sk: *mut bpf_sock,
    socket: &mut Socket,
    destination: &Endpoint,
) -> Option<()> {
    // SAFETY: entries are replaced whole.
    let Some(listener) = (unsafe { DATAGRAM_LISTENERS.get(socket.netns) }) else {
        counts::count(Counter::EscapedNamespace);
        want_namespace(socket);
        return None;
    };
    let ipv4 = destination.address.is_ipv4();
    if port_at(listener, ipv4, 0) == 0 {
        counts::count(Counter::EscapedNamespace);
        return None;
    }
    // SAFETY: the context's socket.
    let device = unsafe { (*sk).bound_dev_if };
    if (device != 0 && device != LOOPBACK_INTERFACE) || destination.address.is_ipv6_link_local() {
        counts::count(Counter::EscapedScope);
        return None;
    }
    // SAFETY: the caller's promise.
    let slots = unsafe { storage::slots(sk, true)? };
    let Some(slot) = slot_for(slots, destination) else {
        counts::count(Counter::EscapedDestinations);
        return None;
    };
    let port = port_at(listener, ipv4, slot);
    slots.ports[slot] = port;
    socket.flags |= DATAGRAMS_REDIRECTED;
    redirect::<IPV6>(raw, ipv4, port);
    Some(())
}

/// A datagram to the agent leaves: its ports are known now.
///
/// # Safety
/// `sk` must be a full socket, not null.
#[inline(always)]
pub(super) unsafe fn note(ctx: &SkBuffContext, sk: *mut bpf_sock, socket: &Socket) -> Option<()> {
    let ends = Ends::read(ctx.skb.skb, 0)?;
    // SAFETY: the caller's promise.
    let original = unsafe { original(sk, &ends.destination)? };
    let key = FlowKey::new(socket.netns, ends.source, ends.destination);
    // SAFETY: compared at once.
    let known = unsafe { DATAGRAM_FLOWS.get(key) };
    if known.is_some_and(|flow| flow.original == original && flow.edge == socket.edge) {
        return None;
    }
    let flow = Flow {
        // SAFETY: the helper takes this context.
        cookie: unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) },
        edge: socket.edge,
        task: socket.task,
        original,
        flags: REDIRECTED,
    };
    _ = DATAGRAM_FLOWS.insert(key, flow, 0);
    Some(())
}

/// Where a datagram was meant to go that went to, or whose answer comes from, this port of the agent's.
///
/// # Safety
/// As [`note`].
#[inline(always)]
pub(super) unsafe fn original(sk: *mut bpf_sock, agent: &Endpoint) -> Option<Endpoint> {
    if !agent.address.is_loopback() {
        return None;
    }
    // SAFETY: the caller's promise.
    let slots = unsafe { storage::slots(sk, false)? };
    for slot in 0..DATAGRAM_PORTS {
        let original = slots.originals[slot];
        let is_it = slots.used_ns[slot] != 0
            && slots.ports[slot] == agent.port
            && original.address.is_ipv4() == agent.address.is_ipv4();
        if is_it {
            return Some(original);
        }
    }
    None
}

#[inline(always)]
fn port_at(listener: &DatagramPorts, ipv4: bool, slot: usize) -> u16 {
    if slot >= DATAGRAM_PORTS {
        0
    } else if ipv4 {
        listener.ports4[slot]
    } else {
        listener.ports6[slot]
    }
}

/// The slot of a destination: its own, else one that is free by now.
#[inline(always)]
fn slot_for(slots: &mut DatagramSlots, destination: &Endpoint) -> Option<usize> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let (mut own, mut free) = (DATAGRAM_PORTS, DATAGRAM_PORTS);
    for slot in 0..DATAGRAM_PORTS {
        let used = slots.used_ns[slot];
        if used != 0 && slots.originals[slot] == *destination {
            own = slot;
        } else if used == 0 || now > used.saturating_add(SLOT_KEPT_NS) {
            free = slot;
        }
    }
    let slot = core::hint::black_box(if own < DATAGRAM_PORTS { own } else { free });
    if slot >= DATAGRAM_PORTS {
        return None;
    }
    slots.originals[slot] = *destination;
    slots.used_ns[slot] = now;
    Some(slot)
}
