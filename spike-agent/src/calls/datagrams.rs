//! Finds the answers to the queries of DNS: datagrams have no connection that would tell.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::{Book, EdgeCall, Sample};
use crate::protocol::{Call, Details, Losses, Place, ProtocolName, Side, dns};

/// Queries that wait for their answer; those that have waited longest go first.
const WAITING: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Nanoseconds after which a query is told without an answer: what resolvers wait for by default (resolv.conf(5)).
const PATIENCE_NS: u64 = 5_000_000_000;

/// Queries that wait, by socket and id.
pub(super) struct Datagrams(LruCache<(u64, u16), Query>);

struct Query {
    edge: u64,
    at_ns: u64,
    bytes: u64,
    message: dns::Message,
}

impl Default for Datagrams {
    fn default() -> Self {
        Self(LruCache::new(WAITING))
    }
}

impl Datagrams {
    pub(super) fn take(&mut self, sample: &Sample<'_>, book: &mut Book, out: &mut Vec<EdgeCall>) {
        let Some(message) = dns::message(sample.from, sample.bytes) else {
            let lost = Losses {
                undecodable: 1,
                ..Losses::default()
            };
            book.learn(sample.edge, (None, Losses::default()), (None, lost));
            return;
        };
        let key = (sample.cookie, message.id);
        match sample.from {
            Side::Client => {
                let query = Query {
                    edge: sample.edge,
                    at_ns: sample.at_ns,
                    bytes: u64::from(sample.length),
                    message,
                };
                // The same id once more is the same query, sent again.
                if !self.0.contains(&key)
                    && let Some((_, forgotten)) = self.0.push(key, query)
                {
                    tell(forgotten, None, sample.at_ns, book, out);
                }
            }
            // Without its query it is of a connection that is not sampled.
            Side::Server => {
                if let Some(query) = self.0.pop(&key) {
                    let answer = Some((message, u64::from(sample.length)));
                    tell(query, answer, sample.at_ns, book, out);
                }
            }
        }
    }

    /// Tells queries that nobody answers.
    pub(super) fn expire(&mut self, now_ns: u64, book: &mut Book, out: &mut Vec<EdgeCall>) {
        // Sent again or not, the order is that of the first sending.
        while let Some((_, oldest)) = self.0.peek_lru()
            && now_ns.saturating_sub(oldest.at_ns) > PATIENCE_NS
            && let Some((_, query)) = self.0.pop_lru()
        {
            tell(query, None, now_ns, book, out);
        }
    }
}

fn tell(
    query: Query,
    answer: Option<(dns::Message, u64)>,
    now_ns: u64,
    book: &mut Book,
    out: &mut Vec<EdgeCall>,
) {
    let Query {
        edge,
        at_ns,
        bytes,
        message,
    } = query;
    let complete = answer.is_some();
    let (answer, response_bytes) = answer.unzip();
    let call = Call {
        protocol: ProtocolName::Dns,
        from: Side::Client,
        operation: message.operation,
        target: message.target,
        failed: answer.as_ref().is_none_or(|answer| answer.failed),
        status: answer.and_then(|answer| answer.status),
        started_ns: at_ns,
        sent_ns: Some(at_ns),
        first_byte_ns: complete.then_some(now_ns),
        ended_ns: now_ns,
        request_bytes: bytes,
        response_bytes: response_bytes.unwrap_or(0),
        complete,
        trace: None,
        details: Details::default(),
        place: Place::default(),
    };
    let nothing = Losses::default();
    book.learn(edge, (None, nothing), (Some(call.protocol), nothing));
    book.count(edge, &call);
    out.push(EdgeCall { edge, call });
}
