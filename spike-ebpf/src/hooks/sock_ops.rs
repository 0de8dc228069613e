//! Follows connections from SYN to end: who owns the flow, which edge it counts for, how it ended.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RETRANS_CB,
    BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock,
    bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use spike_common::address::{Address, Endpoint};
use spike_common::counter::Counter;
use spike_common::edge::{Edge, SERVER as SERVER_ROLE, TCP};
use spike_common::socket::{
    CALLEE, ENDED, Flow, FlowKey, HELD, LISTENER, OPENED, OWN, REDIRECTED, SERVER, ServiceKey, Socket,
};
use spike_common::task::Task;

use super::bind::{HAS_NETNS_COOKIE, binder_key};
use super::held;
use crate::maps::{BINDERS, CONFIG, FLOWS, REDIRECTS, SERVICES};
use crate::support::{counts, handshakes, health, storage};

const AF_INET: u32 = 2;
const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;
const TCP_CLOSE_WAIT: u32 = 8;

#[sock_ops]
fn spike_sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => _ = connecting(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => _ = connected(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => _ = accepted(&ctx),
        BPF_SOCK_OPS_RTO_CB => held::timer(&ctx),
        BPF_SOCK_OPS_STATE_CB => _ = state_changed(&ctx),
        BPF_SOCK_OPS_RETRANS_CB => _ = retransmitted(&ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB => _ = listening(&ctx),
        // For the operations that ask a question, -1 is "as you would".
        _ => ctx.set_reply(u32::MAX),
    }
    1
}

/// Before the SYN leaves: the local port is known, the owner's state is there.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) -> Option<()> {
    let socket = state(ctx)?;
    let key = FlowKey::new(socket.netns, local(ctx), remote(ctx));
    let flow = flow(ctx, socket);
    if FLOWS.insert(key, flow, 0).is_err() {
        counts::count(Counter::FlowsFull);
    }
    if socket.flags & REDIRECTED != 0 && REDIRECTS.insert(key, flow, 0).is_err() {
        counts::count(Counter::RedirectsFull);
    }
    let mut wanted = 0;
    if socket.edge != 0 {
        wanted |= BPF_SOCK_OPS_STATE_CB_FLAG;
    }
    if socket.flags & HELD != 0 {
        wanted |= BPF_SOCK_OPS_RTO_CB_FLAG;
    }
    call_back(ctx, wanted, 0);
    Some(())
}

#[inline(always)]
fn connected(ctx: &SockOpsContext) -> Option<()> {
    let socket = state(ctx)?;
    if socket.flags & HELD != 0 {
        call_back(ctx, 0, BPF_SOCK_OPS_RTO_CB_FLAG);
    }
    // The callee of a redirected connection is the agent, which is never drawn. What the agent opens for it is noted: its
    // callee is to count nothing either.
    if socket.flags & REDIRECTED == 0 {
        handshakes::offer(ctx, socket);
    }
    opened(ctx, socket)
}

/// Has the kernel call for more, and for less. What is asked for already may be another agent's wish.
#[inline(always)]
fn call_back(ctx: &SockOpsContext, more: u32, less: u32) {
    // SAFETY: a context field.
    let before = unsafe { (*ctx.ops).bpf_sock_ops_cb_flags };
    let wanted = (before | more) & !less;
    if wanted != before {
        _ = ctx.set_cb_flags(wanted as i32);
    }
}

/// A listener's child is established: its caller is on this host and already counted, or the edge starts here.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) -> Option<()> {
    let sk = sk(ctx)?;
    // SAFETY: not null.
    let socket = unsafe { storage::get_or_create(sk)? };
    if socket.flags & LISTENER == 0 {
        socket.netns = netns(ctx);
    }
    if socket.flags & OWN != 0 {
        return None;
    }
    socket.flags = SERVER;
    let (local, remote) = (local(ctx), remote(ctx));
    let service = ServiceKey::new(socket.netns, local);
    // SAFETY: compared and dropped at once.
    let known = unsafe { SERVICES.get(service) }.is_some_and(|task| task.tgid == socket.task.tgid);
    if !known && socket.task.tgid != 0 {
        _ = SERVICES.insert(service, socket.task, 0);
    }
    // SAFETY: one word is copied at once.
    let caller = unsafe { FLOWS.get(FlowKey::new(socket.netns, remote, local)) }.map(|flow| flow.edge);
    if let Some(edge) = caller.or_else(|| handshakes::take(ctx, &socket.task)) {
        socket.edge = edge;
        socket.flags = CALLEE;
        call_back(ctx, BPF_SOCK_OPS_RETRANS_CB_FLAG, 0);
        return None;
    }
    let edge = Edge {
        netns: if local.address.is_loopback() {
            socket.netns
        } else {
            0
        },
        // SAFETY: a helper without arguments.
        since_ns: unsafe { bpf_ktime_get_ns() },
        task: socket.task,
        destination: local,
        peer: Endpoint::new(remote.address, 0),
        name: 0,
        role: SERVER_ROLE,
        transport: TCP,
    };
    socket.edge = counts::edge(&edge);
    socket.original = local;
    if FLOWS
        .insert(FlowKey::new(socket.netns, local, remote), flow(ctx, socket), 0)
        .is_err()
    {
        counts::count(Counter::FlowsFull);
    }
    call_back(ctx, BPF_SOCK_OPS_STATE_CB_FLAG, 0);
    opened(ctx, socket)
}

