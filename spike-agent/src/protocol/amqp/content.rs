//! Contents: a header and frames of a body, for each channel.

use super::{Id, Messages, Request};
use crate::protocol::Trace;

/// Channels of a side whose contents are followed.
const OPEN_LIMIT: usize = 256;
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;

/// What a channel is in the middle of.
pub(super) struct Content {
    channel: u16,
    call: u64,
    of_response: bool,
    /// Bytes of the body, once the header has said it.
    left: Option<u64>,
}

#[derive(Default)]
pub(super) struct Contents(Vec<Content>);

impl Content {
    pub(super) fn of_request(channel: u16, call: u64) -> Self {
        Self {
            channel,
            call,
            of_response: false,
            left: None,
        }
    }

    pub(super) fn of_response(channel: u16, call: u64) -> Self {
        Self {
            of_response: true,
            ..Self::of_request(channel, call)
        }
    }
}

impl Contents {
    pub(super) fn begin(&mut self, content: Content) {
        self.0.retain(|open| open.channel != content.channel);
        if self.0.len() >= OPEN_LIMIT {
            self.0.remove(0);
        }
        self.0.push(content);
    }

    pub(super) fn header(&mut self, channel: u16, payload: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let size = u64::from_be_bytes(*payload.get(4..)?.first_chunk()?);
        let Some(place) = self.place(channel) else {
            return Some(());
        };
        let open = &mut self.0[place];
        if open.left.is_some() {
            return None;
        }
        open.left = Some(size);
        if open.of_response {
            messages.response(Id(open.call));
        } else {
            let request = Request {
                trace: payload.get(12..).and_then(trace),
                ..Request::default()
            };
            messages.describe(Id(open.call), request);
        }
        self.end_if_done(place, messages);
        Some(())
    }

    pub(super) fn body(&mut self, channel: u16, size: u64, messages: &mut Messages<'_>) {
        let Some(place) = self.place(channel) else {
            return;
        };
        let open = &mut self.0[place];
        if open.of_response {
            messages.response(Id(open.call));
        } else {
            messages.describe(Id(open.call), Request::default());
        }
        open.left = Some(open.left.unwrap_or(0).saturating_sub(size));
        self.end_if_done(place, messages);
    }

    fn place(&self, channel: u16) -> Option<usize> {
        self.0.iter().position(|open| open.channel == channel)
    }

    fn end_if_done(&mut self, place: usize, messages: &mut Messages<'_>) {
        if self.0[place].left != Some(0) {
            return;
        }
        let open = self.0.remove(place);
        if open.of_response {
            messages.response_end(Id(open.call));
        } else {
            messages.request_end(Id(open.call));
        }
    }
}

/// The trace among a message's properties.
fn trace(properties: &[u8]) -> Option<Trace> {
    let flags = u16::from_be_bytes(*properties.first_chunk()?);
    let mut rest = &properties[2..];
    for flag in [CONTENT_TYPE, CONTENT_ENCODING] {
        if flags & flag != 0 {
            rest = rest.get(1 + usize::from(*rest.first()?)..)?;
        }
    }
    if flags & HEADERS == 0 {
        return None;
    }
    let (mut table, _) = sized(rest)?;
    while let Some((size, rest)) = table.split_first() {
        let (key, rest) = rest.split_at_checked(usize::from(*size))?;
        let (kind, value) = rest.split_first()?;
        if key.eq_ignore_ascii_case(b"traceparent") && matches!(kind, b'S' | b'x') {
            return Trace::parse(sized(value)?.0);
        }
        let size = match kind {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'S' | b'x' | b'A' | b'F' => {
                table = sized(value)?.1;
                continue;
            }
            _ => return None,
        };
        table = value.get(size..)?;
    }
    None
}

/// Bytes with their size before them, and what is behind them.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let size = u32::from_be_bytes(*bytes.first_chunk()?);
    bytes[4..].split_at_checked(usize::try_from(size).ok()?)
}
