//! Secrets in Redis' RESP2 and RESP3: of `AUTH` and its relatives, and values by the names of keys and fields.

use std::collections::VecDeque;

use super::{Found, Redact, Redaction, STAR, json::Json};
use crate::protocol::Side;

/// Longest line that is not a value.
const LINE_LIMIT: usize = 64 << 10;
/// Bytes kept of arguments, to know what the next one is.
const WORD_LIMIT: usize = 128;
/// Requests in flight whose answers are waited for.
const ASKED_LIMIT: usize = 4096;
/// Levels of answers within answers.
const DEPTH_LIMIT: usize = 32;

/// Finds the secrets of a connection.
pub(super) struct Redis {
    rules: Redaction,
    request: Stream,
    response: Stream,
    /// Of the command that comes.
    arguments: Vec<Vec<u8>>,
    /// How answers are to be looked at.
    asked: VecDeque<Answer>,
    /// Elements that still come, and how many have, of each level.
    levels: Vec<(u64, u64)>,
    /// Before the last value of an answer with names.
    name: Vec<u8>,
}

/// Where a direction is.
#[derive(Default)]
struct Stream {
    part: Part,
    line: Vec<u8>,
    /// Arguments of a command that still come.
    left: u64,
    /// It is something else: left alone.
    is_lost: bool,
}

#[derive(Default)]
enum Part {
    #[default]
    Line,
    /// Bytes of a value that still come, then its line end.
    Value {
        left: u64,
        look: Look,
        word: Vec<u8>,
    },
    End,
}

/// How a value is looked at.
enum Look {
    Secret,
    /// All but its first byte, where that says that it is one (`ACL SETUSER`).
    Marked,
    /// For JSON in it, once it has begun.
    Open(Option<Json>),
}

/// How an answer is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Open,
    Secret,
    /// Names and values in turn.
    Named,
}

impl Redis {
    pub(super) fn new(rules: Redaction) -> Self {
        Self {
            rules,
            request: Stream::default(),
            response: Stream::default(),
            arguments: Vec::new(),
            asked: VecDeque::new(),
            levels: Vec::new(),
            name: Vec::new(),
        }
    }

    /// How the argument that comes is looked at.
    fn argument(&self) -> Look {
        let open = Look::Open(None);
        let at = self.arguments.len();
        let upper = |index: usize| self.arguments.get(index).map(|word| word.to_ascii_uppercase());
        let secret = |index: usize| {
            let word = self.arguments.get(index);
            word.is_some_and(|word| self.rules.is_secret_field(word))
        };
        let Some(command) = upper(0) else { return open };
        let is = |index: usize, word: &[u8]| upper(index).as_deref() == Some(word);
        let is_secret = match &*command {
            b"AUTH" => true,
            b"HELLO" => at >= 4 && is(at - 2, b"AUTH"),
            b"MIGRATE" => (at >= 2 && is(at - 1, b"AUTH")) || (at >= 3 && is(at - 2, b"AUTH2")),
            b"CONFIG" => {
                at >= 3
                    && is(1, b"SET")
                    && (secret(at - 1) || is(at - 1, b"REQUIREPASS") || is(at - 1, b"MASTERAUTH"))
            }
            b"ACL" if at >= 3 && is(1, b"SETUSER") => return Look::Marked,
            b"SET" | b"GETSET" | b"SETNX" | b"APPEND" => at == 2 && secret(1),
            b"SETEX" | b"PSETEX" | b"SETRANGE" => at == 3 && secret(1),
            b"LPUSH" | b"RPUSH" | b"SADD" => at >= 2 && secret(1),
            b"MSET" | b"MSETNX" => at >= 2 && at.is_multiple_of(2) && secret(at - 1),
            b"HSET" | b"HMSET" | b"HSETNX" | b"XADD" => {
                at >= 3 && secret(at - 1) || at >= 3 && at % 2 == 1 && secret(1)
            }
            _ => false,
        };
        if is_secret { Look::Secret } else { open }
    }

