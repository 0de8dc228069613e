//! MQTT 3.1, 3.1.1 and 5 (<https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html>).

mod detect;
mod reason;
mod topic;

use super::{
    Key::{self, Id, Order},
    Kind, Messages, Protocol, ProtocolName, Request, Side, Step,
};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Mqtt,
    ports: &[1883],
    detect: detect::detect,
    start: || Box::new(Mqtt::default()),
};

/// Bytes of a packet that are looked at, and longest topic with its properties.
const HEAD_LIMIT: usize = 16 * 1024;
/// Between a ping and its answer at most, in nanoseconds, most often.
const QUIET_NS: u64 = 5_000_000;
/// Of a message without an answer; other numbers are those of packets, which have 16 bits.
const ONE_WAY: Key = Id(1 << 16);

#[derive(Default)]
struct Mqtt {
    /// 3, 4 or 5, once a connection's start was seen.
    version: Option<u8>,
    /// Of each side.
    topics: [topic::Aliases; 2],
}

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

use Type::*;

const TYPES: [Type; 15] = [
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
];

struct Packet {
    of: Type,
    flags: u8,
    /// Of its type, flags and size.
    head: usize,
    /// What is behind these.
    size: usize,
}

impl Protocol for Mqtt {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let packet = match packet(from, bytes) {
            Ok(packet) => packet,
            Err(step) => return step,
        };
        let wanted = packet.head + packet.size.min(HEAD_LIMIT);
        let Some(body) = bytes.get(packet.head..wanted) else {
            return Step::Need(wanted);
        };
        if self.body(from, &packet, body, messages).is_none() {
            return Step::Lost;
        }
        Step::Took {
            bytes: wanted,
            skip: (packet.head + packet.size - wanted) as u64,
        }
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| {
            let rest = &bytes[*at..];
            // A short one could be any bytes, where it isn't known that a packet begins.
            detect::are_packets(from, rest) && (*at == 0 || detect::is_sure(from, rest))
        })
    }

    fn quiet_ns(&self) -> u64 {
        QUIET_NS
    }
}

impl Mqtt {
    /// Nothing is said or remembered before all of it fits.
    fn body(&mut self, from: Side, packet: &Packet, body: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        match packet.of {
            Connect => {
                self.version = Some(detect::version(body)?);
                messages.whole_request(Order, Request::new("CONNECT", ""));
            }
            ConnAck => answer(messages, Order, *body.get(1)?, self.version),
            Publish => self.publish(from, packet.flags, body, messages)?,
            PubAck | PubComp => answer(messages, id(body)?, code(body), self.version),
            PubRec if reason::is_failure(code(body)) => answer(messages, id(body)?, code(body), self.version),
            PubRec => messages.response(id(body)?),
            PubRel => messages.describe(id(body)?, Request::default()),
            Subscribe | Unsubscribe => self.subscribe(packet.of, body, messages)?,
            SubAck | UnsubAck => {
                let codes = body.get(2..)?;
                let codes = match self.version {
                    Some(5) => topic::behind_properties(codes)?,
                    Some(_) => codes,
                    None => &codes[codes.len().saturating_sub(1)..],
                };
                let failure = codes.iter().find(|code| reason::is_failure(**code));
                // What was granted is no reason of its own.
                let code = failure.copied().unwrap_or(0);
                answer(messages, id(body)?, code, Some(5));
            }
            PingReq => messages.whole_request(Order, Request::new("PINGREQ", "")),
            PingResp => {
                if messages.asked().is_none_or(|asked| asked == "PINGREQ") {
                    answer(messages, Order, 0, self.version);
                } else {
                    return None;
                }
            }
            Disconnect => {
                let why = body.first().filter(|code| reason::is_failure(**code));
                let why = why.map_or_else(String::new, |code| reason::name(*code, Some(5)));
                messages.one_way(ONE_WAY, Request::new("DISCONNECT", why));
            }
            // A further step of connecting.
            Auth => {}
        }
        Some(())
    }

