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
use spike_common::sample::{
    DATAGRAM, ENDS, FIRST, LARGE, MIDDLE, RESETS, SENT, SERVES, SMALL, SampleHeader, WANT_LITTLE, WANT_WHOLE,
};
use spike_common::socket::{ADOPTED, IN_KNOWN, OUT_KNOWN, SAMPLED, SERVER, Socket};

use crate::maps::{CONFIG, SAMPLES, WANTS};
use crate::support::counts;
use crate::support::headers::{FIN, RST, Segment};

/// Large segments of a new connection that are copied whole: at most 4 MiB.
const WHOLE_AT_FIRST: u32 = 64;
/// Pieces that a segment is copied in where the agent needs all of it: enough for the largest without BIG TCP (64 KiB).
const PIECES: u32 = 5;

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
    socket: &mut Socket,
    stats: *mut EdgeStats,
    segment: &Segment,
    egress: bool,
) {
    let whole = Piece::of(socket, segment, egress);
    let want = if whole.length > room(MIDDLE) {
        want(ctx, socket)
    } else {
        0
    };
    let copied = if whole.length <= room(SMALL) || want == WANT_LITTLE {
        copy_into::<SMALL>(ctx, socket, &whole)
    } else if whole.length <= room(MIDDLE) {
        copy_into::<MIDDLE>(ctx, socket, &whole)
    } else if whole.length <= room(LARGE) || want != WANT_WHOLE {
        copy_into::<LARGE>(ctx, socket, &whole)
    } else {
        copy_in_pieces(ctx, socket, whole)
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

/// Payload bytes that fit a record.
const fn room(record: usize) -> u32 {
    (record - size_of::<SampleHeader>()) as u32
}

/// What the agent wants of this connection's large segments; 0 for the usual. The first ones it gets whole, since it
/// cannot have said yet.
#[inline(always)]
fn want(ctx: &SkBuffContext, socket: &mut Socket) -> u32 {
    // SAFETY: the helper takes this context; the value is copied at once.
    match unsafe { WANTS.get(bpf_get_socket_cookie(ctx.skb.skb.cast())) } {
        Some(want) => *want,
        None if socket.large < WHOLE_AT_FIRST => {
            socket.large += 1;
            WANT_WHOLE
        }
        None => 0,
    }
}

/// A part of a segment's payload, told as if it was a segment.
struct Piece {
    /// Where it begins, in bytes from the IP header.
    start: u32,
    sequence: u32,
    length: u32,
    flags: u32,
}

impl Piece {
    /// All of the payload.
    #[inline(always)]
    fn of(socket: &Socket, segment: &Segment, egress: bool) -> Self {
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
        Self {
            start: segment.start,
            sequence: segment.sequence,
            length: segment.payload,
            flags,
        }
    }
}

#[inline(always)]
fn copy_in_pieces(ctx: &SkBuffContext, socket: &Socket, mut rest: Piece) -> bool {
    let at_end = rest.flags & (ENDS | RESETS);
    rest.flags &= !at_end;
    for _ in 0..PIECES {
        let length = rest.length;
        let is_last = length <= room(LARGE);
        if is_last {
            rest.flags |= at_end;
        } else {
            rest.length = room(LARGE);
        }
        if !copy_into::<LARGE>(ctx, socket, &rest) {
            return false;
        }
        if is_last {
            break;
        }
        rest.start += room(LARGE);
        rest.sequence = rest.sequence.wrapping_add(room(LARGE));
        rest.length = length - room(LARGE);
        rest.flags &= !FIRST;
    }
    true
}

#[inline(always)]
fn copy_into<const SIZE: usize>(ctx: &SkBuffContext, socket: &Socket, piece: &Piece) -> bool {
    // SAFETY: a map and a constant size; null is checked.
    let record = unsafe { bpf_ringbuf_reserve((&raw const SAMPLES).cast_mut().cast(), SIZE as u64, 0) };
    if record.is_null() {
        counts::count(Counter::SampleRingFull);
        return false;
    }
    let header = record.cast::<SampleHeader>();
    // The verifier must see both bounds on the very register that the helper gets.
    let less_one = core::hint::black_box(piece.length.wrapping_sub(1));
    let captured = if less_one < room(SIZE) {
        less_one + 1
    } else {
        room(SIZE)
    };
    // SAFETY: the record has SIZE bytes: the header, then at least `captured`; it is given back in either case.
    unsafe {
        let bytes = record.cast::<u8>().add(size_of::<SampleHeader>());
        let none = piece.length == 0;
        if !none && bpf_skb_load_bytes(ctx.skb.skb.cast(), piece.start, bytes.cast(), captured) != 0 {
            bpf_ringbuf_discard(record, u64::from(BPF_RB_NO_WAKEUP));
            counts::count(Counter::PacketUnread);
            return false;
        }
        *header = SampleHeader {
            cookie: bpf_get_socket_cookie(ctx.skb.skb.cast()),
            edge: socket.edge,
            at_ns: bpf_ktime_get_ns(),
            sequence: piece.sequence,
            length: piece.length,
            captured: if none { 0 } else { captured },
            flags: piece.flags,
            port: u32::from(socket.original.port),
            padding: 0,
        };
        bpf_ringbuf_submit(record, u64::from(BPF_RB_NO_WAKEUP));
    }
    true
}
