//! Turns packets of watched connections into bytes, calls and latencies, in the kernel, with no event for any of them.

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_sk_fullsock};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use spike_common::edge::EdgeStats;
use spike_common::histogram::{BUCKETS, bucket};
use spike_common::socket::{
    ADOPTED, ANSWERS, ASKED, BOUND, CALLEE, DATAGRAMS, DATAGRAMS_REDIRECTED, ENDED, IN_KNOWN, OUT_KNOWN,
    SERVER, Socket,
};

use super::{ALLOW, held, redirected};
use crate::support::headers::{ACK, FIN, RST, SYN, Segment};
use crate::support::{counts, health, names, sampling, storage};

/// A jump in sequence numbers beyond the largest window (RFC 7323: 2^30) is not a gap but a misread.
const LARGEST_WINDOW: u32 = 1 << 30;

/// Segments between two looks at a connection's round-trip time.
const LOOK_EVERY: u32 = 16;

#[cgroup_skb(egress)]
fn spike_egress(ctx: SkBuffContext) -> i32 {
    let Some(segment) = Segment::read(&ctx) else {
        return ALLOW;
    };
    if segment.flags & (SYN | ACK) == SYN {
        return held::syn(&ctx);
    }
    _ = traffic(&ctx, &segment, true);
    ALLOW
}

#[cgroup_skb(ingress)]
fn spike_ingress(ctx: SkBuffContext) -> i32 {
    if let Some(segment) = Segment::read(&ctx) {
        _ = traffic(&ctx, &segment, false);
    }
    ALLOW
}

#[inline(always)]
fn traffic(ctx: &SkBuffContext, segment: &Segment, egress: bool) -> Option<()> {
    let ends = segment.flags & (FIN | RST) != 0;
    if segment.payload == 0 && !ends {
        return None;
    }
    // SAFETY: the context is valid; both pointers are checked for null before use.
    let (sk, socket) = unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return None;
        }
        (sk, storage::get(sk)?)
    };
    if socket.flags & CALLEE != 0 {
        return None;
    }
    if segment.is_datagram {
        if egress && socket.flags & DATAGRAMS_REDIRECTED != 0 {
            // SAFETY: a full socket, not null.
            _ = unsafe { redirected::note(ctx, sk, socket) };
        } else if !egress && socket.flags & (BOUND | DATAGRAMS) == BOUND {
            socket.flags |= ANSWERS;
        }
    }
    let stats = counts::stats(socket.edge)?;
    if segment.is_datagram {
        return datagram(ctx, socket, stats, segment, egress);
    }
    if sampling::sampled(ctx, socket) {
        sampling::copy(ctx, socket, stats, segment, egress);
    }
    if segment.payload != 0 {
        let fresh = advance(socket, segment, egress);
        if fresh != 0 {
            record(socket, stats, egress, fresh);
        } else if !egress {
            // SAFETY: a map value.
            unsafe { counts::add(&raw mut (*stats).retransmits, 1) };
        }
        socket.segments = socket.segments.wrapping_add(1);
        if socket.segments % LOOK_EVERY == 1 || fresh == 0 {
            // SAFETY: a full socket, not null, and a map value.
            unsafe { health::look(sk, socket, stats) };
        }
    }
    if ends && socket.flags & (ADOPTED | ENDED) == ADOPTED {
        socket.flags |= ENDED;
        // SAFETY: a map value.
        unsafe {
            counts::add(&raw mut (*stats).closed, 1);
            if segment.flags & RST != 0 {
                counts::add(&raw mut (*stats).reset, 1);
            }
        }
    }
    Some(())
}

/// Datagrams are counted; those of DNS are looked into, and decoded.
#[inline(always)]
fn datagram(
    ctx: &SkBuffContext,
    socket: &mut Socket,
    stats: *mut EdgeStats,
    datagram: &Segment,
    egress: bool,
) -> Option<()> {
    record(socket, stats, egress, datagram.payload);
    if socket.original.port == names::PORT {
        if !egress {
            _ = names::learn(ctx.skb.skb, datagram.start, socket.task.cgroup);
        }
        // The agent needs each answer for its names.
        if sampling::sampled(ctx, socket) || !egress {
            sampling::copy(ctx, socket, stats, datagram, egress);
        }
    }
    Some(())
}

/// How many of the segment's bytes are new, so that nothing is counted twice.
#[inline(always)]
fn advance(socket: &mut Socket, segment: &Segment, egress: bool) -> u32 {
    let next = segment.sequence.wrapping_add(segment.payload);
    let known = if egress { OUT_KNOWN } else { IN_KNOWN };
    let last = if egress {
        &mut socket.out_next
    } else {
        &mut socket.in_next
    };
    let fresh = if socket.flags & known == 0 {
        segment.payload
    } else {
        next.wrapping_sub(*last)
    };
    if fresh as i32 <= 0 {
        return 0;
    }
    *last = next;
    socket.flags |= known;
    if fresh > LARGEST_WINDOW {
        segment.payload
    } else {
        fresh
    }
}

/// Adds new bytes, and a call when they are the first of a response.
#[inline(always)]
fn record(socket: &mut Socket, stats: *mut EdgeStats, egress: bool, fresh: u32) {
    let asks = egress != (socket.flags & SERVER != 0);
    // SAFETY: `stats` is a map value.
    unsafe {
        if asks {
            counts::add(&raw mut (*stats).bytes_out, u64::from(fresh));
            socket.asked_ns = bpf_ktime_get_ns();
            socket.flags |= ASKED;
            return;
        }
        counts::add(&raw mut (*stats).bytes_in, u64::from(fresh));
        if socket.flags & ASKED == 0 {
            return;
        }
        socket.flags &= !ASKED;
        let latency = bpf_ktime_get_ns().wrapping_sub(socket.asked_ns);
        counts::add(&raw mut (*stats).calls, 1);
        counts::add(&raw mut (*stats).latency_sum, latency);
        let index = core::hint::black_box(bucket(latency)) as usize;
        if index < BUCKETS {
            counts::add((&raw mut (*stats).latency).cast::<u64>().add(index), 1);
        }
    }
}
