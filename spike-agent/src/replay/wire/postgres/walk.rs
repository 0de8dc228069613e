//! Goes through what a client asks, and says by what each message is found; the same for a recording and a live client.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    message::{Bound, Start, body, frame, names, start, text},
    rounds::rounds,
};
use crate::replay::{
    exchange::Talk,
    parts::{Parts, add_body, add_statement, text_of},
    wire::Recorded,
};

/// What has been said on a connection, as far as later messages mean it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Text of each prepared statement, by its name.
    statements: HashMap<String, String>,
    /// What each portal executes, by its name.
    portals: HashMap<String, Bound>,
}

/// A client's message that is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// As it is shown.
    pub label: String,
    /// The same for all of its kind.
    pub kind: String,
    /// What it says.
    pub parts: Parts,
}

impl State {
    /// Takes a message of the client in; tells what is asked where the answer depends on it. Messages whose answer is
    /// always the same (`Parse`, `Bind`, `Close`, `Sync`) ask nothing.
    pub fn follow(&mut self, kind: u8, message: &[u8]) -> Option<Asked> {
        match kind {
            b'Q' => {
                let text = names(message, 1).pop().unwrap_or_default();
                Some(asked("query", &text, None))
            }
            b'P' => {
                let [name, text] = <[String; 2]>::try_from(names(message, 2)).ok()?;
                let asked = asked("parse", &text, None);
                self.statements.insert(name, text);
                // Its answer is always the same, unless the statement is wrong.
                Some(asked)
            }
            b'B' => {
                let bound = Bound::read(message)?;
                let asked = self.bound("bind", &bound);
                self.portals.insert(bound.portal.clone(), bound);
                Some(asked)
            }
            b'D' => {
                let (of, name) = body(message).split_first()?;
                let (name, _) = text(name)?;
                if *of == b'S' {
                    let text = self.statements.get(&name).cloned().unwrap_or_default();
                    Some(asked("describe", &text, None))
                } else {
                    let bound = self.portals.get(&name).cloned().unwrap_or_default();
                    let text = self.statements.get(&bound.statement).cloned().unwrap_or_default();
                    let mut asked = asked("describe portal", &text, None);
                    asked.parts.push("formats", formats(&bound.formats));
                    Some(asked)
                }
            }
            b'E' => {
                let (name, rest) = text(body(message))?;
                let bound = self.portals.get(&name).cloned().unwrap_or_default();
                let mut asked = self.bound("execute", &bound);
                let rows = rest.first_chunk().map_or(0, |rows| u32::from_be_bytes(*rows));
                asked.parts.push("rows", rows.to_string());
                Some(asked)
            }
            b'F' => Some(asked("function", &text_of(body(message)), None)),
            _ => None,
        }
    }

    fn bound(&self, what: &str, bound: &Bound) -> Asked {
        let text = self.statements.get(&bound.statement).cloned().unwrap_or_default();
        asked(what, &text, Some(bound))
    }
}

fn asked(what: &str, text: &str, bound: Option<&Bound>) -> Asked {
    let mut parts = Parts::default();
    parts.push("message", what);
    let skeleton = add_statement(&mut parts, text);
    if let Some(bound) = bound {
        for (number, value) in (1..).zip(&bound.values) {
            let name = format!("param.{number}");
            match value {
                None => parts.push(name, "NULL"),
                Some(value) if value.is_empty() => parts.push(name, ""),
                Some(value) => add_body(&mut parts, &name, None, value),
            }
        }
        parts.push("formats", formats(&bound.formats));
    }
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
    }
}

fn formats(formats: &[u8]) -> String {
    formats
        .iter()
        .skip(1)
        .step_by(2)
        .map(|format| char::from(b'0' + (format & 1)))
        .collect()
}

/// A client's message that waits for its answer.
struct Open {
    asked: Option<Asked>,
    range: std::ops::Range<usize>,
}

pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    let (client, server) = (recorded.client.bytes(), recorded.answers.bytes());
    let (mut at, mut told_at) = (0, 0);
    // The start of the connection, up to the first `ReadyForQuery`.
    loop {
        match start(&client[at..]) {
            Ok(Some((Start::Encrypt, size))) => {
                at += size;
                match server.get(told_at) {
                    Some(b'N') => told_at += 1,
                    _ => return talk.left_out.push("the connection is encrypted".to_owned()),
                }
            }
            Ok(Some((Start::Cancel, _))) => return,
            Ok(Some((Start::Connect(settings), size))) => {
                at += size;
                talk.login = settings;
                break;
            }
            Ok(None) => {
                return talk
                    .left_out
                    .push("a connection that was not begun to its end".to_owned());
            }
            Err(why) => return talk.left_out.push(why.to_owned()),
        }
    }
    let Some(greeting_end) = greeting(server, told_at, talk) else {
        return talk
            .left_out
            .push("a connection that the server did not take".to_owned());
    };
    told_at = greeting_end;
    talk.rounds = rounds(recorded, at, told_at);
    let mut state = State::default();
    let mut skipping = false;
    while at < client.len() {
        let (kind, size) = match frame(&client[at..]) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return talk
                    .left_out
                    .push("a message that was not sent to its end".to_owned());
            }
            Err(why) => return talk.left_out.push(why.to_owned()),
        };
        let range = at..at + size;
        at = range.end;
        let message = &client[range.clone()];
        let open = Open {
            asked: state.follow(kind, message),
            range,
        };
        // After an error all up to the next `Sync` is passed over.
        if skipping && kind != b'S' {
            continue;
        }
        let Some(end) = answer_end(server, told_at, kind) else {
            if !matches!(kind, b'p' | b'd' | b'c' | b'f' | b'H' | b'X') {
                let label = open.asked.map(|asked| asked.label).unwrap_or_default();
                return talk
                    .left_out
                    .push(format!("{label}: it was not answered to its end"));
            }
            continue;
        };
        let answer = told_at..end;
        told_at = end;
        let failed = server[answer.clone()].first() == Some(&b'E');
        skipping = kind != b'S' && kind != b'Q' && failed;
        let usual = matches!(kind, b'P' | b'B') && !failed;
        if let Some(asked) = open.asked.filter(|_| !usual) {
            add(recorded, talk, asked, open.range, answer);
        }
    }
}

