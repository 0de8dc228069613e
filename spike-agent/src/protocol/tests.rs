//! The framework by itself, with a protocol that has a bit of everything.
//!
//! A message is a line `@<kind><id> <word> <size>` and `size` bytes of body. `Q` asks and `R` answers, in order without
//! an id and else by it; `O` is not answered, `I` is interim, `C` cancels, `T` has a body up to the end, `U` leaves the
//! protocol.

mod damaged;
mod each;
mod gaps;
mod matching;
mod robust;
pub(super) mod sample;

use super::{
    Call, Conversation, End, Key, Kind, Messages, Next, Protocol, ProtocolName, Request, Side, Step, Verdict,
};

/// Its clients wait for each response.
const EAGER: &[Kind] = &[kind(|| Box::new(Toy { quiet_ns: 0 }))];
/// Its clients pipeline.
const PATIENT: &[Kind] = &[kind(|| Box::new(Toy { quiet_ns: 100 }))];

const fn kind(start: fn() -> Box<dyn Protocol>) -> Kind {
    Kind {
        name: ProtocolName::Toy,
        ports: &[7],
        detect: |_, bytes| {
            if bytes[0] == b'@' {
                Verdict::Yes
            } else {
                Verdict::No
            }
        },
        start,
    }
}

struct Toy {
    quiet_ns: u64,
}

impl Protocol for Toy {
    fn read(&mut self, _from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            return Step::More;
        };
        let Some((kind, key, word, skip)) = message(&bytes[..end]) else {
            return Step::Lost;
        };
        let bytes = end + 1;
        match kind {
            b'Q' => messages.whole_request(key, Request::new(word, "")),
            b'O' => messages.one_way(key, Request::new(word, "")),
            b'C' => messages.cancel(key),
            b'R' | b'T' => {
                messages.response(key);
                messages.status(key, word, word == "bad");
                messages.response_end(key);
            }
            b'I' => {}
            b'U' => {
                messages.response(key);
                messages.response_end(key);
                let next = Next::Opaque;
                return Step::Switch { bytes, next };
            }
            _ => return Step::Lost,
        }
        if kind == b'T' {
            return Step::TookRest { bytes };
        }
        Step::Took { bytes, skip }
    }

    fn resync(&mut self, _from: Side, bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|b| *b == b'@')
    }

    fn quiet_ns(&self) -> u64 {
        self.quiet_ns
    }
}

fn message(line: &[u8]) -> Option<(u8, Key, &str, u64)> {
    let mut words = str::from_utf8(line).ok()?.strip_prefix('@')?.split(' ');
    let head = words.next()?;
    let kind = *head.as_bytes().first()?;
    let id = head.get(1..)?;
    let key = if id.is_empty() {
        Key::Order
    } else {
        Key::Id(id.parse().ok()?)
    };
    Some((kind, key, words.next()?, words.next()?.parse().ok()?))
}

/// A conversation and the calls that it gave out.
struct Talk {
    conversation: Conversation,
    calls: Vec<Call>,
}

impl Talk {
    fn new(kinds: &'static [Kind]) -> Self {
        Self {
            conversation: Conversation::of(kinds, 80),
            calls: Vec::new(),
        }
    }

    fn client(&mut self, at: u64, bytes: &str) -> &mut Self {
        self.conversation
            .data(Side::Client, at, bytes.as_bytes(), &mut self.calls);
        self
    }

    fn server(&mut self, at: u64, bytes: &str) -> &mut Self {
        self.conversation
            .data(Side::Server, at, bytes.as_bytes(), &mut self.calls);
        self
    }

    fn missing(&mut self, from: Side, at: u64, count: impl Into<Option<u64>>) -> &mut Self {
        self.conversation.missing(from, at, count.into(), &mut self.calls);
        self
    }

    fn end(&mut self, at: u64, how: End) -> &mut Self {
        self.conversation.end(at, how, &mut self.calls);
        self
    }

    /// Operation, start, first byte and end of each call so far.
    fn times(&self) -> Vec<(&str, u64, Option<u64>, u64)> {
        let times = |call: &Call| (call.started_ns, call.first_byte_ns, call.ended_ns);
        let calls = self
            .calls
            .iter()
            .map(|call| (call.operation.as_str(), times(call)));
        calls
            .map(|(name, (start, first, end))| (name, start, first, end))
            .collect()
    }

    fn names(&self) -> Vec<&str> {
        self.calls.iter().map(|call| call.operation.as_str()).collect()
    }
}
