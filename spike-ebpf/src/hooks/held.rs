//! Holds the SYN of a redirected connection back until the agent has heard from the server, so that a caller is never told
//! that it is connected when it is not. The agent then sends the same SYN by a raw socket, or what fails the attempt.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_setsockopt, bpf_sk_fullsock, bpf_skb_load_bytes,
};
use aya_ebpf::programs::{SkBuffContext, SockOpsContext};
use spike_common::counter::Counter;
use spike_common::held::{HeldSyn, MAX_SYN, PASS};
use spike_common::socket::{HELD, Socket, TOLD};

use super::select::live;
use super::{ALLOW, DENY};
use crate::maps::{RELEASED, SYNS};
use crate::support::headers::Ends;
use crate::support::{counts, storage};

const IPPROTO_TCP: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;

/// The verdict on a SYN that leaves.
#[inline(always)]
pub(super) fn syn(ctx: &SkBuffContext) -> i32 {
    // SAFETY: the context is valid; both pointers are checked for null before use.
    let socket = unsafe {
        let sk: *mut bpf_sock = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return ALLOW;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return ALLOW;
        }
        storage::get(sk)
    };
    match socket {
        Some(socket) if socket.flags & HELD != 0 => held(ctx, socket),
        _ => ALLOW,
    }
}

#[inline(always)]
fn held(ctx: &SkBuffContext, socket: &mut Socket) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the helper takes this context.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    // SAFETY: one word is copied at once.
    if let Some(released) = unsafe { RELEASED.get(cookie) } {
        return if *released == PASS { ALLOW } else { DENY };
    }
    if socket.flags & TOLD != 0 {
        return DENY;
    }
    // SAFETY: a context field.
    let length = unsafe { (*skb).len };
    // Both bounds on the very register that the helper gets; see the tap.
    let less_one = core::hint::black_box(length.wrapping_sub(1));
    if less_one >= MAX_SYN as u32 {
        return ALLOW;
    }
    let length = less_one + 1;
    let Some(ends) = Ends::read(skb, 0) else {
        return ALLOW;
    };
    // TCP sends the SYN again in a second: then there may be room.
    let Some(mut entry) = SYNS.reserve::<HeldSyn>(0) else {
        counts::count(Counter::EventRingFull);
        return DENY;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved for this type; every field is written, of `bytes` as much as `length` says.
    let read = unsafe {
        (*event).cookie = cookie;
        (*event).netns = socket.netns;
        (*event).client = ends.source;
        (*event).listener = ends.destination;
        (*event).length = length;
        (*event).padding = 0;
        bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*event).bytes).cast(), length)
    };
    if read != 0 {
        entry.discard(0);
        return ALLOW;
    }
    entry.submit(0);
    socket.flags |= TOLD;
    DENY
}

/// TCP is about to send a held SYN again: lets the attempt time out when the agent said so.
#[inline(always)]
pub(super) fn timer(ctx: &SockOpsContext) {
    // SAFETY: the helper takes this context; one word is copied at once.
    let released = unsafe { RELEASED.get(bpf_get_socket_cookie(ctx.ops.cast())) };
    let mut timeout = match released {
        Some(&milliseconds) => milliseconds,
        None if live() => return,
        // Nobody will let it go on; the next try goes straight.
        None => 1,
    };
    if timeout == PASS {
        return;
    }
    // SAFETY: the helper reads four bytes of a local.
    unsafe {
        bpf_setsockopt(
            ctx.ops.cast(),
            IPPROTO_TCP,
            TCP_USER_TIMEOUT,
            (&raw mut timeout).cast(),
            4,
        )
    };
}
