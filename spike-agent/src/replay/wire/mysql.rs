//! MySQL's and MariaDB's protocol: each command, and all that the server says up to the next one.
//!
//! Clients wait for the answer before they send the next command, so that what belongs to it is told by the times; the
//! many forms of answers need not be known.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;

use super::Recorded;
use crate::replay::{
    exchange::Talk,
    parts::{Parts, add_statement, text_of},
};

/// Size of a packet's head.
pub const HEAD: usize = 4;
/// What a server offers and a stub does not: compression, TLS, zstd.
const NOT_OFFERED: [u32; 3] = [1 << 5, 1 << 11, 1 << 26];
const TLS: u32 = 1 << 11;
const QUERY_ATTRIBUTES: u32 = 1 << 27;
/// Statements that a connection may have prepared; the oldest are forgotten.
const STATEMENTS_LIMIT: usize = 4096;

/// Ends the connection.
pub const QUIT: u8 = 1;
const QUERY: u8 = 3;
/// Asks whether the server is there.
pub const PING: u8 = 14;
/// Prepares a statement.
pub const PREPARE: u8 = 22;
const EXECUTE: u8 = 23;
/// Bytes of one parameter, and the end of a statement: neither is answered.
const LONG_DATA: u8 = 24;
const CLOSE: u8 = 25;

/// The client's answer to the greeting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// What the client can do.
    pub capabilities: u32,
    /// It proves who it is.
    pub has_password: bool,
}

/// What has been said on a connection, as far as later commands mean it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What the client can do.
    capabilities: u32,
    statements: HashMap<u32, String>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As it is shown.
    pub label: String,
    /// The same for all of its kind.
    pub kind: String,
    /// What it says.
    pub parts: Parts,
    /// Text of the statement that it is about; may be empty.
    pub text: String,
}

/// The size of the packet at the start, and its number; none when there is more to come.
pub fn packet(bytes: &[u8]) -> Option<(usize, u8)> {
    let [a, b, c, number] = *bytes.first_chunk::<HEAD>()?;
    let size = HEAD + u32::from_le_bytes([a, b, c, 0]) as usize;
    (bytes.len() >= size).then_some((size, number))
}

/// A packet with this number.
pub fn frame(number: u8, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap_or(0).to_le_bytes();
    [&size[..3], &[number], content].concat()
}

/// Whether the server says anything to a command.
pub fn is_answered(command: u8) -> bool {
    !matches!(command, QUIT | LONG_DATA | CLOSE)
}

/// Reads the client's answer to the greeting, without its head.
pub fn login(content: &[u8]) -> Login {
    let capabilities = content
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let user = content.get(32..).unwrap_or_default();
    let proof = user
        .iter()
        .position(|b| *b == 0)
        .and_then(|end| user.get(end + 1));
    Login {
        capabilities,
        has_password: proof.is_some_and(|length| *length > 0),
    }
}

/// A greeting that offers no encryption and no compression.
pub fn plain_greeting(greeting: &[u8]) -> Vec<u8> {
    let mut greeting = greeting.to_vec();
    let version_end = greeting.iter().skip(HEAD + 1).position(|b| *b == 0);
    let Some(low) = version_end.map(|end| HEAD + 1 + end + 1 + 4 + 8 + 1) else {
        return greeting;
    };
    // The lower half, character set and status, the upper half.
    let high = low + 2 + 3;
    for bit in NOT_OFFERED {
        let (place, bit) = if bit < 1 << 16 {
            (low, bit)
        } else {
            (high, bit >> 16)
        };
        if let Some(bytes) = greeting.get_mut(place..place + 2) {
            let mask = !(bit as u16);
            let kept = u16::from_le_bytes([bytes[0], bytes[1]]) & mask;
            bytes.copy_from_slice(&kept.to_le_bytes());
        }
    }
    greeting
}

/// The number of the statement that an answer to `PREPARE` names, and where it is.
pub fn prepared(answer: &[u8]) -> Option<(u32, Range<usize>)> {
    let range = HEAD + 1..HEAD + 5;
    let is_good = answer.get(HEAD) == Some(&0);
    let id = answer.get(range.clone()).filter(|_| is_good)?;
    Some((u32::from_le_bytes(*id.first_chunk()?), range))
}

impl State {
    /// Of a connection whose client can do this.
    pub fn new(capabilities: u32) -> Self {
        Self {
            capabilities,
            ..Self::default()
        }
    }

