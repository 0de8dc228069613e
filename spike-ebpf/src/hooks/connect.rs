//! Sees every connect(), and sends those that a rule selects to the agent, or refuses them.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval, bpf_sk_lookup_tcp,
    bpf_sk_release,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use spike_common::address::{Endpoint, MAPPED_WORD};
use spike_common::config::{Config, DATAGRAMS, HOLDS};
use spike_common::counter::Counter;
use spike_common::edge::{CLIENT, Edge, Failure, TCP, UDP};
use spike_common::event::{NamespaceWanted, WANTED};
use spike_common::rule::{REDIRECT, REDIRECT_DATAGRAMS};
use spike_common::socket::{HELD, OWN, REDIRECTED, Socket};

use super::destination::{destination4, destination6};
use super::select::{live, select};
use super::{ALLOW, DENY, datagrams, redirected};
use crate::maps::{CONFIG, EVENTS, LISTENERS, RELEASED};
use crate::support::{counts, health, names, storage, tasks};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const ECONNREFUSED: i32 = 111;
const LOOPBACK_V4: u32 = u32::from_be(0x7f00_0001);
pub(super) const LOOPBACK_INTERFACE: u32 = 1;
/// tcpmux (RFC 1078), which nobody serves: where refused connections go before kernel 5.18, to be refused there.
const REFUSING_PORT: u16 = 1;
const TCP_LISTEN: u32 = 10;

/// Whether the kernel has `bpf_set_retval` (5.18).
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u8> = Global::new(0);

#[cgroup_sock_addr(connect4)]
fn spike_connect4(ctx: SockAddrContext) -> i32 {
    connect::<false>(&ctx, destination4(&ctx))
}

#[cgroup_sock_addr(connect6)]
fn spike_connect6(ctx: SockAddrContext) -> i32 {
    connect::<true>(&ctx, destination6(&ctx))
}

#[inline(always)]
fn connect<const IPV6: bool>(ctx: &SockAddrContext, destination: Endpoint) -> i32 {
    let raw = ctx.sock_addr;
    // SAFETY: the context is valid; connect hooks always have a full socket, and null is checked.
    let sk = unsafe { (*raw).__bindgen_anon_1.sk };
    if sk.is_null() {
        return ALLOW;
    }
    // SAFETY: the context is valid while the program runs.
    let (kind, protocol) = unsafe { ((*raw).type_, (*raw).protocol) };
    let is_stream = kind == SOCK_STREAM && protocol == TCP;
    let observed = if is_stream {
        observe(ctx, &destination)
    } else if kind == SOCK_DGRAM && protocol == UDP {
        datagrams::observe(ctx, &destination)
    } else {
        None
    };
    let Some((config, socket)) = observed else {
        return ALLOW;
    };
    let wants_datagrams = config.intercept_flags & DATAGRAMS != 0;
    if config.intercept.count == 0 || !(is_stream || wants_datagrams) {
        return ALLOW;
    }
    // Read anew: what the verifier learned of an IPv6 address until here would make it follow every way through
    // the rules once for each thing that it learned.
    // SAFETY: a map value.
    let anew = unsafe { read_volatile(&raw const socket.original) };
    let destination = if IPV6 { anew } else { destination };
    let selected = select(config, socket, &destination, is_stream);
    if selected.refused {
        debug!(ctx, "refused pid {} port {}", socket.task.tgid, destination.port);
        return refuse::<IPV6>(raw, socket, &destination);
    }
    let wanted = if is_stream { REDIRECT } else { REDIRECT_DATAGRAMS };
    if selected.flags & wanted == 0 {
        return ALLOW;
    }
    if !live() {
        counts::count(Counter::EscapedHeartbeat);
        return ALLOW;
    }
    let sent = if is_stream {
        send_to_agent::<IPV6>(raw, socket, &destination)
    } else {
        // SAFETY: the context's socket, not null.
        unsafe { redirected::send_to_agent::<IPV6>(raw, sk, socket, &destination) }
    };
    if sent.is_some() {
        socket.flags |= REDIRECTED;
        if is_stream && config.intercept_flags & HOLDS != 0 {
            socket.flags |= HELD;
            // Of an earlier try of this socket.
            // SAFETY: the helper takes this context.
            _ = RELEASED.remove(unsafe { bpf_get_socket_cookie(raw.cast()) });
        }
        debug!(
            ctx,
            "redirected pid {} port {}", socket.task.tgid, destination.port
        );
    }
    ALLOW
}

/// Notes who connects where. Returns none for what is not to be intercepted.
#[inline(always)]
fn observe(ctx: &SockAddrContext, destination: &Endpoint) -> Option<(&'static Config, &'static mut Socket)> {
    let config = CONFIG.get(0)?;
    let raw = ctx.sock_addr;
    // SAFETY: the context is valid; connect hooks always have a full socket, and null is checked.
    let socket = unsafe {
        let sk = (*raw).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        storage::get_or_create(sk)?
    };
    // A socket may try again after a failure: nothing of the first try must stay.
    socket.edge = 0;
    socket.flags = 0;
    socket.retransmits = 0;
    socket.original = *destination;
    // SAFETY: the helper takes this context.
    socket.netns = unsafe { bpf_get_netns_cookie(raw.cast()) };
    if tasks::tgid() == config.agent_tgid {
        socket.flags = OWN;
        return None;
    }
    tasks::fill(&mut socket.task);
    socket.edge = counts::edge(&edge_to(socket, destination, TCP));
    Some((config, socket))
}

