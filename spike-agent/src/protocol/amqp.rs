//! AMQP 0-9-1 (<https://www.rabbitmq.com/amqp-0-9-1-protocol>), as of RabbitMQ.
//!
//! Methods that are answered find their answer by their channel; messages that are published and delivered, by their
//! tag, where they are confirmed at all, and the contents of several channels may be mixed.

mod calls;
mod content;
mod detect;
mod method;
mod tags;

use super::{Key::Id, Kind, Messages, Protocol, ProtocolName, Request, Side, Step, fold};
use content::Contents;
use method::{Arguments, Method};
use tags::Tags;

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Amqp,
    ports: &[5672],
    detect: detect::detect,
    start: || Box::new(Amqp::default()),
};

/// First bytes of a client.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and size of a frame.
const HEAD: usize = 7;
/// Last byte of a frame.
const END: u8 = 0xce;
/// Bytes of a frame that are looked at.
const FRAME_LIMIT: usize = 4 * 1024;
/// Methods that are not answered yet; of more the answer is not told.
const ASKED_LIMIT: usize = 256;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Kinds of messages with a content.
const PUBLISH: (u16, u16) = (60, 40);
const RETURN: (u16, u16) = (60, 50);
const DELIVER: (u16, u16) = (60, 60);

#[derive(Default)]
struct Amqp {
    /// Number of the last call.
    last: u64,
    /// The call that is the connection's start, until it is over.
    connecting: Option<u64>,
    asked: Vec<Asked>,
    /// Of each side.
    contents: [Contents; 2],
    tags: Tags,
}

/// A method that is to be answered.
struct Asked {
    by: Side,
    channel: u16,
    method: (u16, u16),
    call: u64,
    /// Of `basic.consume`: whether what it delivers is to be acknowledged.
    acknowledged: bool,
    consumer: Vec<u8>,
}

struct Frame {
    kind: u8,
    channel: u16,
    size: usize,
}

impl Protocol for Amqp {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        if from == Side::Client && bytes[0] == GREETING[0] {
            return self.greeting(bytes, messages);
        }
        let frame = match frame(bytes) {
            Ok(frame) => frame,
            Err(step) => return step,
        };
        let known = frame.size.min(FRAME_LIMIT);
        // A body tells nothing.
        let known = if frame.kind == BODY { 0 } else { known };
        let whole = known == frame.size;
        let wanted = HEAD + known + usize::from(whole);
        let Some(payload) = bytes.get(HEAD..wanted) else {
            return Step::Need(wanted);
        };
        if whole && payload.last() != Some(&END) {
            return Step::Lost;
        }
        let fits = match frame.kind {
            METHOD => self.method(from, frame.channel, &payload[..known], messages),
            HEADER => self.contents[from as usize].header(frame.channel, &payload[..known], messages),
            BODY => {
                self.contents[from as usize].body(frame.channel, frame.size as u64, messages);
                Some(())
            }
            _ => Some(()),
        };
        match fits {
            Some(()) => Step::Took {
                bytes: wanted,
                skip: (HEAD + frame.size + 1 - wanted) as u64,
            },
            None => Step::Lost,
        }
    }

    fn resync(&mut self, _from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| detect::are_frames(&bytes[*at..]))
    }

    fn lost(&mut self, from: Side) {
        self.contents[from as usize] = Contents::default();
        self.asked.retain(|asked| asked.by == from);
        self.tags.lost(from);
        self.connecting = None;
    }
}

impl Amqp {
    fn call(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn greeting(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        if bytes.len() < GREETING.len() {
            return Step::Need(GREETING.len());
        }
        if !bytes.starts_with(GREETING) {
            return Step::Lost;
        }
        let call = self.call();
        self.connecting = Some(call);
        messages.whole_request(Id(call), Request::new("connect", ""));
        Step::Took {
            bytes: GREETING.len(),
            skip: 0,
        }
    }

    /// Nothing is remembered before the method is known to fit.
    fn method(
        &mut self,
        from: Side,
        channel: u16,
        payload: &[u8],
        messages: &mut Messages<'_>,
    ) -> Option<()> {
        let (code, mut arguments) = Arguments::of(payload)?;
        if code.0 == 10 && self.connect(from, code, &mut arguments, messages) {
            return Some(());
        }
        match code {
            PUBLISH => self.publish(from, channel, &mut arguments, messages),
            RETURN => {
                self.tags.returned(channel, &mut arguments)?;
                let request = Request::new("basic.return", arguments.address()?);
                self.one_way_with_content(from, channel, request, messages);
                Some(())
            }
            DELIVER => self.deliver(from, channel, &mut arguments, messages),
            (60, 80 | 90 | 120) => self.tags.settle(from, channel, code.1, &mut arguments, messages),
            (10 | 20, 40 | 50) if is_close(code) => self.close(from, channel, code, &mut arguments, messages),
            _ => match method::known(code)? {
                Method::Asks(form) => self.ask(from, channel, code, &form, arguments, messages),
                Method::Tells(name) => {
                    let call = self.call();
                    messages.one_way(Id(call), Request::new(name, ""));
                    Some(())
                }
                Method::Answers => {
                    self.answer(from, channel, code, &mut arguments, messages);
                    Some(())
                }
            },
        }
    }

    /// The steps of a connection's start are one call; says whether this was one.
    fn connect(
        &mut self,
        from: Side,
        code: (u16, u16),
        arguments: &mut Arguments<'_>,
        messages: &mut Messages<'_>,
    ) -> bool {
        if code.1 > 50 {
            return false;
        }
        let Some(call) = self.connecting else {
            // Of a start that wasn't seen from its beginning.
            return code.1 < 50;
        };
        match (from, code.1) {
            (Side::Client, 40) => {
                let host = arguments.name().unwrap_or_default();
                messages.describe(Id(call), Request::new("", host));
            }
            (Side::Client, _) => messages.describe(Id(call), Request::default()),
            (Side::Server, 41) => {
                self.connecting = None;
                answered(messages, call, "OK".to_owned(), false);
            }
            (Side::Server, 50) => {
                self.connecting = None;
                answered(messages, call, arguments.reason().unwrap_or_default(), true);
                return false;
            }
            (Side::Server, _) => messages.response(Id(call)),
        }
        true
    }
}

fn is_close(code: (u16, u16)) -> bool {
    matches!(code, (10, 50) | (20, 40))
}

fn answered(messages: &mut Messages<'_>, call: u64, status: String, failed: bool) {
    messages.response(Id(call));
    messages.status(Id(call), status, failed);
    messages.response_end(Id(call));
}

/// A name of a queue or an exchange, or a routing key.
fn name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    // The server names queues that clients don't.
    if name.starts_with("amq.gen-") {
        return "amq.gen".to_owned();
    }
    fold::key(&name)
}

fn frame(bytes: &[u8]) -> Result<Frame, Step> {
    if !matches!(bytes[0], METHOD | HEADER | BODY | HEARTBEAT) {
        return Err(Step::Lost);
    }
    let head = bytes.first_chunk::<HEAD>().ok_or(Step::Need(HEAD))?;
    let frame = Frame {
        kind: head[0],
        channel: u16::from_be_bytes([head[1], head[2]]),
        size: u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize,
    };
    let fits = match frame.kind {
        METHOD => frame.size >= 4,
        HEADER => frame.size >= 14,
        HEARTBEAT => frame.size == 0,
        _ => true,
    };
    // Far more than any server takes.
    if fits && frame.size < 1 << 30 {
        Ok(frame)
    } else {
        Err(Step::Lost)
    }
}

#[cfg(test)]
mod tests;
