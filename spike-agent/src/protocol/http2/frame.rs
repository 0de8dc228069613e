//! Frames of HTTP/2 (RFC 9113 sections 4 and 6).

use std::borrow::Cow;

use crate::protocol::{Side, Step, Verdict, stream::HEAD_LIMIT};

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
pub(super) const SIZE: usize = 9;
/// The bits of a stream's number.
pub(super) const STREAM: u32 = 0x7fff_ffff;
/// Longest frame that is taken for one where frames are searched: what a side sends unless the other one allows more.
const SEARCH_LIMIT: u32 = 16_384;
/// Enough to be sure in a search.
const FRAMES_IN_A_ROW: usize = 3;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A frame's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const DATA: Self = Self(0);
    pub(super) const HEADERS: Self = Self(1);
    const PRIORITY: Self = Self(2);
    pub(super) const RST_STREAM: Self = Self(3);
    const SETTINGS: Self = Self(4);
    pub(super) const PUSH_PROMISE: Self = Self(5);
    const PING: Self = Self(6);
    pub(super) const GOAWAY: Self = Self(7);
    const WINDOW_UPDATE: Self = Self(8);
    pub(super) const CONTINUATION: Self = Self(9);
}

/// A frame's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Of what follows the header, in bytes; below 2^24.
    pub(super) length: u32,
    pub(super) kind: Kind,
    flags: u8,
    pub(super) stream: u32,
}

/// A header block.
pub(super) enum Header<'a> {
    Whole {
        block: Cow<'a, [u8]>,
        /// Of the frames that it is in.
        size: usize,
    },
    TooLong,
    /// It isn't complete, or isn't one.
    Step(Step),
}

impl Frame {
    /// None if there are too few bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<SIZE>()?;
        let [a, b, c, kind, flags, stream @ ..] = *header;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind(kind),
            flags,
            stream: u32::from_be_bytes(stream) & STREAM,
        })
    }

    pub(super) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// The frame with its header, in bytes.
    fn size(&self) -> usize {
        SIZE + self.length as usize
    }

    /// Whether its length and stream are what its type has, sent by that side.
    pub(super) fn is_valid(&self, from: Side) -> bool {
        let on_stream = self.stream != 0;
        match self.kind {
            Kind::DATA | Kind::CONTINUATION => on_stream,
            // A server opens streams by a promise alone.
            Kind::HEADERS => on_stream && (from == Side::Server || self.stream % 2 == 1),
            Kind::PRIORITY => on_stream && self.length == 5,
            Kind::RST_STREAM => on_stream && self.length == 4,
            Kind::SETTINGS => !on_stream && self.length.is_multiple_of(6),
            Kind::PUSH_PROMISE => on_stream && self.length >= 4 && from == Side::Server,
            Kind::PING => !on_stream && self.length == 8,
            Kind::GOAWAY => !on_stream && self.length >= 8,
            Kind::WINDOW_UPDATE => self.length == 4,
            _ => true,
        }
    }

    /// Whether other bytes than a frame's are unlikely to look so.
    fn is_typical(&self, from: Side, stream: u32) -> bool {
        let flags = match self.kind {
            Kind::DATA => END_STREAM | PADDED,
            Kind::HEADERS => END_STREAM | END_HEADERS | PADDED | PRIORITY,
            Kind::SETTINGS | Kind::PING => END_STREAM,
            Kind::PUSH_PROMISE => END_HEADERS | PADDED,
            Kind::CONTINUATION => END_HEADERS,
            Kind::PRIORITY | Kind::RST_STREAM | Kind::GOAWAY | Kind::WINDOW_UPDATE => 0,
            _ => return false,
        };
        let acknowledged = self.kind != Kind::SETTINGS || !self.ends_stream() || self.length == 0;
        let reserved = stream != self.stream;
        self.is_valid(from)
            && self.length <= SEARCH_LIMIT
            && self.flags & !flags == 0
            && acknowledged
            && !reserved
    }

    /// The block that starts with this frame, at the start of `bytes`, and goes on in those behind it.
    pub(super) fn header<'a>(&self, bytes: &'a [u8]) -> Header<'a> {
        let size = self.size();
        if size > HEAD_LIMIT {
            return Header::TooLong;
        }
        let Some(payload) = bytes.get(SIZE..size) else {
            return Header::Step(Step::Need(size));
        };
        let Some(start) = self.fragment(payload) else {
            return Header::Step(Step::Lost);
        };
        if self.flags & END_HEADERS != 0 {
            let block = Cow::Borrowed(start);
            return Header::Whole { block, size };
        }
        self.continued(bytes, start, size)
    }

    fn continued<'a>(&self, bytes: &'a [u8], start: &[u8], mut size: usize) -> Header<'a> {
        let mut block = start.to_vec();
        loop {
            let rest = &bytes[size..];
            let Some(next) = Self::read(rest) else {
                return match size + SIZE > HEAD_LIMIT {
                    true => Header::TooLong,
                    false => Header::Step(Step::Need(size + SIZE)),
                };
            };
            if next.kind != Kind::CONTINUATION || next.stream != self.stream {
                return Header::Step(Step::Lost);
            }
            if size + next.size() > HEAD_LIMIT {
                return Header::TooLong;
            }
            let Some(fragment) = rest.get(SIZE..next.size()) else {
                return Header::Step(Step::Need(size + next.size()));
            };
            block.extend_from_slice(fragment);
            size += next.size();
            if next.flags & END_HEADERS != 0 {
                let block = Cow::Owned(block);
                return Header::Whole { block, size };
            }
        }
    }

    /// The part of a block in a payload, without what is before it and the padding.
    fn fragment<'a>(&self, mut payload: &'a [u8]) -> Option<&'a [u8]> {
        if self.flags & PADDED != 0 {
            let (padding, rest) = payload.split_first()?;
            payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        let before = match self.kind {
            Kind::PUSH_PROMISE => 4,
            _ if self.flags & PRIORITY != 0 => 5,
            _ => 0,
        };
        payload.get(before..)
    }
}

