//! Tells the calls of what is recorded: of a connection by the decoders of `protocol`, of datagrams one by one, for they are
//! whole messages and may get lost.

use std::{collections::BTreeMap, ops::Range};

use crate::protocol::{Call, Conversation, Details, End, Place, ProtocolName, Side, dns};

/// Queries that wait for their answer; of more than that the oldest are told without one.
const WAITING: usize = 4096;

/// Tells the calls of one connection.
pub(super) enum Decoder {
    Stream(Box<Conversation>),
    Datagrams(Datagrams),
}

/// Queries of DNS and their answers.
#[derive(Default)]
pub(super) struct Datagrams {
    /// By the number of the datagram.
    waiting: BTreeMap<u64, Query>,
    next: u64,
    /// Bytes that each side sent.
    sent: [u64; 2],
    is_dns: bool,
}

struct Query {
    message: dns::Message,
    at_ns: u64,
    place: Range<u64>,
}

impl Decoder {
    pub(super) fn new(is_datagrams: bool, server_port: u16) -> Self {
        if is_datagrams {
            Self::Datagrams(Datagrams::default())
        } else {
            Self::Stream(Box::new(Conversation::new(server_port)))
        }
    }

    pub(super) fn protocol(&self) -> Option<ProtocolName> {
        match self {
            Self::Stream(conversation) => conversation.protocol(),
            Self::Datagrams(datagrams) => datagrams.is_dns.then_some(ProtocolName::Dns),
        }
    }

    /// Bytes, or a datagram, of a side.
    pub(super) fn data(&mut self, from: Side, at_ns: u64, bytes: &[u8], out: &mut Vec<Call>) {
        match self {
            Self::Stream(conversation) => conversation.data(from, at_ns, bytes, out),
            Self::Datagrams(datagrams) => datagrams.data(from, at_ns, bytes, out),
        }
    }

    /// Bytes of a side that never came.
    pub(super) fn missing(&mut self, from: Side, at_ns: u64, count: u64, out: &mut Vec<Call>) {
        match self {
            Self::Stream(conversation) => conversation.missing(from, at_ns, Some(count), out),
            Self::Datagrams(datagrams) => datagrams.sent[from as usize] += count,
        }
    }

    pub(super) fn end(&mut self, at_ns: u64, how: End, out: &mut Vec<Call>) {
        match self {
            Self::Stream(conversation) => conversation.end(at_ns, how, out),
            Self::Datagrams(datagrams) => {
                let waiting = std::mem::take(&mut datagrams.waiting).into_values();
                out.extend(waiting.map(|query| query.call(None, at_ns, 0..0)));
            }
        }
    }
}

impl Datagrams {
    fn data(&mut self, from: Side, at_ns: u64, bytes: &[u8], out: &mut Vec<Call>) {
        let start = self.sent[from as usize];
        let place = start..start + bytes.len() as u64;
        self.sent[from as usize] = place.end;
        let Some(message) = dns::message(from, bytes) else {
            return;
        };
        self.is_dns = true;
        match from {
            Side::Client => {
                let query = Query {
                    message,
                    at_ns,
                    place,
                };
                self.waiting.insert(self.next, query);
                self.next += 1;
                if self.waiting.len() > WAITING
                    && let Some((_, oldest)) = self.waiting.pop_first()
                {
                    out.push(oldest.call(None, at_ns, 0..0));
                }
            }
            Side::Server => {
                // One that was sent again has the number of the first, and one answer is for the first of them.
                let of_it = |query: &Query| {
                    (query.message.id, &query.message.operation, &query.message.target)
                        == (message.id, &message.operation, &message.target)
                };
                let found = self.waiting.iter().find(|(_, query)| of_it(query));
                if let Some(number) = found.map(|(number, _)| *number)
                    && let Some(query) = self.waiting.remove(&number)
                {
                    out.push(query.call(Some(message), at_ns, place));
                }
            }
        }
    }
}

impl Query {
    fn call(self, answer: Option<dns::Message>, now_ns: u64, place: Range<u64>) -> Call {
        let complete = answer.is_some();
        Call {
            protocol: ProtocolName::Dns,
            from: Side::Client,
            operation: self.message.operation,
            target: self.message.target,
            failed: answer.as_ref().is_none_or(|answer| answer.failed),
            status: answer.and_then(|answer| answer.status),
            started_ns: self.at_ns,
            sent_ns: Some(self.at_ns),
            first_byte_ns: complete.then_some(now_ns),
            ended_ns: now_ns.max(self.at_ns),
            request_bytes: self.place.end - self.place.start,
            response_bytes: place.end - place.start,
            complete,
            trace: None,
            details: Details::default(),
            place: Place {
                request: self.place,
                response: complete.then_some(place),
                id: Some(u64::from(self.message.id)),
            },
        }
    }
}