/// The edge from a socket's owner to `destination`.
#[inline(always)]
pub(super) fn edge_to(socket: &Socket, destination: &Endpoint, transport: u32) -> Edge {
    Edge {
        netns: if destination.address.is_loopback() {
            socket.netns
        } else {
            0
        },
        // SAFETY: a helper without arguments.
        since_ns: unsafe { bpf_ktime_get_ns() },
        task: socket.task,
        destination: *destination,
        peer: Endpoint::default(),
        name: names::name(socket.task.cgroup, destination.address),
        role: CLIENT,
        transport,
    }
}

/// Fails the connect() with ECONNREFUSED: by saying so, or by sending it where the kernel will say so.
#[inline(always)]
fn refuse<const IPV6: bool>(raw: *mut bpf_sock_addr, socket: &Socket, destination: &Endpoint) -> i32 {
    if HAS_SET_RETVAL.load() == 0 {
        let ipv4 = destination.address.is_ipv4();
        if !listens(raw, ipv4, REFUSING_PORT) {
            redirect::<IPV6>(raw, ipv4, REFUSING_PORT);
            // Counted as failed when it has.
            return ALLOW;
        }
    } else {
        // SAFETY: a helper that takes an error number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    if let Some(stats) = counts::stats(socket.edge) {
        // SAFETY: a map value.
        unsafe { health::count_failure(stats, Failure::Refused) };
    }
    DENY
}

/// Points the socket at the agent's listener in its namespace, if that is alive.
#[inline(always)]
fn send_to_agent<const IPV6: bool>(
    raw: *mut bpf_sock_addr,
    socket: &Socket,
    destination: &Endpoint,
) -> Option<()> {
    // SAFETY: entries are replaced whole.
    let Some(listener) = (unsafe { LISTENERS.get(socket.netns) }) else {
        counts::count(Counter::EscapedNamespace);
        want_namespace(socket);
        return None;
    };
    let ipv4 = destination.address.is_ipv4();
    let port = if ipv4 { listener.port4 } else { listener.port6 };
    if port == 0 {
        counts::count(Counter::EscapedNamespace);
        return None;
    }
    // SAFETY: the context and its socket are valid while the program runs.
    let device = unsafe { (*(*raw).__bindgen_anon_1.sk).bound_dev_if };
    if (device != 0 && device != LOOPBACK_INTERFACE) || destination.address.is_ipv6_link_local() {
        counts::count(Counter::EscapedScope);
        return None;
    }
    if !listens(raw, ipv4, port) {
        counts::count(Counter::EscapedListener);
        return None;
    }
    redirect::<IPV6>(raw, ipv4, port);
    Some(())
}

/// Sends the connection to a port of the caller's own loopback interface.
#[inline(always)]
pub(super) fn redirect<const IPV6: bool>(raw: *mut bpf_sock_addr, ipv4: bool, port: u16) {
    // SAFETY: these context fields are writable in connect hooks.
    unsafe {
        (*raw).user_port = u32::from(port.to_be());
        if IPV6 {
            let last = if ipv4 { LOOPBACK_V4 } else { u32::from_be(1) };
            let third = if ipv4 { MAPPED_WORD } else { 0 };
            write_volatile(&raw mut (*raw).user_ip6[0], 0);
            write_volatile(&raw mut (*raw).user_ip6[1], 0);
            write_volatile(&raw mut (*raw).user_ip6[2], third);
            write_volatile(&raw mut (*raw).user_ip6[3], last);
        } else {
            (*raw).user_ip4 = LOOPBACK_V4;
        }
    }
}

/// Whether something listens on the agent's port in the caller's namespace. When the agent has died it does not, and
/// the connection goes straight.
#[inline(always)]
fn listens(raw: *mut bpf_sock_addr, ipv4: bool, port: u16) -> bool {
    // SAFETY: an all-zero tuple is valid.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if ipv4 {
        tuple.__bindgen_anon_1.ipv4.daddr = LOOPBACK_V4;
        tuple.__bindgen_anon_1.ipv4.dport = port.to_be();
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.daddr = [0, 0, 0, u32::from_be(1)];
        tuple.__bindgen_anon_1.ipv6.dport = port.to_be();
        36
    };
    // SAFETY: the tuple outlives the call; the reference is released below.
    unsafe {
        let sk = bpf_sk_lookup_tcp(
            raw.cast(),
            &raw mut tuple,
            size,
            i64::from(BPF_F_CURRENT_NETNS).cast_unsigned(),
            0,
        );
        if sk.is_null() {
            return false;
        }
        let listening = (*sk).state == TCP_LISTEN;
        bpf_sk_release(sk.cast());
        listening
    }
}

#[inline(always)]
pub(super) fn want_namespace(socket: &Socket) {
    let event = NamespaceWanted {
        netns: socket.netns,
        tgid: socket.task.tgid,
        kind: WANTED,
    };
    if EVENTS.output::<NamespaceWanted>(&event, 0).is_err() {
        counts::count(Counter::EventRingFull);
    }
}
