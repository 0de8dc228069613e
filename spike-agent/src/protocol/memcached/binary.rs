//! Messages with a head of 24 bytes (<https://docs.memcached.org/protocols/binary/>).
//!
//! Answers come in order, and a client may number its commands; with numbers those of a server that answers out of
//! order, as Couchbase does, find theirs. Quiet commands are answered only sometimes, and so are calls without answer.

use super::{MANY, Messages, Step, Verdict};
use crate::protocol::{
    Key::{self, Id, Order},
    Request, Side, fold,
};

const HEAD: usize = 24;
const REQUEST: u8 = 0x80;
const RESPONSE: u8 = 0x81;
/// Longest key.
const KEY_LIMIT: usize = 250;
/// Numbers of commands that are open; beyond it only the order tells.
const OPEN_LIMIT: usize = 1024;
const STAT: u8 = 0x10;

/// By their code.
const COMMANDS: [&str; 37] = [
    "get",
    "set",
    "add",
    "replace",
    "delete",
    "increment",
    "decrement",
    "quit",
    "flush",
    "getq",
    "noop",
    "version",
    "getk",
    "getkq",
    "append",
    "prepend",
    "stat",
    "setq",
    "addq",
    "replaceq",
    "deleteq",
    "incrementq",
    "decrementq",
    "quitq",
    "flushq",
    "appendq",
    "prependq",
    "verbosity",
    "touch",
    "gat",
    "gatq",
    "hello",
    "sasl list",
    "sasl auth",
    "sasl step",
    "gatk",
    "gatkq",
];

#[derive(Default)]
pub(super) struct Binary {
    /// Numbers of commands that are to be answered.
    open: Vec<u32>,
    /// The client uses one number several times, so that only the order tells.
    in_order: bool,
}

struct Head {
    code: u8,
    status: u16,
    number: u32,
    extras: usize,
    key: usize,
    body: u64,
}

impl Head {
    fn read(from: Side, bytes: &[u8]) -> Result<Self, Step> {
        let Some(head) = bytes.first_chunk::<HEAD>() else {
            return Err(Step::Need(HEAD));
        };
        let short = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let long = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let read = Self {
            code: head[1],
            status: short(6),
            number: long(12),
            extras: usize::from(head[4]),
            key: usize::from(short(2)),
            body: u64::from(long(8)),
        };
        let fits =
            begins(from, bytes) && read.key <= KEY_LIMIT && (read.key + read.extras) as u64 <= read.body;
        if fits { Ok(read) } else { Err(Step::Lost) }
    }

    fn name(&self) -> String {
        let known = COMMANDS.get(usize::from(self.code));
        known.map_or_else(|| format!("{:#04x}", self.code), |name| (*name).to_owned())
    }

    fn is_quiet(&self) -> bool {
        matches!(self.code, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24)
    }
}

impl Binary {
    pub(super) fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let head = match Head::read(from, bytes) {
            Ok(head) => head,
            Err(step) => return step,
        };
        match from {
            Side::Client => self.command(&head, bytes, messages),
            Side::Server => self.reply(&head, messages),
        }
    }

    fn command(&mut self, head: &Head, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let start = HEAD + head.extras;
        let Some(key) = bytes.get(start..start + head.key) else {
            return Step::Need(start + head.key);
        };
        // What a call is about, but not who proves to be whom.
        let key = match head.code {
            0x1f..=0x22 => String::new(),
            _ => fold::key(&String::from_utf8_lossy(key)),
        };
        let request = Request::new(head.name(), key);
        if head.is_quiet() {
            messages.one_way(Order, request);
        } else {
            messages.whole_request(self.ask(head.number), request);
        }
        Step::Took {
            bytes: start + head.key,
            skip: head.body - (head.extras + head.key) as u64,
        }
    }

    fn ask(&mut self, number: u32) -> Key {
        self.in_order |= self.open.contains(&number) || self.open.len() >= OPEN_LIMIT;
        if number == 0 || self.in_order {
            return Order;
        }
        self.open.push(number);
        Id(u64::from(number))
    }

    pub(super) fn lost(&mut self) {
        self.open.clear();
    }

    fn reply(&mut self, head: &Head, messages: &mut Messages<'_>) -> Step {
        let step = Step::Took {
            bytes: HEAD,
            skip: head.body,
        };
        if head.is_quiet() {
            return step;
        }
        let call = match self.open.contains(&head.number) {
            true => Id(u64::from(head.number)),
            false => Order,
        };
        if call == Order && messages.asked().is_some_and(|asked| asked != head.name()) {
            return Step::Lost;
        }
        messages.response(call);
        let (status, failed) = status(head.status);
        messages.status(call, status, failed);
        // Statistics end with an empty one.
        if head.code != STAT || head.key == 0 {
            self.open.retain(|open| *open != head.number);
            messages.response_end(call);
        }
        step
    }
}

fn status(code: u16) -> (String, bool) {
    let (name, failed) = match code {
        0x00 => ("OK", false),
        0x01 => ("NOT_FOUND", false),
        0x02 => ("EXISTS", false),
        0x03 => ("TOO_LARGE", true),
        0x04 => ("INVALID", true),
        0x05 => ("NOT_STORED", false),
        0x06 => ("NOT_A_NUMBER", true),
        0x08 | 0x20 => ("AUTH_ERROR", true),
        0x21 => ("AUTH_CONTINUE", false),
        0x81 => ("UNKNOWN_COMMAND", true),
        0x82 => ("OUT_OF_MEMORY", true),
        code => return (format!("{code:#06x}"), true),
    };
    (name.to_owned(), failed)
}

pub(super) fn begins(from: Side, bytes: &[u8]) -> bool {
    bytes.first() == Some(if from == Side::Client { &REQUEST } else { &RESPONSE })
}

pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    match Head::read(from, bytes) {
        // Its kind of data is always 0.
        Ok(head) if bytes[5] == 0 && usize::from(head.code) < 0xd0 => Verdict::Yes,
        Err(Step::Need(_)) => Verdict::Maybe,
        _ => Verdict::No,
    }
}

/// Whether `bytes` are messages from beginning to end, or many.
pub(super) fn are_messages(from: Side, mut bytes: &[u8]) -> bool {
    for _ in 0..MANY {
        match Head::read(from, bytes) {
            Ok(head) if detect(from, bytes) == Verdict::Yes => match bytes.get(HEAD + head.body as usize..) {
                Some([]) => return true,
                Some(rest) => bytes = rest,
                None => return false,
            },
            _ => return false,
        }
    }
    true
}