fn add(
    recorded: &Recorded,
    talk: &mut Talk,
    asked: Asked,
    range: std::ops::Range<usize>,
    answer: std::ops::Range<usize>,
) {
    let parts = [asked.parts, row_parts(&recorded.answers.bytes()[answer.clone()])];
    let exchange = recorded.exchange([asked.label, asked.kind], parts, range, answer, false);
    talk.exchanges.push(exchange.into());
}

/// Keeps what the server says of itself; tells where that ends.
fn greeting(server: &Bytes, mut at: usize, talk: &mut Talk) -> Option<usize> {
    let mut kept = Vec::new();
    loop {
        let (kind, size) = frame(&server[at..]).ok().flatten()?;
        let message = &server[at..at + size];
        at += size;
        match kind {
            b'S' | b'K' => kept.extend_from_slice(message),
            b'Z' => {
                talk.greeting = kept.into();
                return Some(at);
            }
            b'E' => return None,
            _ => {}
        }
    }
}

/// Where the answer to a message of this type ends; none when it is not there, or the message has none.
pub(super) fn answer_end(server: &[u8], mut at: usize, asked: u8) -> Option<usize> {
    loop {
        let (kind, size) = frame(&server[at..]).ok().flatten()?;
        let end = at + size;
        at = end;
        let is_last = match asked {
            b'Q' | b'S' | b'F' => kind == b'Z',
            b'P' => matches!(kind, b'1' | b'E'),
            b'B' => matches!(kind, b'2' | b'E'),
            b'C' => matches!(kind, b'3' | b'E'),
            b'D' => matches!(kind, b'T' | b'n' | b'E'),
            b'E' => matches!(kind, b'C' | b'I' | b's' | b'E'),
            // Passwords, rows, the end, a flush.
            _ => return None,
        };
        if is_last {
            return Some(end);
        }
    }
}

/// Where the server has said that it is ready.
pub fn ready_at(bytes: &[u8]) -> Option<usize> {
    answer_end(bytes, 0, b'Q')
}

/// What an error says, for a person.
pub fn error_text(message: &[u8]) -> String {
    let parts = row_parts(message);
    parts.get("error.message").unwrap_or("an error").to_owned()
}

/// What an answer says: its rows, its end, its errors.
pub fn row_parts(mut bytes: &[u8]) -> Parts {
    let mut parts = Parts::default();
    let mut row = 0_usize;
    while let Ok(Some((kind, size))) = frame(bytes) {
        let content = body(&bytes[..size]);
        match kind {
            b'D' => {
                row += 1;
                let mut rest = content.get(2..).unwrap_or_default();
                let mut column = 0;
                while let Some((length, after)) = rest.split_first_chunk::<4>() {
                    column += 1;
                    let name = format!("row.{row}.{column}");
                    let length = usize::try_from(i32::from_be_bytes(*length)).ok();
                    let value = length.and_then(|length| after.get(..length));
                    match value {
                        Some(b"") => parts.push(name, ""),
                        Some(value) => add_body(&mut parts, &name, None, value),
                        None => parts.push(name, "NULL"),
                    }
                    rest = after.get(length.unwrap_or(0)..).unwrap_or_default();
                }
            }
            b'C' => parts.push("done", text(content).map_or_else(String::new, |(tag, _)| tag)),
            b'E' => {
                let mut fields = content;
                while let Some((field, rest)) = fields.split_first().filter(|(field, _)| **field != 0) {
                    let Some((value, rest)) = text(rest) else { break };
                    if matches!(field, b'C' | b'M') {
                        let name = if *field == b'C' {
                            "error.code"
                        } else {
                            "error.message"
                        };
                        parts.push(name, value);
                    }
                    fields = rest;
                }
            }
            b'T' => {
                let mut rest = content.get(2..).unwrap_or_default();
                let mut column = 0;
                while let Some((name, after)) = text(rest) {
                    column += 1;
                    parts.push(format!("column.{column}"), name);
                    rest = after.get(18..).unwrap_or_default();
                }
            }
            _ => {}
        }
        bytes = &bytes[size..];
    }
    parts
}
