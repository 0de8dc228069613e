//! Puts the sampled segments of each connection in order and has them decoded.

use std::collections::{HashMap, hash_map::Entry};

use super::{book::Book, datagrams::Datagrams, feed::EdgeCall};
use crate::protocol::{Call, Conversation, End, Losses, ProtocolName, Side};

/// Connections that are followed at a time; samples of more are counted and dropped.
const LIMIT: usize = 16_384;
/// Nanoseconds without a sample after which a connection is no longer followed: its turn is over, or it rests.
const IDLE_NS: u64 = 60_000_000_000;

/// The start of a TCP segment's payload, or a UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// It is a datagram: `sequence` and what follows from TCP's flags mean nothing.
    pub is_datagram: bool,
    /// Names the connection; never used again for another.
    pub cookie: u64,
    /// The edge that it counts for.
    pub edge: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
    /// Who sent it.
    pub from: Side,
    /// The port that the connection was meant to go to.
    pub port: u16,
    /// TCP sequence number of the first byte.
    pub sequence: u32,
    /// Payload bytes of the segment, of which `bytes` is the start.
    pub length: u32,
    /// What was copied.
    pub bytes: &'a [u8],
    /// Nothing came before it in this direction.
    pub first: bool,
    /// The sender will send no more.
    pub fin: bool,
    /// The connection was reset.
    pub reset: bool,
}

/// Every connection that is sampled now.
#[derive(Default)]
pub struct Connections {
    open: HashMap<u64, Connection>,
    datagrams: Datagrams,
    /// Reused for each sample.
    calls: Vec<Call>,
}

struct Connection {
    edge: u64,
    conversation: Conversation,
    /// By [`Side`]: client, server.
    directions: [Direction; 2],
    last_ns: u64,
    /// What the book has been told.
    told: (Option<ProtocolName>, Losses),
}

#[derive(Clone, Copy, Default)]
struct Direction {
    /// The sequence number after the last byte seen; none before the first.
    next: Option<u32>,
    ended: bool,
}

impl Connections {
    /// Takes one sample; the calls that it completes go to `out`, and what was learned and lost to `book`.
    pub fn take(&mut self, sample: &Sample<'_>, book: &mut Book, out: &mut Vec<EdgeCall>) {
        if sample.is_datagram {
            self.datagrams.take(sample, book, out);
            return;
        }
        let is_full = self.open.len() >= LIMIT;
        let connection = match self.open.entry(sample.cookie) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Nothing to decode in the end of a connection that was not followed.
            Entry::Vacant(_) if sample.length == 0 => return,
            Entry::Vacant(_) if is_full => {
                book.not_followed += 1;
                return;
            }
            Entry::Vacant(entry) => entry.insert(Connection {
                edge: sample.edge,
                conversation: Conversation::new(sample.port),
                directions: [Direction::default(); 2],
                last_ns: sample.at_ns,
                told: (None, Losses::default()),
            }),
        };
        connection.last_ns = sample.at_ns;
        connection.read(sample, &mut self.calls);
        let over = connection.end(sample, &mut self.calls);
        connection.tell(&mut self.calls, book, out);
        if over {
            self.open.remove(&sample.cookie);
        }
    }

    /// Lets go of connections that have not been sampled for a minute.
    pub fn expire(&mut self, now_ns: u64, book: &mut Book, out: &mut Vec<EdgeCall>) {
        self.datagrams.expire(now_ns, book, out);
        let calls = &mut self.calls;
        self.open.retain(|_, connection| {
            if now_ns.saturating_sub(connection.last_ns) < IDLE_NS {
                return true;
            }
            connection.conversation.end(now_ns, End::Unsampled, calls);
            connection.tell(calls, book, out);
            false
        });
    }

    /// How many connections are followed.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Connection {
    fn read(&mut self, sample: &Sample<'_>, calls: &mut Vec<Call>) {
        if sample.length == 0 || self.conversation.is_opaque() {
            return;
        }
        let (from, at) = (sample.from, sample.at_ns);
        let other = self.directions[index(from.other())].next;
        let direction = &mut self.directions[index(from)];
        let mut skip = 0;
        match direction.next {
            None if sample.first => {}
            None => {
                // The connection is older than its turn: both of its directions are.
                self.conversation.missing(from, at, None, calls);
                if other.is_none() {
                    self.conversation.missing(from.other(), at, None, calls);
                }
            }
            Some(next) => {
                let ahead = sample.sequence.wrapping_sub(next).cast_signed();
                if ahead > 0 {
                    let count = u64::from(ahead.unsigned_abs());
                    self.conversation.missing(from, at, Some(count), calls);
                } else {
                    // Sent again, in part or whole.
                    skip = ahead.unsigned_abs();
                }
            }
        }
        if skip >= sample.length {
            return;
        }
        direction.next = Some(sample.sequence.wrapping_add(sample.length));
        let copied = u32::try_from(sample.bytes.len())
            .unwrap_or(u32::MAX)
            .min(sample.length);
        let fresh = sample.bytes.get(skip as usize..).unwrap_or_default();
        if !fresh.is_empty() {
            self.conversation.data(from, at, fresh, calls);
        }
        let missing = sample.length - copied.max(skip);
        if missing > 0 {
            self.conversation
                .missing(from, at, Some(u64::from(missing)), calls);
        }
    }

    /// Whether the connection is over.
    fn end(&mut self, sample: &Sample<'_>, calls: &mut Vec<Call>) -> bool {
        self.directions[index(sample.from)].ended |= sample.fin;
        let how = if sample.reset {
            End::Reset
        } else if self.directions.iter().all(|direction| direction.ended) {
            End::Closed
        } else {
            return false;
        };
        self.conversation.end(sample.at_ns, how, calls);
        true
    }

    fn tell(&mut self, calls: &mut Vec<Call>, book: &mut Book, out: &mut Vec<EdgeCall>) {
        let now = (self.conversation.protocol(), self.conversation.losses());
        if now != self.told {
            book.learn(self.edge, self.told, now);
            self.told = now;
        }
        for call in calls.drain(..) {
            book.count(self.edge, &call);
            out.push(EdgeCall {
                edge: self.edge,
                call,
            });
        }
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}