    /// Keeps the text of a statement.
    pub fn keep(&mut self, id: u32, text: String) {
        if self.statements.len() >= STATEMENTS_LIMIT {
            self.statements.clear();
        }
        self.statements.insert(id, text);
    }

    /// Reads a command, without its head.
    pub fn read(&self, content: &[u8]) -> Asked {
        let (command, rest) = content.split_first().unwrap_or((&0, &[]));
        let mut parts = Parts::default();
        let (what, text) = match *command {
            QUERY => {
                // No attributes, one set of them.
                let attributes = self.capabilities & QUERY_ATTRIBUTES != 0;
                let text = rest.strip_prefix(&[0, 1]).filter(|_| attributes).unwrap_or(rest);
                ("query", String::from_utf8_lossy(text).into_owned())
            }
            PREPARE => ("prepare", String::from_utf8_lossy(rest).into_owned()),
            EXECUTE => {
                let id = rest.first_chunk().map_or(0, |id| u32::from_le_bytes(*id));
                let values: String = rest.iter().skip(4).map(|b| format!("{b:02x}")).collect();
                parts.push("values", values);
                ("execute", self.statements.get(&id).cloned().unwrap_or_default())
            }
            other => {
                parts.push("content", text_of(rest));
                parts.push("message", format!("command {other}"));
                let label = format!("command {other} {}", String::from_utf8_lossy(rest));
                return Asked {
                    kind: format!("command {other}"),
                    label: label.trim_end().to_owned(),
                    parts,
                    text: String::new(),
                };
            }
        };
        parts.push("message", what);
        let skeleton = add_statement(&mut parts, &text);
        let short: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = short.chars().take(120).collect();
        Asked {
            label: if what == "query" {
                short
            } else {
                format!("{what} {short}")
            },
            kind: format!("{what} {skeleton}"),
            parts,
            text,
        }
    }
}

/// What an answer says: that it went well, an error, or its packets.
fn response_parts(mut bytes: &[u8]) -> Parts {
    let mut parts = Parts::default();
    let mut number = 0_usize;
    while let Some((size, _)) = packet(bytes) {
        let content = &bytes[HEAD..size];
        number += 1;
        if content.first() == Some(&0xff) {
            let code = content.get(1..3).and_then(<[u8]>::first_chunk);
            parts.push(
                "error.code",
                code.map_or(0, |code| u16::from_le_bytes(*code)).to_string(),
            );
            parts.push("error.message", text_of(content.get(9..).unwrap_or_default()));
        } else {
            parts.push(format!("packet.{number}"), text_of(content));
        }
        bytes = &bytes[size..];
    }
    parts
}

/// The client's packets: where each is, with its number.
fn packets(bytes: &Bytes) -> Vec<(Range<usize>, u8)> {
    let (mut at, mut all) = (0, Vec::new());
    while let Some((size, number)) = packet(&bytes[at..]) {
        all.push((at..at + size, number));
        at += size;
    }
    all
}

pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    let (client, server) = (recorded.client.bytes(), recorded.answers.bytes());
    let Some((size, _)) = packet(server).filter(|_| server.get(HEAD) == Some(&10)) else {
        return talk.left_out.push("its greeting was not recorded".to_owned());
    };
    talk.greeting = plain_greeting(&server[..size]).into();
    let all = packets(client);
    let Some((first, _)) = all.first() else {
        return;
    };
    let mut state = State::new(login(&client[first.start + HEAD..first.end]).capabilities);
    if state.capabilities & TLS != 0 && first.len() == HEAD + 32 {
        return talk.left_out.push("the connection is encrypted".to_owned());
    }
    let commands: Vec<Range<usize>> = all
        .into_iter()
        .skip(1)
        .filter(|(range, number)| *number == 0 && range.len() > HEAD)
        .map(|(range, _)| range)
        .collect();
    // What the server has said when the client says its next word.
    let said_before = |position: usize| {
        let at = recorded.client.at(position);
        let before = recorded.answers.chunks().filter(|(_, _, told_at)| *told_at < at);
        before.map(|(_, end, _)| end).max().unwrap_or(0)
    };
    for (index, range) in commands.iter().enumerate() {
        let content = &client[range.start + HEAD..range.end];
        let asked = state.read(content);
        if !is_answered(content[0]) {
            continue;
        }
        let start = said_before(range.start);
        let end = commands
            .get(index + 1)
            .map_or(server.len(), |next| said_before(next.start));
        if end <= start {
            talk.left_out
                .push(format!("{}: which answer is its own cannot be told", asked.label));
            continue;
        }
        let answer = start..end;
        if content[0] == PREPARE
            && let Some((id, _)) = prepared(&server[answer.clone()])
        {
            state.keep(id, asked.text);
        }
        let parts = [asked.parts, response_parts(&server[answer.clone()])];
        let exchange = recorded.exchange([asked.label, asked.kind], parts, range.clone(), answer, false);
        talk.exchanges.push(exchange.into());
    }
}

