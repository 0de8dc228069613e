//! What is told of a call.

use std::ops::Range;

use super::{ProtocolName, Side, Trace};

/// Bounds what a peer can make a call cost: bytes of each of its strings.
const STRING_LIMIT: usize = 256;
/// Details of a call.
const DETAILS_LIMIT: usize = 8;

/// One request and its response. Times are nanoseconds of `CLOCK_MONOTONIC`, sizes bytes on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it is spoken in.
    pub protocol: ProtocolName,
    /// Who asked.
    pub from: Side,
    /// Method, verb or command: `GET`, `SELECT`, `HGET`.
    pub operation: String,
    /// Folded path, table, key pattern, topic; may be empty.
    pub target: String,
    /// The protocol's own word for how it went.
    pub status: Option<String>,
    /// Whether the server, or the connection, failed it.
    pub failed: bool,
    /// First byte of the request.
    pub started_ns: u64,
    /// Last byte of the request, if it was seen.
    pub sent_ns: Option<u64>,
    /// First byte of the response, if there was one.
    pub first_byte_ns: Option<u64>,
    /// Last byte of the call, or the end of the connection.
    pub ended_ns: u64,
    /// Head and body.
    pub request_bytes: u64,
    /// Head and body.
    pub response_bytes: u64,
    /// Whether it came to its end as the protocol has it.
    pub complete: bool,
    /// The trace that the request belongs to.
    pub trace: Option<Trace>,
    /// A few more facts.
    pub details: Details,
    /// Where its bytes are.
    pub place: Place,
}

/// Where a call is in the streams of its connection, counted from the first byte of each side.
///
/// A range goes from a message's first byte to its last; where several are under way at a time, parts of others may lie
/// in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// In the stream of who asked.
    pub request: Range<u64>,
    /// In the other one, if there was a response.
    pub response: Option<Range<u64>>,
    /// By what the response found its request; none where that was the order.
    pub id: Option<u64>,
}

/// A few names and values, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details(Vec<(&'static str, String)>);

impl Details {
    /// Adds a fact, or replaces it; without effect when there are eight others.
    pub fn set(&mut self, name: &'static str, value: String) {
        let value = bounded(value);
        if let Some(entry) = self.0.iter_mut().find(|(known, _)| *known == name) {
            entry.1 = value;
        } else if self.0.len() < DETAILS_LIMIT {
            self.0.push((name, value));
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let entry = self.0.iter().find(|(known, _)| *known == name);
        entry.map(|(_, value)| value.as_str())
    }

    /// All of them, in the order in which they were learnt.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// At most 256 bytes, cut at a character, with an ellipsis where something is missing.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > STRING_LIMIT {
        text.truncate(text.floor_char_boundary(STRING_LIMIT - '…'.len_utf8()));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}
