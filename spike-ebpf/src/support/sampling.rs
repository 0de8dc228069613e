//! Copies the starts of payloads to the agent, of the connections whose turn it is.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit,
    bpf_skb_load_bytes,
};
use aya_ebpf::programs::SkBuffContext;
use spike_common::chance::roll;
use spike_common::counter::Counter;
use spike_common::edge::EdgeStats;
use spike_common::sample::{DATAGRAM, ENDS, FIRST, LARGE, MIDDLE, RESETS, SENT, SERVES, SMALL, SampleHeader};
use spike_common::socket::{ADOPTED, IN_KNOWN, OUT_KNOWN, SAMPLED, SERVER, Socket};

use crate::maps::{CONFIG, SAMPLES};
use crate::support::counts;
use crate::support::headers::{FIN, RST, Segment};

/// Whether this connection is sampled now: by chance of its cookie, so that it stays so for a whole turn.
#[inline(always)]
pub(crate) fn sampled(ctx: &SkBuffContext, socket: &mut Socket) -> bool {
    let Some(config) = CONFIG.get(0) else {
        return false;
    };
    if socket.sample_turn != config.sample_turn {
        socket.sample_turn = config.sample_turn;
        // SAFETY: the helper takes this context.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
        if config.sample_below == u32::MAX
            || roll(u64::from(config.sample_seed), cookie) < config.sample_below
        {
            socket.flags |= SAMPLED;
        } else {
            socket.flags &= !SAMPLED;
        }
    }
    socket.flags & SAMPLED != 0
}

/// Copies what fits of the segment, and counts whether there was room.
#[inline(always)]
pub(crate) fn copy(
    ctx: &SkBuffContext,
    socket: &Socket,
    stats: *mut EdgeStats,
    segment: &Segment,
    egress: bool,
) {
    const HEADER: u32 = size_of::<SampleHeader>() as u32;
    let copied = if segment.payload <= SMALL as u32 - HEADER {
        copy_into::<SMALL>(ctx, socket, segment, egress)
    } else if segment.payload <= MIDDLE as u32 - HEADER {
        copy_into::<MIDDLE>(ctx, socket, segment, egress)
    } else {
        copy_into::<LARGE>(ctx, socket, segment, egress)
    };
    // SAFETY: `stats` is a map value.
    unsafe {
        if copied {
            counts::add(&raw mut (*stats).sampled, 1);
        } else {
            counts::add(&raw mut (*stats).unsampled, 1);
        }
    }
}

#[inline(always)]
fn copy_into<const SIZE: usize>(
    ctx: &SkBuffContext,
    socket: &Socket,
    segment: &Segment,
    egress: bool,
) -> bool {
    const HEADER: usize = size_of::<SampleHeader>();
    // SAFETY: a map and a constant size; null is checked.
    let record = unsafe { bpf_ringbuf_reserve((&raw const SAMPLES).cast_mut().cast(), SIZE as u64, 0) };
    if record.is_null() {
        counts::count(Counter::SampleRingFull);
        return false;
    }
    let known = if egress { OUT_KNOWN } else { IN_KNOWN };
    let mut flags = 0;
    for (flag, is_set) in [
        (SENT, egress),
        (SERVES, socket.flags & SERVER != 0),
        (FIRST, socket.flags & (known | ADOPTED) == 0),
        (ENDS, segment.flags & FIN != 0),
        (RESETS, segment.flags & RST != 0),
        (DATAGRAM, segment.is_datagram),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    let header = record.cast::<SampleHeader>();
    // The verifier must see both bounds on the very register that the helper gets.
    let less_one = core::hint::black_box(segment.payload.wrapping_sub(1));
    let captured = if less_one < (SIZE - HEADER) as u32 {
        less_one + 1
    } else {
        (SIZE - HEADER) as u32
    };
    // SAFETY: the record has SIZE bytes: the header, then at least `captured`; it is given back in either case.
    unsafe {
        let bytes = record.cast::<u8>().add(HEADER);
        let none = segment.payload == 0;
        if !none && bpf_skb_load_bytes(ctx.skb.skb.cast(), segment.start, bytes.cast(), captured) != 0 {
            bpf_ringbuf_discard(record, u64::from(BPF_RB_NO_WAKEUP));
            counts::count(Counter::PacketUnread);
            return false;
        }
        *header = SampleHeader {
            cookie: bpf_get_socket_cookie(ctx.skb.skb.cast()),
            edge: socket.edge,
            at_ns: bpf_ktime_get_ns(),
            sequence: segment.sequence,
            length: segment.payload,
            captured: if none { 0 } else { captured },
            flags,
            port: u32::from(socket.original.port),
            padding: 0,
        };
        bpf_ringbuf_submit(record, u64::from(BPF_RB_NO_WAKEUP));
    }
    true
}