/// Whether a client's preface starts here, and is complete; none if it doesn't.
pub(super) fn preface(from: Side, bytes: &[u8]) -> Option<bool> {
    let start = &bytes[..bytes.len().min(PREFACE.len())];
    let starts = from == Side::Client && PREFACE.starts_with(start);
    starts.then_some(start.len() == PREFACE.len())
}

/// The number in the four bytes at `at`, if there are so many.
pub(super) fn code(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// The name of an error code (RFC 9113 section 7).
pub(super) fn error(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    // Unknown ones count as INTERNAL_ERROR there.
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.copied().unwrap_or("INTERNAL_ERROR")
}

/// Whether the bytes are frames, or a client's preface.
pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    match preface(from, bytes) {
        Some(true) => return Verdict::Yes,
        Some(false) => return Verdict::Maybe,
        None => {}
    }
    match typical(from, bytes) {
        None => Verdict::No,
        Some(0) => Verdict::Maybe,
        // `DATA` alone has little that is fixed.
        Some(1) if Frame::read(bytes).is_none_or(|frame| frame.kind == Kind::DATA) => Verdict::Maybe,
        Some(_) => Verdict::Yes,
    }
}

/// How many frames `bytes` start with, up to enough; none if something else is among them.
fn typical(from: Side, mut bytes: &[u8]) -> Option<usize> {
    for count in 0..FRAMES_IN_A_ROW {
        let Some(frame) = Frame::read(bytes) else {
            return (bytes.len() < 2 || bytes[0] == 0 && bytes[1] <= 0x40).then_some(count);
        };
        let stream = code(bytes, SIZE - 4).unwrap_or_default();
        if !frame.is_typical(from, stream) {
            return None;
        }
        let Some(rest) = bytes.get(frame.size()..).filter(|rest| !rest.is_empty()) else {
            return Some(count + 1);
        };
        bytes = rest;
    }
    Some(FRAMES_IN_A_ROW)
}

/// Where frames start: at once, as packets often start with one; where several follow each other; or where one ends
/// with the bytes.
pub(super) fn find(from: Side, bytes: &[u8]) -> Option<usize> {
    if detect(from, bytes) == Verdict::Yes {
        return Some(0);
    }
    (1..bytes.len()).find(|at| {
        let rest = &bytes[*at..];
        let ends =
            || Frame::read(rest).is_some_and(|frame| frame.kind != Kind::DATA && frame.size() == rest.len());
        typical(from, rest).is_some_and(|count| count > 1 || count == 1 && ends())
    })
}
