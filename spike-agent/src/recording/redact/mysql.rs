//! Secrets in MySQL's protocol: what clients prove who they are with, literals and parameters of statements, columns of
//! results.

use std::collections::{HashMap, VecDeque};

use super::{
    Found, Redact, Redaction, STAR,
    held::{Head, Held},
    sql::{self, Dialect, within},
};
use crate::protocol::Side;

/// Bytes of a packet's length and number.
const HEAD: usize = 4;
/// Longest payload of a packet; a longer one goes on in the next.
const PACKET: usize = 0xff_ffff;
/// Statements whose secrets are remembered.
const STATEMENTS_LIMIT: usize = 4096;
/// Bytes of a login before the user's name: capabilities, longest packet, character set, filler.
const LOGIN_HEAD: usize = 32;
const SSL: u32 = 0x800;
/// CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA.
const PROOF_HAS_LENGTH: u32 = 0x8000 | 0x20_0000;
const DEPRECATE_EOF: u32 = 0x100_0000;
const TEXT_TYPES: [u8; 11] = [0x00, 0x0f, 0xf5, 0xf6, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];

/// Finds the secrets of a connection.
pub(super) struct MySql {
    rules: Redaction,
    client: Held,
    server: Held,
    phase: Phase,
    capabilities: u32,
    /// Parameters of statements by their numbers.
    statements: HashMap<u32, Vec<usize>>,
    asked: VecDeque<Asked>,
    reply: Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the client's first packet.
    Greeting,
    /// Up to the server's OK.
    Login,
    Commands,
}

/// What the server answers next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// A result, in rows of text.
    Query,
    /// A result, in binary rows.
    Execute,
    /// The statement's number.
    Prepare(Vec<usize>),
    /// Anything else.
    Other,
}

/// Where in an answer the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    First,
    /// Columns that still come, and which of those that came are secrets.
    Columns {
        left: u64,
        secret: Vec<bool>,
    },
    /// What ends the columns.
    ColumnsEnd(Vec<bool>),
    Rows(Vec<bool>),
    /// Descriptions after a prepared statement.
    Described {
        left: u64,
    },
}

impl MySql {
    pub(super) fn new(rules: Redaction) -> Self {
        Self {
            rules,
            client: Held::default(),
            server: Held::default(),
            phase: Phase::Greeting,
            capabilities: 0,
            statements: HashMap::new(),
            asked: VecDeque::new(),
            reply: Reply::First,
        }
    }

    fn client_packet(&mut self, packet: &mut [u8], found: &mut Found) {
        let payload = &mut packet[HEAD..];
        match self.phase {
            Phase::Greeting => {
                let flags = payload
                    .get(..4)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map_or(0, u32::from_le_bytes);
                self.capabilities = flags;
                if flags & SSL != 0 && payload.len() <= LOGIN_HEAD {
                    (self.client.is_other, self.server.is_other) = (true, true);
                    return;
                }
                self.phase = Phase::Login;
                // After the user's name comes what proves it; a schema's name may follow, and is lost with it.
                let user = payload.get(LOGIN_HEAD..).unwrap_or_default();
                let end = user
                    .iter()
                    .position(|byte| *byte == 0)
                    .map_or(payload.len(), |at| LOGIN_HEAD + at + 1);
                if flags & PROOF_HAS_LENGTH == 0 {
                    found.note(HEAD, "mysql", b"login");
                    payload[end..].fill(STAR);
                    return;
                }
                proof(&mut payload[end..], found);
            }
            Phase::Login => {
                found.note(HEAD, "mysql", b"login");
                payload.fill(STAR);
            }
            Phase::Commands => self.command(payload, found),
        }
    }

