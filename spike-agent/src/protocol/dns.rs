//! DNS over TCP (RFC 1035 section 4.2.2, RFC 7766), and its messages by themselves, as they are in datagrams.
//!
//! Of a zone transfer, which has many messages, only the first one is told.

use hickory_proto::{
    op::{Header, MessageType, OpCode, Query},
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::{Key, Kind, Messages, Protocol, ProtocolName, Request, Side, Step, Verdict, fold};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Dns,
    ports: &[53, 5353],
    detect,
    start: || Box::new(Dns),
};

/// Bytes of a message's length.
const HEAD: usize = 2;
/// Bytes of a message that are read: its header and its first question, which is at most 259 bytes long.
const READ_LIMIT: usize = 512;
/// Least length of a message.
const HEADER: usize = 12;

/// What a message says of its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// By this a response finds its query; chosen by who asks.
    pub id: u16,
    /// The type that is asked for, such as `AAAA`, or what else is to be done, such as `NOTIFY`.
    pub operation: String,
    /// The name that is asked for, in lower case and without its last dot, with `{id}` for what looks like a value.
    pub target: String,
    /// Of a response, its code, such as `NXDOMAIN`; without the extension that EDNS has for it.
    pub status: Option<String>,
    /// Whether the server failed or refused to answer; that there is no such name is an answer.
    pub failed: bool,
}

/// Reads a message from its start; none if it isn't one, not one that `from` sends, or asks for nothing or more than one
/// name.
///
/// It is enough to have its first 512 bytes.
pub fn message(from: Side, bytes: &[u8]) -> Option<Message> {
    let mut decoder = BinDecoder::new(&bytes[..bytes.len().min(READ_LIMIT)]);
    let header = Header::read(&mut decoder).ok()?;
    let response = header.message_type == MessageType::Response;
    if header.counts.queries != 1 || response != (from == Side::Server) {
        return None;
    }
    let question = Query::read(&mut decoder).ok()?;
    let operation = match header.op_code {
        OpCode::Query => question.query_type.to_string(),
        OpCode::Status | OpCode::Notify | OpCode::Update => header.op_code.to_string(),
        OpCode::Unknown(_) => return None,
    };
    let code = response.then(|| code(header.response_code.low()));
    Some(Message {
        id: header.id,
        operation,
        target: folded(&question.name.to_ascii()),
        failed: code.is_some_and(|code| matches!(code, "SERVFAIL" | "NOTIMP" | "REFUSED")),
        status: code.map(str::to_owned),
    })
}

/// The name of a response's code (<https://www.iana.org/assignments/dns-parameters>), of four bits.
fn code(code: u8) -> &'static str {
    const NAMES: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("RESERVED")
}

/// A name with `{id}` in place of labels that look like values, once for those that follow each other.
fn folded(name: &str) -> String {
    let mut labels = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let label = if fold::is_value(label) || is_reverse(name, label) {
            "{id}".to_owned()
        } else {
            label.to_ascii_lowercase()
        };
        if label != "{id}" || labels.last() != Some(&label) {
            labels.push(label);
        }
    }
    labels.join(".")
}

/// Whether a label is a digit of an address whose name is asked for.
fn is_reverse(name: &str, label: &str) -> bool {
    let name = name.trim_end_matches('.').as_bytes();
    let zone = name
        .last_chunk()
        .is_some_and(|zone: &[u8; 9]| zone.eq_ignore_ascii_case(b".ip6.arpa"));
    zone && label.len() == 1
}

struct Dns;

impl Protocol for Dns {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let length = match framed(bytes) {
            Ok(length) => length,
            Err(step) => return step,
        };
        let content = &bytes[HEAD..bytes.len().min(HEAD + length.min(READ_LIMIT))];
        if length < HEADER {
            return Step::Lost;
        }
        if let Some(message) = message(from, content) {
            let key = Key::Id(u64::from(message.id));
            match message.status {
                None => messages.whole_request(key, Request::new(message.operation, message.target)),
                Some(status) => {
                    messages.response(key);
                    messages.status(key, status, message.failed);
                    messages.response_end(key);
                }
            }
        } else if !is_whole_header(content) {
            return Step::Lost;
        }
        let skip = length as u64;
        Step::Took { bytes: HEAD, skip }
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| detect(from, &bytes[*at..]) == Verdict::Yes)
    }
}

/// The length of the message that starts here, as soon as there is enough of it.
fn framed(bytes: &[u8]) -> Result<usize, Step> {
    let length = bytes.first_chunk().ok_or(Step::Need(HEAD))?;
    let length = usize::from(u16::from_be_bytes(*length));
    let need = HEAD + length.min(READ_LIMIT);
    if bytes.len() < need {
        return Err(Step::Need(need));
    }
    Ok(length)
}

/// Whether a message of which nothing can be told is one all the same: an error about one that couldn't be read has no
/// question, and so have messages of DNS Stateful Operations (RFC 8490).
fn is_whole_header(content: &[u8]) -> bool {
    let mut decoder = BinDecoder::new(content);
    Header::read(&mut decoder).is_ok_and(|header| header.counts.queries == 0)
}

fn detect(from: Side, bytes: &[u8]) -> Verdict {
    // What is the same in all: `QR` by the side, an opcode of 0, 4 or 5, and one question.
    let response = if from == Side::Server { 0x80 } else { 0 };
    let fits = |at: usize, fits: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|b| fits(*b));
    let header = fits(4, &|b| b & 0x80 == response && matches!(b >> 3 & 0xf, 0 | 4 | 5))
        && fits(5, &|b| b & 0x40 == 0)
        && fits(6, &|b| b == 0)
        && fits(7, &|b| b == 1);
    let length = bytes
        .first_chunk()
        .map(|length| usize::from(u16::from_be_bytes(*length)));
    if !header || length.is_some_and(|length| length < HEADER + 5) {
        return Verdict::No;
    }
    match framed(bytes) {
        Ok(_) if message(from, &bytes[HEAD..]).is_some() => Verdict::Yes,
        Ok(_) => Verdict::No,
        Err(_) => Verdict::Maybe,
    }
}

#[cfg(test)]
mod tests;
