//! The start of a TCP segment's payload as it crosses the ring buffer, for protocol decoding: this header, then bytes.

use crate::layout;

/// `SampleHeader::flags`: the local end sent the segment; else it received it.
pub const SENT: u32 = 1;
/// `SampleHeader::flags`: the local end answers; else it asks.
pub const SERVES: u32 = 1 << 1;
/// `SampleHeader::flags`: the first payload of this direction since the connection began.
pub const FIRST: u32 = 1 << 2;
/// `SampleHeader::flags`: the segment has FIN.
pub const ENDS: u32 = 1 << 3;
/// `SampleHeader::flags`: the segment has RST.
pub const RESETS: u32 = 1 << 4;

/// `SampleHeader::flags`: not a segment of TCP but a datagram of UDP; it has no sequence number.
pub const DATAGRAM: u32 = 1 << 5;

/// Sizes of a record with its header; the smallest that holds a segment is taken, and of what the largest does not hold
/// the start.
pub const SMALL: usize = 512;
/// The next size.
pub const MIDDLE: usize = 4096;
/// The last size.
pub const LARGE: usize = 16_384;

/// How much of its large segments the agent wants of a connection, where the largest record is too small or too large:
/// all of them.
pub const WANT_WHOLE: u32 = 1;
/// The same: as little as may be, since it cannot be decoded.
pub const WANT_LITTLE: u32 = 2;

/// Goes ahead of a segment's bytes. The record is longer than header and bytes; what follows means nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleHeader {
    /// The socket's cookie: never used again.
    pub cookie: u64,
    /// The edge that the connection counts for.
    pub edge: u64,
    /// When the hook saw the segment (`CLOCK_MONOTONIC`, nanoseconds).
    pub at_ns: u64,
    /// The TCP sequence number of the first payload byte.
    pub sequence: u32,
    /// Payload bytes of the segment.
    pub length: u32,
    /// How many of them follow.
    pub captured: u32,
    /// A set of the flags above.
    pub flags: u32,
    /// The port that the connection was meant to go to, host order.
    pub port: u32,
    /// Written out.
    pub padding: u32,
}
layout!(SampleHeader, size = 48, align = 8);
