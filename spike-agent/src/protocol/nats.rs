//! NATS' client protocol (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).
//!
//! A message that is published is a call without an answer, and so is one that is delivered; but where a message names
//! a subject for its reply, and the reply comes on the same connection, the two are one call.

mod detect;
mod line;
mod replies;

use super::{
    Key::{self, Id, Order},
    Kind, Messages, Next, Protocol, ProtocolName, Request, Side, Step, Trace, fold,
};
use line::{Line, Sent, read};
use replies::{Replies, Subscriptions};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Nats,
    ports: &[4222],
    detect: detect::detect,
    start: || Box::new(Nats::default()),
};

/// Longest head of a message that is looked at.
const HEADERS_LIMIT: usize = 8 * 1024;
/// Clients don't wait for answers, but a server takes less than this, in nanoseconds.
const QUIET_NS: u64 = 5_000_000;
/// Requests of a connection that wait for their reply; of more, the reply is a call of its own.
const REPLIES_LIMIT: usize = 512;
/// Of a message without an answer: by a number, it needn't be known what was before it.
const ONE_WAY: Key = Id(0);

#[derive(Default)]
struct Nats {
    /// Whether the server answers each message with `+OK`.
    verbose: bool,
    subscriptions: Subscriptions,
    /// Those that a side waits for.
    replies: [Replies; 2],
}

impl Protocol for Nats {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let (line, size) = match read(from, bytes) {
            Ok(read) => read,
            Err(step) => return step,
        };
        let sent = match line {
            Line::Message(sent) => sent,
            line => return self.control(&line, size, messages),
        };
        let wanted = size + sent.headers.min(HEADERS_LIMIT);
        let Some(headers) = bytes.get(size..wanted) else {
            return Step::Need(wanted);
        };
        self.message(from, &sent, headers, messages);
        Step::Took {
            bytes: wanted,
            skip: (sent.size - headers.len() as u64).saturating_add(2),
        }
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| {
            let begins = *at == 0 || bytes[..*at].ends_with(b"\r\n");
            begins && detect::are_messages(from, &bytes[*at..])
        })
    }

    fn lost(&mut self, from: Side) {
        self.replies[from.other() as usize].clear();
    }

    fn quiet_ns(&self) -> u64 {
        QUIET_NS
    }
}

impl Nats {
    fn control(&mut self, line: &Line<'_>, bytes: usize, messages: &mut Messages<'_>) -> Step {
        let step = Step::Took { bytes, skip: 0 };
        match *line {
            Line::Info { tls: true } => {
                let next = Next::Unknown;
                return Step::Switch { bytes, next };
            }
            Line::Info { tls: false } | Line::Message(_) => {}
            Line::Connect { verbose } => {
                self.verbose = verbose;
                self.tell(Request::new("CONNECT", ""), messages);
            }
            Line::Subscribe(subject) => {
                self.subscriptions.add(subject);
                self.tell(Request::new("SUB", name(subject)), messages);
            }
            Line::Unsubscribe => self.tell(Request::new("UNSUB", ""), messages),
            Line::Ping => messages.whole_request(Order, Request::new("PING", "")),
            Line::Pong => match messages.asked() {
                Some("PING") => answer(messages, "PONG".to_owned(), false),
                Some(_) => return Step::Lost,
                None => {}
            },
            Line::Ok => match messages.asked() {
                Some("PING") => return Step::Lost,
                Some(_) => answer(messages, "OK".to_owned(), false),
                None => {}
            },
            // What it is about isn't said; the last error before the end of the connection is.
            Line::Error(text) => {
                let status = line::error(text);
                if messages.asked().is_some() && line::is_fatal(&status) {
                    answer(messages, status, true);
                } else {
                    messages.one_way(ONE_WAY, Request::new("-ERR", status));
                }
            }
        }
        step
    }

    /// What a client says, and is answered only where it wants to be.
    fn tell(&self, request: Request, messages: &mut Messages<'_>) {
        if self.verbose {
            messages.whole_request(Order, request);
        } else {
            messages.one_way(ONE_WAY, request);
        }
    }

    fn message(&mut self, from: Side, sent: &Sent<'_>, headers: &[u8], messages: &mut Messages<'_>) {
        let (code, trace) = line::headers(headers);
        let operation = match from {
            Side::Client => "PUB",
            Side::Server => "MSG",
        };
        let request = Request {
            trace,
            ..Request::new(operation, name(sent.subject))
        };
        if from == Side::Client && self.verbose {
            return messages.whole_request(Order, request);
        }
        if let Some(call) = self.replies[from.other() as usize].take(sent.subject) {
            let failed = code.as_deref().is_some_and(line::is_failure);
            messages.response(Id(call));
            messages.status(Id(call), code.unwrap_or_else(|| "OK".to_owned()), failed);
            return messages.response_end(Id(call));
        }
        let awaited = sent.reply.filter(|reply| match from {
            // What it asks for comes by its own subject.
            Side::Client => {
                !sent.subject.starts_with(b"$JS.API.CONSUMER.MSG.NEXT.") && self.subscriptions.cover(reply)
            }
            // JetStream's are answered by who wants to.
            Side::Server => !reply.starts_with(b"$JS."),
        });
        match awaited.and_then(|reply| self.replies[from as usize].add(reply)) {
            Some(call) => messages.whole_request(Id(call), request),
            None => messages.one_way(ONE_WAY, request),
        }
        if from == Side::Server {
            self.subscriptions.delivered(sent.subject);
        }
    }
}

fn answer(messages: &mut Messages<'_>, status: String, failed: bool) {
    messages.response(Order);
    messages.status(Order, status, failed);
    messages.response_end(Order);
}

/// A subject with few distinct values.
fn name(subject: &[u8]) -> String {
    if subject.starts_with(b"_INBOX.") {
        return "_INBOX".to_owned();
    }
    if subject.starts_with(b"$JS.ACK.") {
        return "$JS.ACK".to_owned();
    }
    fold::key(&String::from_utf8_lossy(subject))
}

#[cfg(test)]
mod tests;
