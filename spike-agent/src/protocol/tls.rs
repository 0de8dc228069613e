//! TLS (RFC 8446, RFC 5246): a connection's handshake is its one call, and what follows is not looked at.
//!
//! The handshake ends with the server's part of it: up to TLS 1.2 with its `Finished`, in TLS 1.3 with its first
//! encrypted record, as the others are sent with it and can't be told from data. Alerts in TLS 1.3 are encrypted, too,
//! but for those of a handshake that fails early.

mod hello;

use super::{Key, Kind, Messages, Protocol, ProtocolName, Side, Step, Verdict};
use hello::Message;

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Tls,
    ports: &[443, 8443],
    detect,
    start: || Box::new(Tls::default()),
};

/// Bytes of a record's header.
const HEAD: usize = 5;
/// Longest record: RFC 5246 section 6.2.3.
const RECORD_LIMIT: usize = 16_384 + 2_048;
/// Longest handshake message that is read; chains of certificates are the longest.
const MESSAGE_LIMIT: usize = 64 * 1024;
/// The one call.
const HANDSHAKE: Key = Key::Id(0);

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE_RECORD: u8 = 22;
const DATA: u8 = 23;

#[derive(Default)]
struct Tls {
    begun: bool,
    /// The server's first message was seen.
    answered: bool,
    done: bool,
    /// Of each side.
    sides: [Part; 2],
}

/// How far a side's handshake is.
#[derive(Default)]
struct Part {
    /// The rest of it is encrypted.
    encrypted: bool,
    /// A message that is not complete; messages may go on in the next record.
    held: Vec<u8>,
}

impl Protocol for Tls {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        if self.done {
            return Step::TookRest { bytes: bytes.len() };
        }
        let Some(length) = record(bytes) else {
            return if bytes.len() < HEAD {
                Step::Need(HEAD)
            } else {
                Step::Lost
            };
        };
        let size = HEAD + length;
        let encrypted = self.sides[from as usize].encrypted;
        match bytes[0] {
            HANDSHAKE_RECORD | ALERT if !encrypted => {
                let Some(content) = bytes.get(HEAD..size) else {
                    return Step::Need(size);
                };
                let known = match bytes[0] {
                    ALERT => self.alert(content, messages),
                    _ => self.handshake(from, content, messages),
                };
                if known.is_none() {
                    return Step::Lost;
                }
                return Step::Took { bytes: size, skip: 0 };
            }
            CHANGE_CIPHER_SPEC => self.sides[from as usize].encrypted = true,
            // Encrypted: `Finished`, or what may be it.
            _ if from == Side::Server && (bytes[0] == DATA || encrypted && bytes[0] == HANDSHAKE_RECORD) => {
                if self.answered {
                    messages.response_end(HANDSHAKE);
                }
                self.end();
            }
            _ => {}
        }
        let skip = length as u64;
        Step::Took { bytes: HEAD, skip }
    }

    fn resync(&mut self, _from: Side, bytes: &[u8]) -> Option<usize> {
        let found = |at: &usize| record(&bytes[*at..]).is_some();
        if self.done {
            Some(0)
        } else {
            (0..bytes.len()).find(found)
        }
    }

    fn lost(&mut self, from: Side) {
        self.sides[from as usize].held = Vec::new();
        // It may have been over in the gap, or a first ClientHello was in it, and the next one is not the first.
        self.done |= from == Side::Server || !self.begun;
    }
}

impl Tls {
    fn end(&mut self) {
        self.done = true;
        self.sides = Default::default();
    }

    /// Reads the messages that a record completes; none if they can't be read.
    fn handshake(&mut self, from: Side, content: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let held = &mut self.sides[from as usize].held;
        if from == Side::Server && self.begun {
            self.answered |= held.is_empty() && content.first() == Some(&hello::SERVER);
            if self.answered {
                messages.response(HANDSHAKE);
            }
        }
        held.extend_from_slice(content);
        let mut at = 0;
        while let Some((head, body)) = held[at..].split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
            if length > MESSAGE_LIMIT {
                return None;
            }
            let Some(body) = body.get(..length) else {
                break;
            };
            at += head.len() + length;
            match Message::read(head[0], body) {
                Message::Client(request) if self.begun => {
                    // Asked for by an answer that was in a gap: the next one isn't the first.
                    self.done |= !self.answered;
                    messages.describe(HANDSHAKE, request);
                }
                Message::Client(request) => {
                    self.begun = true;
                    messages.whole_request(HANDSHAKE, request);
                }
                Message::Server(version, request) => {
                    messages.describe(HANDSHAKE, request);
                    messages.status(HANDSHAKE, version, false);
                }
                Message::Certificate(request) => messages.describe(HANDSHAKE, request),
                Message::Other => {}
            }
        }
        held.drain(..at);
        Some(())
    }

    /// A fatal one ends the handshake.
    fn alert(&mut self, content: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let [level, description] = *content.first_chunk()?;
        if level == 2 {
            messages.skipped(HANDSHAKE, hello::alert(description), true);
            self.end();
        }
        Some(())
    }
}

/// The length of the record that starts here.
fn record(bytes: &[u8]) -> Option<usize> {
    let [kind, major, minor, length @ ..] = *bytes.first_chunk::<HEAD>()?;
    let length = usize::from(u16::from_be_bytes(length));
    let known = (CHANGE_CIPHER_SPEC..=DATA).contains(&kind) && major == 3 && minor <= 4;
    (known && (1..=RECORD_LIMIT).contains(&length)).then_some(length)
}

fn detect(_from: Side, bytes: &[u8]) -> Verdict {
    let fits = |at: usize, from: u8, to: u8| bytes.get(at).is_none_or(|b| (from..=to).contains(b));
    let starts = fits(0, CHANGE_CIPHER_SPEC, DATA) && fits(1, 3, 3) && fits(2, 0, 4);
    match record(bytes) {
        Some(_) => Verdict::Yes,
        None if bytes.len() < HEAD && starts => Verdict::Maybe,
        None => Verdict::No,
    }
}

#[cfg(test)]
mod tests;