    /// How the answer to the command is looked at.
    fn answer(&self) -> Answer {
        let secret = |word: &Vec<u8>| self.rules.is_secret_field(word);
        let Some(command) = self.arguments.first().map(|word| word.to_ascii_uppercase()) else {
            return Answer::Open;
        };
        let rest = &self.arguments[1..];
        match &*command {
            b"GET" | b"GETDEL" | b"GETEX" | b"GETSET" | b"MGET" | b"HGET" | b"HMGET" | b"LRANGE"
            | b"SMEMBERS" | b"HVALS" | b"LPOP" | b"RPOP"
                if rest.iter().any(secret) =>
            {
                Answer::Secret
            }
            b"SET" if rest.first().is_some_and(secret) => Answer::Open,
            b"HGETALL" if rest.first().is_some_and(secret) => Answer::Secret,
            b"HGETALL" | b"CONFIG" => Answer::Named,
            b"ACL" => Answer::Secret,
            _ => Answer::Open,
        }
    }

    fn request_byte(&mut self, byte: &mut u8, at: usize, found: &mut Found) {
        match &mut self.request.part {
            Part::Line => {
                if *byte != b'\n' {
                    self.inline(byte, at, found);
                    return;
                }
                let line = std::mem::take(&mut self.request.line);
                let line = line.trim_ascii_end();
                match (line.first(), number(line)) {
                    (Some(b'*'), Some(count)) => {
                        self.request.left = count;
                        self.arguments.clear();
                    }
                    (Some(b'$'), Some(length)) => {
                        let look = self.argument();
                        if matches!(look, Look::Secret) {
                            let name = self.arguments.first().cloned().unwrap_or_default();
                            found.note(at, "redis", &name);
                        }
                        self.request.part = Part::value(length, look);
                        if length == 0 {
                            self.argument_ended(Vec::new());
                        }
                    }
                    (None, _) => {}
                    // An inline command: one line.
                    _ => {
                        let words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
                        self.arguments = words.map(<[u8]>::to_vec).collect();
                        self.asked();
                    }
                }
            }
            Part::Value { left, look, word } => {
                if word.len() < WORD_LIMIT {
                    word.push(*byte);
                }
                look.byte(byte, at, word.len() == 1, &self.rules, found);
                *left -= 1;
                if *left == 0 {
                    let word = std::mem::take(word);
                    self.argument_ended(word);
                }
            }
            Part::End => self.request.end_byte(*byte),
        }
    }

    /// Of an inline `AUTH`, all that follows is secret.
    fn inline(&mut self, byte: &mut u8, at: usize, found: &mut Found) {
        let line = &mut self.request.line;
        if line.len() >= LINE_LIMIT {
            self.request.is_lost = true;
            return;
        }
        line.push(*byte);
        let word = line.trim_ascii_start();
        let is_auth = word.len() > 5 && word[..5].eq_ignore_ascii_case(b"auth ");
        if is_auth && !byte.is_ascii_whitespace() {
            if word.len() == 6 {
                found.note(at, "redis", b"auth");
            }
            *byte = STAR;
        }
    }

    fn argument_ended(&mut self, word: Vec<u8>) {
        self.request.part = Part::End;
        self.arguments.push(word);
        self.request.left = self.request.left.saturating_sub(1);
        if self.request.left == 0 {
            self.asked();
            self.arguments.clear();
        }
    }

    fn asked(&mut self) {
        if self.asked.len() < ASKED_LIMIT {
            self.asked.push_back(self.answer());
        }
    }

    fn response_byte(&mut self, byte: &mut u8, at: usize, found: &mut Found) {
        match &mut self.response.part {
            Part::Line => {
                if *byte != b'\n' {
                    if self.response.line.len() < LINE_LIMIT {
                        self.response.line.push(*byte);
                    } else {
                        self.response.is_lost = true;
                    }
                    return;
                }
                let line = std::mem::take(&mut self.response.line);
                self.response_line(line.trim_ascii_end(), at, found);
            }
            Part::Value { left, look, word } => {
                if word.len() < WORD_LIMIT {
                    word.push(*byte);
                }
                look.byte(byte, at, false, &self.rules, found);
                *left -= 1;
                if *left == 0 {
                    self.name = std::mem::take(word);
                    self.response.part = Part::End;
                    self.element_ended();
                }
            }
            Part::End => self.response.end_byte(*byte),
        }
    }