    fn publish(&mut self, from: Side, flags: u8, body: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let (topic, rest) = topic::read(body)?;
        let quality = (flags >> 1) & 3;
        let (packet, rest) = match quality {
            0 => (None, rest),
            _ => (Some(id(rest)?), &rest[2..]),
        };
        let mut request = Request::new("PUBLISH", topic::name(topic));
        if self.version == Some(5) {
            let properties = topic::properties(rest)?;
            request.trace = properties.trace;
            if let Some(alias) = properties.alias {
                request.target = self.topics[from as usize].follow(alias, request.target);
            }
        }
        match packet {
            None => messages.one_way(ONE_WAY, request),
            Some(packet) => messages.whole_request(packet, request),
        }
        Some(())
    }

    fn subscribe(&self, of: Type, body: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let packet = id(body)?;
        let filters = match self.version {
            Some(5) => topic::behind_properties(&body[2..])?,
            Some(_) => &body[2..],
            // One without properties begins so, if it isn't very long.
            None if body.get(2) == Some(&0) && body.get(3) == Some(&0) => &body[3..],
            None => &body[2..],
        };
        let (filter, _) = topic::read(filters)?;
        let operation = if of == Subscribe {
            "SUBSCRIBE"
        } else {
            "UNSUBSCRIBE"
        };
        messages.whole_request(packet, Request::new(operation, topic::name(filter)));
        Some(())
    }
}

fn answer(messages: &mut Messages<'_>, key: Key, code: u8, version: Option<u8>) {
    messages.response(key);
    let failed = match (key, version) {
        // Of the first versions, where every one but 0 is a refusal.
        (Order, Some(..=4)) => code != 0,
        _ => reason::is_failure(code),
    };
    messages.status(key, reason::name(code, version), failed);
    messages.response_end(key);
}

/// The number at the start of a body.
fn id(body: &[u8]) -> Option<Key> {
    let id = u16::from_be_bytes(*body.first_chunk()?);
    (id != 0).then(|| Id(u64::from(id)))
}

/// The reason behind the number; there is none if all went well, and in the first versions.
fn code(body: &[u8]) -> u8 {
    body.get(2).copied().unwrap_or(0)
}

/// Type and size of the packet that begins here, if that side may send it.
fn packet(from: Side, bytes: &[u8]) -> Result<Packet, Step> {
    let of = usize::from(bytes[0] >> 4)
        .checked_sub(1)
        .map(|place| TYPES[place]);
    let (of, flags) = (of.ok_or(Step::Lost)?, bytes[0] & 0xf);
    let sender = match of {
        Connect | Subscribe | Unsubscribe | PingReq => from == Side::Client,
        ConnAck | SubAck | UnsubAck | PingResp => from == Side::Server,
        _ => true,
    };
    let fits = match of {
        Publish => flags & 6 != 6,
        PubRel | Subscribe | Unsubscribe => flags == 2,
        _ => flags == 0,
    };
    if !sender || !fits {
        return Err(Step::Lost);
    }
    let (size, head) = match number(&bytes[1..]) {
        Number::Is(size, count) => (size, 1 + count),
        Number::More => return Err(Step::More),
        Number::No => return Err(Step::Lost),
    };
    let fits = match of {
        PingReq | PingResp => size == 0,
        Connect => size >= 10,
        ConnAck | PubAck | PubRec | PubRel | PubComp | UnsubAck => size >= 2,
        Publish => size >= 2,
        Subscribe | Unsubscribe => size >= 5,
        SubAck => size >= 3,
        Disconnect | Auth => true,
    };
    let packet = Packet {
        of,
        flags,
        head,
        size,
    };
    if fits { Ok(packet) } else { Err(Step::Lost) }
}

enum Number {
    /// The number, and of how many bytes it is.
    Is(usize, usize),
    More,
    No,
}

/// A number in groups of seven bits, of four bytes at most.
fn number(bytes: &[u8]) -> Number {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Number::Is(value, place + 1);
        }
    }
    if bytes.len() < 4 { Number::More } else { Number::No }
}

#[cfg(test)]
mod tests;
