//! What a recording holds, as it is written and read.
//!
//! Times are nanoseconds since the recording's start. Positions count the bytes that one side of a connection sent, from 0,
//! as they are in the recording.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::Side;

/// What is known of a recording as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct About {
    /// When it began, in nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// When it ended, in nanoseconds since 1970; none while it runs, or after the agent was killed.
    #[serde(default)]
    pub ended_unix_ns: Option<u64>,
    /// The host's name.
    pub host: String,
    /// Version of the Spike that made it.
    pub spike: String,
    /// Which connections were meant, as the operator said it; or the name of the file that it was made from.
    pub selector: Value,
    /// The rules by which secrets were made unreadable; empty when none were.
    pub redaction: Vec<String>,
    /// Bytes of a message's body beyond which it was not kept.
    #[serde(default)]
    pub body_limit: Option<u64>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HowEnded {
    /// Both sides closed.
    Closed,
    /// It was broken, by a side or by a fault.
    Reset,
    /// It went on after the recording's end.
    Open,
}

/// A connection that begins.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct NewConnection {
    /// When it was opened.
    pub opened_ns: u64,
    /// `tcp` or `udp`.
    pub transport: String,
    /// Service of the caller; its address when that is not known.
    pub caller: String,
    /// Process id of the caller, 0 when not known.
    pub caller_pid: u32,
    /// Executable of the caller; empty when not known.
    pub caller_exe: String,
    /// Cgroup of the caller; empty when not known.
    pub caller_cgroup: String,
    /// Service of the callee; its name or address when that is not known.
    pub callee: String,
    /// Address and port of the caller.
    pub client: String,
    /// Address and port that the caller asked for.
    pub server: String,
    /// The name by which the caller found the address, if it is known.
    pub host: Option<String>,
}

/// A connection of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionRow {
    /// From 1.
    pub id: i64,
    /// As it began.
    pub opened: NewConnection,
    /// What was spoken, as [`ProtocolName::as_str`](crate::protocol::ProtocolName::as_str) has it; none when not decoded.
    pub protocol: Option<String>,
    /// When it ended, if it did.
    pub closed_ns: Option<u64>,
    /// How.
    pub ended: HowEnded,
    /// Bytes that each side sent, [`Side::Client`] first; also those that were not kept.
    pub sent: [u64; 2],
}

/// Bytes that one side sent at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of its first byte. Where a chunk does not begin at the end of the one before, bytes are missing.
    pub position: u64,
    /// When they passed.
    pub at_ns: u64,
    /// At least one.
    pub bytes: Vec<u8>,
}

/// A call that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCall {
    /// The connection.
    pub connection: i64,
    /// As [`ProtocolName::as_str`](crate::protocol::ProtocolName::as_str) has it.
    pub protocol: String,
    /// Who asked.
    pub from: Side,
    /// Method, verb or command.
    pub operation: String,
    /// Folded path, table, key pattern, topic; may be empty.
    pub target: String,
    /// The protocol's own word for how it went.
    pub status: Option<String>,
    /// Whether the server, or the connection, failed it.
    pub failed: bool,
    /// Whether it came to its end as the protocol has it.
    pub complete: bool,
    /// First byte of the request.
    pub started_ns: u64,
    /// Last byte of the request.
    pub sent_ns: Option<u64>,
    /// First byte of the response.
    pub first_byte_ns: Option<u64>,
    /// Last byte of the call.
    pub ended_ns: u64,
    /// Where the request is in what [`from`](Self::from) sent: from its first to its last byte. In protocols with several
    /// messages under way at a time (HTTP/2), parts of others may lie in between.
    pub request_at: Range<u64>,
    /// Where the response is in what the other side sent; none without a response.
    pub response_at: Option<Range<u64>>,
    /// The stream or the id of the call in such protocols; none where responses come in the order of the requests.
    pub stream: Option<u64>,
    /// What the request says, decoded: see `docs/recording.md` for each protocol. `null` when not decoded so far.
    pub request: Value,
    /// What the response says, decoded.
    pub response: Value,
    /// What was made unreadable in it: such as `header authorization`, `json password`.
    pub redactions: Vec<String>,
}

/// A call of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRow {
    /// From 1, in the order in which calls ended.
    pub id: i64,
    /// From 0, in the order in which the connection's requests began.
    pub sequence: u64,
    /// All else.
    pub call: NewCall,
}

/// An answer of the DNS that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct NameRow {
    /// The name that was asked for, in small letters and without the last dot.
    pub name: String,
    /// Type of the record: `A` or `AAAA`.
    pub kind: String,
    /// The address.
    pub answer: String,
    /// When it was seen first.
    pub at_ns: u64,
}

/// Something that was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Loss {
    /// When it was seen.
    pub at_ns: u64,
    /// The connection that it was of.
    pub connection: Option<i64>,
    /// What is missing and why, such as `the writer was behind`.
    pub why: String,
    /// How many times that happened.
    pub count: u64,
    /// Bytes that are missing.
    pub bytes: u64,
}