#[cfg(test)]
pub(in crate::replay) mod tests {
    use super::*;
    use crate::replay::flow::Flow;

    /// A greeting that offers all there is.
    pub(in crate::replay) fn greeting() -> Vec<u8> {
        let mut content = b"\x0a8.0\0\x01\0\0\0saltsalt\0\xff\xff\x21\x02\0\xff\xff\x15".to_vec();
        content.extend([0; 10]);
        content.extend(b"saltsaltsalt\0caching_sha2_password\0");
        frame(0, &content)
    }

    pub(in crate::replay) fn hello(password: bool) -> Vec<u8> {
        let mut content = 0x0fa2_0200_u32.to_le_bytes().to_vec();
        content.extend([0; 28]);
        content.extend(b"me\0");
        content.extend(if password { &b"\x03abc"[..] } else { b"\0" });
        frame(1, &content)
    }

    /// A statement that is prepared as number 7 and executed, and a query.
    pub(in crate::replay) fn connection() -> Recorded {
        let good = |number: u8| frame(number, &[0, 0, 0, 2, 0, 0, 0]);
        let turns = [
            (Vec::new(), greeting()),
            (hello(true), good(2)),
            (
                frame(0, b"\x16SELECT ?"),
                frame(1, &[0, 7, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]),
            ),
            (
                frame(0, b"\x17\x07\0\0\0\0\x01\0\0\0\x2a"),
                frame(1, b"forty-two"),
            ),
            (frame(0, b"\x19\x07\0\0\0"), Vec::new()),
            (frame(0, b"\x03\0\x01SELECT 'a'"), frame(1, b"a")),
            (frame(0, b"\x01"), Vec::new()),
        ];
        let (mut client, mut server, mut sent) = (Vec::new(), Vec::new(), [0, 0]);
        for (index, (asked, told)) in turns.into_iter().enumerate() {
            let at = index as u64 * 10;
            for (side, at, bytes, chunks) in [(0, at, asked, &mut client), (1, at + 5, told, &mut server)] {
                let position = sent[side];
                sent[side] += bytes.len() as u64;
                if !bytes.is_empty() {
                    chunks.push((position, at, bytes));
                }
            }
        }
        Recorded {
            protocol: Some("mysql".to_owned()),
            server: "127.0.0.1:3306".to_owned(),
            client: Flow::new(client, sent[0]).unwrap(),
            answers: Flow::new(server, sent[1]).unwrap(),
            ..Recorded::default()
        }
    }

    #[test]
    fn commands_have_what_is_said_up_to_the_next_one() {
        let talk = connection().split();
        assert!(talk.left_out.is_empty(), "{:?}", talk.left_out);
        let labels: Vec<_> = talk.exchanges.iter().map(|each| each.label.as_str()).collect();
        assert_eq!(labels, ["prepare SELECT ?", "execute SELECT ?", "SELECT 'a'"]);
        assert_eq!(talk.exchanges[1].answer.bytes(), frame(1, b"forty-two"));
        assert_eq!(talk.exchanges[2].request.get("literal.1"), Some("'a'"));
    }

    #[test]
    fn a_stub_offers_neither_encryption_nor_compression() {
        let plain = plain_greeting(&greeting());
        assert_eq!(plain.len(), greeting().len());
        let low = HEAD + 1 + 4 + 4 + 8 + 1;
        assert_eq!(
            u16::from_le_bytes([plain[low], plain[low + 1]]),
            !(1_u16 << 5) & !(1 << 11)
        );
        assert_eq!(
            u16::from_le_bytes([plain[low + 5], plain[low + 6]]),
            !(1_u16 << 10)
        );
    }
}
