//! Sees every connect(), and sends those that a rule selects to the agent, or refuses them.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_ktime_get_ns, bpf_set_retval,
    bpf_sk_lookup_tcp, bpf_sk_release,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use spike_common::address::{Endpoint, MAPPED_WORD};
use spike_common::chance::chosen;
use spike_common::config::{Config, HEARTBEAT_LIMIT_NS};
use spike_common::counter::Counter;
use spike_common::edge::{CLIENT, Edge, Failure, TCP, UDP};
use spike_common::event::NamespaceWanted;
use spike_common::rule::{Attempt, CGROUP, MAX_MASKS, MAX_REFUSALS, REDIRECT, RuleValue, depth};
use spike_common::socket::{OWN, REDIRECTED, Socket};
use spike_common::task::executable_hash;

use super::destination::{destination4, destination6};
use super::{ALLOW, DENY, datagrams};
use crate::maps::{CONFIG, EVENTS, FAULTS, HEARTBEAT, LISTENERS, RULES_EXACT, RULES_PREFIX};
use crate::support::{counts, health, names, rules, storage, tasks};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const ECONNREFUSED: i32 = 111;
const LOOPBACK_V4: u32 = u32::from_be(0x7f00_0001);
const LOOPBACK_INTERFACE: u32 = 1;
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
    match observe(ctx, &destination) {
        Some((config, socket)) if config.intercept.count != 0 => {
            // Read anew: what the verifier learned of an IPv6 address until here would make it follow every way through
            // the rules once for each thing that it learned.
            // SAFETY: a map value.
            let anew = unsafe { read_volatile(&raw const socket.original) };
            let destination = if IPV6 { anew } else { destination };
            intercept::<IPV6>(ctx, config, socket, &destination)
        }
        _ => ALLOW,
    }
}

/// Notes who connects where. Returns none for what is not to be intercepted.
#[inline(always)]
fn observe(ctx: &SockAddrContext, destination: &Endpoint) -> Option<(&'static Config, &'static mut Socket)> {
    let config = CONFIG.get(0)?;
    let raw = ctx.sock_addr;
    // SAFETY: the context is valid while the program runs.
    let (kind, protocol) = unsafe { ((*raw).type_, (*raw).protocol) };
    if kind == SOCK_DGRAM && protocol == UDP {
        datagrams::watch(ctx, config, destination);
        return None;
    }
    if kind != SOCK_STREAM || protocol != TCP {
        return None;
    }
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

/// Finds the rules that the connection falls under and does what they say.
#[inline(always)]
fn intercept<const IPV6: bool>(
    ctx: &SockAddrContext,
    config: &'static Config,
    socket: &mut Socket,
    destination: &Endpoint,
) -> i32 {
    let attempt = Attempt {
        task: &socket.task,
        executable: executable_hash(&socket.task.executable),
        destination,
    };
    let mut redirect = false;
    for index in 0..MAX_MASKS {
        if index >= config.intercept.count as usize {
            break;
        }
        let rule = rules::find(
            &config.intercept,
            index,
            &attempt,
            &RULES_EXACT,
            &RULES_PREFIX,
            ancestor,
        );
        let Some(rule) = rule else { continue };
        redirect |= rule.flags & REDIRECT != 0;
        if refused(rule) {
            debug!(ctx, "refused pid {} port {}", socket.task.tgid, destination.port);
            return refuse::<IPV6>(ctx.sock_addr, socket, destination);
        }
    }
    if redirect && !live() {
        counts::count(Counter::EscapedHeartbeat);
    } else if redirect && send_to_agent::<IPV6>(ctx.sock_addr, socket, destination).is_some() {
        socket.flags |= REDIRECTED;
        debug!(
            ctx,
            "redirected pid {} port {}", socket.task.tgid, destination.port
        );
    }
    ALLOW
}

#[inline(always)]
fn ancestor(mask: u32) -> u64 {
    if mask & CGROUP == 0 {
        return 0;
    }
    // SAFETY: the helper checks the depth.
    unsafe { bpf_get_current_ancestor_cgroup_id(depth(mask) as i32) }
}

/// Whether one of the rule's kernel-decided faults hits.
#[inline(always)]
fn refused(rule: &RuleValue) -> bool {
    for slot in 0..MAX_REFUSALS {
        let id = rule.refusals[slot];
        if id == 0 {
            return false;
        }
        let Some(fault) = FAULTS.get_ptr_mut(id) else {
            continue;
        };
        // SAFETY: a map value; the numbers that change are only added to, atomically.
        unsafe {
            if bpf_ktime_get_ns() >= (*fault).deadline_ns {
                continue;
            }
            let n = (*fault).matched;
            counts::add(&raw mut (*fault).matched, 1);
            if chosen((*fault).seed, n, (*fault).threshold) {
                counts::add(&raw mut (*fault).affected, 1);
                return true;
            }
        }
    }
    false
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

/// Whether the agent ran lately: a stopped one must not hold new calls.
#[inline(always)]
pub(super) fn live() -> bool {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    HEARTBEAT
        .get(0)
        .is_some_and(|&beat| now < beat.saturating_add(HEARTBEAT_LIMIT_NS))
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
fn redirect<const IPV6: bool>(raw: *mut bpf_sock_addr, ipv4: bool, port: u16) {
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
fn want_namespace(socket: &Socket) {
    let event = NamespaceWanted {
        netns: socket.netns,
        tgid: socket.task.tgid,
        padding: 0,
    };
    if EVENTS.output::<NamespaceWanted>(&event, 0).is_err() {
        counts::count(Counter::EventRingFull);
    }
}