    fn command(&mut self, payload: &mut [u8], found: &mut Found) {
        let Some((kind, rest)) = payload.split_first_mut() else {
            return;
        };
        let rules = &self.rules;
        let mask =
            |text: &mut [u8], found: &mut Found| sql::mask(text, HEAD + 1, Dialect::MySql, rules, found);
        let asked = match *kind {
            0x03 => {
                mask(rest, found);
                Asked::Query
            }
            0x16 => Asked::Prepare(mask(rest, found).parameters),
            0x17 => {
                self.execute(rest, found);
                Asked::Execute
            }
            // COM_CHANGE_USER logs in anew.
            0x11 => {
                found.note(HEAD, "mysql", b"login");
                let user = rest
                    .iter()
                    .position(|byte| *byte == 0)
                    .map_or(rest.len(), |at| at + 1);
                rest[user..].fill(STAR);
                self.phase = Phase::Login;
                Asked::Other
            }
            // COM_STMT_SEND_LONG_DATA: of which parameter is told; it has no answer, as closing has none.
            0x18 => {
                let statement = number(rest, 0);
                let parameter = rest
                    .get(4..6)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map_or(0, u16::from_le_bytes);
                let secret = self.statements.get(&statement);
                if secret.is_some_and(|secret| secret.contains(&usize::from(parameter))) {
                    rest.iter_mut().skip(6).for_each(|byte| *byte = STAR);
                }
                return;
            }
            0x19 | 0x01 => return,
            _ => Asked::Other,
        };
        self.asked.push_back(asked);
        self.asked.truncate(STATEMENTS_LIMIT);
    }

    /// Values of a statement with secret parameters: those of text, or all where it cannot be told which is which.
    fn execute(&self, rest: &mut [u8], found: &mut Found) {
        let secret = self.statements.get(&number(rest, 0)).cloned().unwrap_or_default();
        if secret.is_empty() {
            return;
        }
        found.note(HEAD, "sql", b"parameter");
        // Number, flags, iterations; then a bit for each NULL, and types where they are sent anew. How many there are
        // was said by the answer to the preparing, of which no more is kept: the values are masked from the end of
        // what is needed to read their types.
        let values = rest.iter_mut().skip(9);
        values
            .filter(|byte| byte.is_ascii_graphic())
            .for_each(|byte| *byte = STAR);
    }

    fn server_packet(&mut self, packet: &mut [u8], found: &mut Found) {
        let payload = &mut packet[HEAD..];
        let first = payload.first().copied().unwrap_or(0);
        match self.phase {
            Phase::Greeting => return,
            Phase::Login => {
                match first {
                    0x00 => (self.phase, self.reply) = (Phase::Commands, Reply::First),
                    // More to prove; a challenge is no secret.
                    0x01 | 0xfe => {}
                    _ => {}
                }
                if first == 0 {
                    self.asked.clear();
                }
                return;
            }
            Phase::Commands => {}
        }
        let is_end = first == 0xfe && payload.len() < 9;
        let is_error = first == 0xff;
        if is_error {
            sql::mask(payload, HEAD, Dialect::MySql, &self.rules, found);
        }
        let has_ends = self.capabilities & DEPRECATE_EOF == 0;
        let asked = self.asked.front().cloned().unwrap_or(Asked::Other);
        let reply = std::mem::replace(&mut self.reply, Reply::First);
        self.reply = match (reply, asked) {
            _ if is_error => self.answered(),
            (Reply::First, Asked::Query | Asked::Execute) => match first {
                // OK, or a file that is wanted.
                0x00 | 0xfb => self.answered(),
                _ => Reply::Columns {
                    left: u64::from(first),
                    secret: Vec::new(),
                },
            },
            (Reply::First, Asked::Prepare(parameters)) => {
                let statement = number(payload, 1);
                if !parameters.is_empty() && self.statements.len() < STATEMENTS_LIMIT {
                    self.statements.insert(statement, parameters);
                } else {
                    self.statements.remove(&statement);
                }
                let count = |at: usize| {
                    payload
                        .get(at..at + 2)
                        .and_then(|bytes| bytes.try_into().ok())
                        .map_or(0, u16::from_le_bytes)
                };
                let (columns, parameters) = (u64::from(count(5)), u64::from(count(7)));
                let ends = |count: u64| u64::from(has_ends && count > 0);
                let left = columns + ends(columns) + parameters + ends(parameters);
                if left == 0 {
                    self.answered()
                } else {
                    Reply::Described { left }
                }
            }
            (Reply::First, Asked::Other) => self.answered(),
            (Reply::Columns { left, mut secret }, _) => {
                secret.push(self.is_secret_column(payload));
                match left.saturating_sub(1) {
                    0 if has_ends => Reply::ColumnsEnd(secret),
                    0 => Reply::Rows(secret),
                    left => Reply::Columns { left, secret },
                }
            }
            (Reply::ColumnsEnd(secret), _) => Reply::Rows(secret),
            (Reply::Rows(_), _) if is_end => self.answered(),
            (Reply::Rows(secret), asked) => {
                if asked == Asked::Execute {
                    if secret.contains(&true) {
                        found.note(HEAD, "sql", b"column");
                        payload
                            .iter_mut()
                            .skip(1)
                            .filter(|byte| byte.is_ascii_graphic())
                            .for_each(|byte| *byte = STAR);
                    }
                } else {
                    self.row(payload, &secret, found);
                }
                Reply::Rows(secret)
            }
            (Reply::Described { left }, _) => match left - 1 {
                0 => self.answered(),
                left => Reply::Described { left },
            },
        };
    }