#[inline(always)]
fn opened(ctx: &SockOpsContext, socket: &mut Socket) -> Option<()> {
    let stats = counts::stats(socket.edge)?;
    socket.flags |= OPENED;
    let sk = sk(ctx)?;
    // SAFETY: a map value; a full socket.
    unsafe {
        counts::add(&raw mut (*stats).opened, 1);
        health::look(sk, socket, stats);
    }
    Some(())
}

#[inline(always)]
fn state_changed(ctx: &SockOpsContext) -> Option<()> {
    if ctx.arg(1) != TCP_CLOSE {
        return None;
    }
    let before = ctx.arg(0);
    let socket = state(ctx)?;
    if socket.flags & ENDED != 0 {
        return None;
    }
    socket.flags |= ENDED;
    if socket.flags & REDIRECTED != 0 {
        _ = REDIRECTS.remove(FlowKey::new(socket.netns, local(ctx), remote(ctx)));
    }
    let stats = counts::stats(socket.edge)?;
    let sk = sk(ctx)?;
    // SAFETY: a map value; a full socket.
    unsafe {
        health::look(sk, socket, stats);
        if socket.flags & OPENED != 0 {
            counts::add(&raw mut (*stats).closed, 1);
            if before == TCP_ESTABLISHED || before == TCP_CLOSE_WAIT {
                counts::add(&raw mut (*stats).reset, 1);
            }
        } else if before == TCP_SYN_SENT {
            health::failed(sk, stats);
        }
    }
    Some(())
}

/// What a callee had to send again; its caller's socket cannot see that.
#[inline(always)]
fn retransmitted(ctx: &SockOpsContext) -> Option<()> {
    let stats = counts::stats(state(ctx)?.edge)?;
    // SAFETY: a map value. The second argument is the number of segments.
    unsafe { counts::add(&raw mut (*stats).retransmits, u64::from(ctx.arg(1))) };
    Some(())
}

/// The sockets that a listener will accept inherit this.
#[inline(always)]
fn listening(ctx: &SockOpsContext) -> Option<()> {
    let config = CONFIG.get(0)?;
    let sk = sk(ctx)?;
    // SAFETY: not null.
    let socket = unsafe { storage::get_or_create(sk)? };
    socket.flags = LISTENER;
    socket.edge = 0;
    socket.netns = netns(ctx);
    // SAFETY: entries are replaced whole.
    let binder = unsafe { BINDERS.get(binder_key(socket.netns, local(ctx))) }?;
    socket.netns = binder.netns;
    if binder.task.tgid == config.agent_tgid {
        socket.flags |= OWN;
        socket.task = Task::default();
    } else {
        socket.task = binder.task;
    }
    Some(())
}

#[inline(always)]
fn flow(ctx: &SockOpsContext, socket: &Socket) -> Flow {
    Flow {
        // SAFETY: the helper takes this context.
        cookie: unsafe { bpf_get_socket_cookie(ctx.ops.cast()) },
        edge: socket.edge,
        task: socket.task,
        original: socket.original,
        flags: socket.flags,
    }
}

#[inline(always)]
fn netns(ctx: &SockOpsContext) -> u64 {
    if HAS_NETNS_COOKIE.load() == 0 {
        return 0;
    }
    // SAFETY: the helper takes this context.
    unsafe { bpf_get_netns_cookie(ctx.ops.cast()) }
}

#[inline(always)]
fn state(ctx: &SockOpsContext) -> Option<&'static mut Socket> {
    let sk = sk(ctx)?;
    // SAFETY: not null.
    unsafe { storage::get(sk) }
}

#[inline(always)]
fn sk(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    // SAFETY: the context is valid.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    (!sk.is_null()).then_some(sk)
}

#[inline(always)]
fn local(ctx: &SockOpsContext) -> Endpoint {
    let ops = ctx.ops;
    // SAFETY: context fields, read one word at a time as the verifier demands.
    let address = unsafe {
        if (*ops).family == AF_INET {
            Address::from_ipv4_word((*ops).local_ip4)
        } else {
            words(&raw const (*ops).local_ip6)
        }
    };
    // SAFETY: a context field.
    Endpoint::new(address, unsafe { (*ops).local_port } as u16)
}

#[inline(always)]
fn remote(ctx: &SockOpsContext) -> Endpoint {
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: as in `local`.
    let address = unsafe {
        if (*ops).family == AF_INET {
            Address::from_ipv4_word((*ops).remote_ip4)
        } else {
            words(&raw const (*ops).remote_ip6)
        }
    };
    // SAFETY: a context field; the kernel gives the port in network order in a 32-bit word.
    Endpoint::new(address, u32::from_be(unsafe { (*ops).remote_port }) as u16)
}

/// Reads an address word by word: the verifier refuses the eight-byte loads that the compiler would make of it.
#[inline(always)]
unsafe fn words(address: *const [u32; 4]) -> Address {
    let word = address.cast::<u32>();
    // SAFETY: the caller gives a context field of four words.
    unsafe {
        Address([
            read_volatile(word),
            read_volatile(word.add(1)),
            read_volatile(word.add(2)),
            read_volatile(word.add(3)),
        ])
    }
}