    fn response_line(&mut self, line: &[u8], at: usize, found: &mut Found) {
        match (line.first(), number(line)) {
            (Some(b'*' | b'~' | b'>'), Some(count)) => self.level(count),
            (Some(b'%'), Some(count)) => self.level(count.saturating_mul(2)),
            // An attribute stands before its answer.
            (Some(b'|'), Some(count)) => self.level(count.saturating_mul(2).saturating_add(1)),
            (Some(b'$' | b'=' | b'!'), Some(length)) => {
                let look = self.element();
                if matches!(look, Look::Secret) {
                    found.note(at, "redis", b"answer");
                }
                self.response.part = Part::value(length, look);
                if length == 0 {
                    self.name.clear();
                    self.element_ended();
                }
            }
            (Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' | b'$' | b'*'), _) => {
                self.name = line[1..].to_vec();
                self.element_ended();
            }
            _ => self.response.is_lost = true,
        }
    }

    /// How the value that comes is looked at.
    fn element(&self) -> Look {
        let answer = self.asked.front().copied().unwrap_or(Answer::Open);
        let is_value = self.levels.last().is_some_and(|(_, had)| had % 2 == 1);
        match answer {
            Answer::Secret => Look::Secret,
            Answer::Named if is_value && self.rules.is_secret_field(&self.name) => Look::Secret,
            Answer::Named if is_value && (self.name == b"requirepass" || self.name == b"masterauth") => {
                Look::Secret
            }
            Answer::Named | Answer::Open => Look::Open(None),
        }
    }

    fn level(&mut self, count: u64) {
        if count == 0 {
            self.element_ended();
        } else if self.levels.len() >= DEPTH_LIMIT {
            self.response.is_lost = true;
        } else {
            self.levels.push((count, 0));
        }
    }

    fn element_ended(&mut self) {
        while let Some((left, had)) = self.levels.last_mut() {
            (*left, *had) = (*left - 1, *had + 1);
            if *left > 0 {
                return;
            }
            self.levels.pop();
        }
        self.asked.pop_front();
    }
}

impl Redact for Redis {
    fn take(&mut self, from: Side, bytes: &[u8], out: &mut Vec<u8>, found: &mut Found) {
        let start = out.len();
        out.extend_from_slice(bytes);
        for (at, byte) in out[start..].iter_mut().enumerate() {
            match from {
                Side::Client if !self.request.is_lost => self.request_byte(byte, at, found),
                Side::Server if !self.response.is_lost => self.response_byte(byte, at, found),
                _ => return,
            }
        }
    }

    fn gap(&mut self, from: Side, count: u64) -> bool {
        let stream = match from {
            Side::Client => &mut self.request,
            Side::Server => &mut self.response,
        };
        match &mut stream.part {
            // One byte is left, so that the value ends as it should.
            Part::Value {
                left,
                look: Look::Open(None) | Look::Secret,
                ..
            } if count < *left => {
                *left -= count;
                true
            }
            _ => stream.is_lost,
        }
    }
}

impl Stream {
    fn end_byte(&mut self, byte: u8) {
        if byte == b'\n' {
            self.part = Part::Line;
        }
    }
}

impl Part {
    fn value(length: u64, look: Look) -> Self {
        if length == 0 {
            return Self::End;
        }
        Self::Value {
            left: length,
            look,
            word: Vec::new(),
        }
    }
}

impl Look {
    fn byte(&mut self, byte: &mut u8, at: usize, is_first: bool, rules: &Redaction, found: &mut Found) {
        match self {
            Self::Secret => *byte = STAR,
            Self::Marked => {
                *self = if is_first && matches!(*byte, b'>' | b'<' | b'#' | b'!') {
                    found.note(at, "redis", b"acl");
                    Self::Secret
                } else {
                    Self::Open(None)
                };
            }
            Self::Open(Some(json)) => json.byte(byte, at, rules, found),
            Self::Open(json) => {
                if matches!(*byte, b'{' | b'[' | b'"') {
                    let mut begun = Json::default();
                    begun.byte(byte, at, rules, found);
                    *json = Some(begun);
                }
            }
        }
    }
}

/// The number after a type's mark; none where there is none, as in `$-1`.
fn number(line: &[u8]) -> Option<u64> {
    str::from_utf8(line.get(1..)?).ok()?.parse().ok()
}
