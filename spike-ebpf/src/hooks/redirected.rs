//! Sends UDP datagrams to the agent, and notes where they were meant to go: each destination of a socket has one of the
//! agent's ports, so that an answer tells by its source whose it is.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SkBuffContext;
use spike_common::address::Endpoint;
use spike_common::config::{DATAGRAM_PORTS, DatagramPorts};
use spike_common::counter::Counter;
use spike_common::socket::{DATAGRAMS_REDIRECTED, Flow, FlowKey, REDIRECTED, Socket};
use spike_common::task::mix;

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
    let slot = slot_of(destination);
    let port = port_at(listener, ipv4, slot);
    if port == 0 {
        counts::count(Counter::EscapedNamespace);
        return None;
    }
    // SAFETY: the context's socket.
    let device = unsafe { (*sk).bound_dev_if };
    if (device != 0 && device != LOOPBACK_INTERFACE) || destination.address.is_ipv6_link_local() {
        counts::count(Counter::EscapedScope);
        return None;
    }
    // SAFETY: the caller's promise; the slot is within.
    unsafe {
        let slots = storage::slots(sk, true)?;
        slots.originals[slot] = *destination;
    }
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
    let original = unsafe { original(sk, socket, &ends.destination)? };
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
pub(super) unsafe fn original(sk: *mut bpf_sock, socket: &Socket, agent: &Endpoint) -> Option<Endpoint> {
    if !agent.address.is_loopback() {
        return None;
    }
    // SAFETY: entries are replaced whole.
    let listener = unsafe { DATAGRAM_LISTENERS.get(socket.netns)? };
    // SAFETY: the caller's promise.
    let slots = unsafe { storage::slots(sk, false)? };
    let ipv4 = agent.address.is_ipv4();
    for slot in 0..DATAGRAM_PORTS {
        if port_at(listener, ipv4, slot) == agent.port {
            let original = slots.originals[slot];
            return (original.port != 0).then_some(original);
        }
    }
    None
}

#[inline(always)]
fn port_at(listener: &DatagramPorts, ipv4: bool, slot: usize) -> u16 {
    if ipv4 {
        listener.ports4[slot]
    } else {
        listener.ports6[slot]
    }
}

/// Destinations that share one replace each other: an answer that is then still on its way looks like the later one's.
#[inline(always)]
fn slot_of(destination: &Endpoint) -> usize {
    let [a, b, c, d] = destination.address.0;
    let word = mix(
        u64::from(a) << 32 | u64::from(b),
        u64::from(c) << 32 | u64::from(d),
    );
    mix(word, u64::from(destination.port)) as usize & (DATAGRAM_PORTS - 1)
}