    fn answered(&mut self) -> Reply {
        self.asked.pop_front();
        Reply::First
    }

    /// By the name that the result gives it, and by its own.
    fn is_secret_column(&self, payload: &[u8]) -> bool {
        let mut at = 0;
        let mut texts = Vec::new();
        // Catalogue, schema, table, its own name, column, its own name.
        for _ in 0..6 {
            let Some((from, to)) = text(payload, at) else {
                return false;
            };
            texts.push(&payload[from..to]);
            at = to;
        }
        let is_text = payload.get(at + 7).is_none_or(|kind| TEXT_TYPES.contains(kind));
        is_text && texts[4..].iter().any(|name| self.rules.is_secret_field(name))
    }

    fn row(&self, payload: &mut [u8], secret: &[bool], found: &mut Found) {
        let mut at = 0;
        for is_secret in secret {
            if payload.get(at) == Some(&0xfb) {
                at += 1;
                continue;
            }
            let Some((from, to)) = text(payload, at) else {
                return;
            };
            let value = &mut payload[from..to];
            if *is_secret {
                found.note(HEAD + from, "sql", b"column");
                value.fill(STAR);
            } else {
                within(value, HEAD + from, &self.rules, found);
            }
            at = to;
        }
    }
}

impl Redact for MySql {
    fn take(&mut self, from: Side, bytes: &[u8], out: &mut Vec<u8>, found: &mut Found) {
        let mut held = std::mem::take(match from {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        });
        held.take(bytes, out, head, found, |packet, found| match from {
            Side::Client => self.client_packet(packet, found),
            Side::Server => self.server_packet(packet, found),
        });
        let kept = match from {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        held.is_other |= kept.is_other;
        *kept = held;
    }

    fn gap(&mut self, from: Side, count: u64) -> bool {
        match from {
            Side::Client => self.client.gap(count),
            Side::Server => self.server.gap(count),
        }
    }

    fn end(&mut self, from: Side, out: &mut Vec<u8>) {
        match from {
            Side::Client => self.client.end(HEAD + 1, out),
            Side::Server => self.server.end(HEAD + 1, out),
        }
    }
}

fn head(bytes: &[u8]) -> Head {
    let Some(bytes) = bytes.get(..HEAD) else {
        return Head::More;
    };
    let length = usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16;
    Head::Message {
        length: (HEAD + length.min(PACKET)) as u64,
        mask_after: HEAD + 1,
    }
}

/// What proves who the user is, and what follows it.
fn proof(bytes: &mut [u8], found: &mut Found) {
    let Some((length, rest)) = bytes.split_first_mut() else {
        return;
    };
    let length = usize::from(*length).min(rest.len());
    if length > 0 {
        found.note(HEAD, "mysql", b"login");
    }
    rest[..length].fill(STAR);
}

/// Where a text with its length before it is; short lengths, and those of two and three bytes.
fn text(payload: &[u8], at: usize) -> Option<(usize, usize)> {
    let (head, length) = match *payload.get(at)? {
        0xfc => (
            3,
            usize::from(*payload.get(at + 1)?) | usize::from(*payload.get(at + 2)?) << 8,
        ),
        0xfd => {
            let bytes = payload.get(at + 1..at + 4)?;
            (
                4,
                usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16,
            )
        }
        length @ 0..=0xfa => (1, usize::from(length)),
        _ => return None,
    };
    let from = at + head;
    let to = from + length;
    (to <= payload.len()).then_some((from, to))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_le_bytes)
}
