//! Joins the two ends of a connection whose addresses are translated on the way, by what translation leaves alone.
//!
//! A caller is told that it is connected before it sends the packet that tells the callee, so the caller's note is there
//! in time. It needs no look into the kernel's table of connections, and works with any translator.

use aya_ebpf::bindings::bpf_sock_ops;
use aya_ebpf::programs::SockOpsContext;
use spike_common::socket::{Handshake, HandshakeKey, ServiceKey, Socket};
use spike_common::task::Task;

use crate::maps::{HANDSHAKES, SERVICES};

/// At the caller: what a callee on this host may look for.
#[inline(always)]
pub(crate) fn offer(ctx: &SockOpsContext, socket: &Socket) {
    let (own, other) = sequences(ctx.ops);
    let key = HandshakeKey {
        caller: own,
        callee: other,
    };
    let handshake = Handshake {
        edge: socket.edge,
        netns: socket.netns,
        original: socket.original,
        padding: 0,
    };
    // Without room a translated connection has an edge at each end.
    _ = HANDSHAKES.insert(key, handshake, 0);
}

/// At the callee: the edge of its caller, when that is on this host. The address that the caller asked for is then
/// known to be `task`'s.
#[inline(always)]
pub(crate) fn take(ctx: &SockOpsContext, task: &Task) -> Option<u64> {
    let (own, other) = sequences(ctx.ops);
    let key = HandshakeKey {
        caller: other,
        callee: own,
    };
    // SAFETY: copied at once.
    let handshake = unsafe { HANDSHAKES.get(key) }.copied()?;
    _ = HANDSHAKES.remove(key);
    if task.tgid != 0 {
        _ = SERVICES.insert(ServiceKey::new(handshake.netns, handshake.original), task, 0);
    }
    Some(handshake.edge)
}

/// The number of the next byte that this end sends, and of the next that it expects.
#[inline(always)]
fn sequences(ops: *mut bpf_sock_ops) -> (u32, u32) {
    // SAFETY: context fields of a full socket, which the hooks of established connections have.
    unsafe { ((*ops).snd_nxt, (*ops).rcv_nxt) }
}
