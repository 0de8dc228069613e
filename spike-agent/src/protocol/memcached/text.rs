//! Lines of words, with data behind some of them; the meta commands, too.

use super::{MANY, Messages, Step, Verdict};
use crate::protocol::{Key::Order, Request, fold};

/// Longest line of a command; servers take 2 KiB, and more of a `get` of many keys.
const COMMAND_LIMIT: usize = 48 * 1024;
/// Longest line of a reply.
const REPLY_LIMIT: usize = 8 * 1024;
/// Longest key.
const KEY_LIMIT: usize = 250;

/// Commands, and which of their words is a key; data comes behind those with a size.
const COMMANDS: [(&str, Shape); 29] = [
    ("get", Shape::Key(1)),
    ("gets", Shape::Key(1)),
    ("gat", Shape::Key(2)),
    ("gats", Shape::Key(2)),
    ("set", Shape::Data(4)),
    ("add", Shape::Data(4)),
    ("replace", Shape::Data(4)),
    ("append", Shape::Data(4)),
    ("prepend", Shape::Data(4)),
    ("cas", Shape::Data(4)),
    ("delete", Shape::Key(1)),
    ("incr", Shape::Key(1)),
    ("decr", Shape::Key(1)),
    ("touch", Shape::Key(1)),
    ("mg", Shape::Key(1)),
    ("ms", Shape::Data(2)),
    ("md", Shape::Key(1)),
    ("ma", Shape::Key(1)),
    ("me", Shape::Key(1)),
    ("mn", Shape::Other),
    ("stats", Shape::Other),
    ("version", Shape::Other),
    ("verbosity", Shape::Other),
    ("flush_all", Shape::Other),
    ("cache_memlimit", Shape::Other),
    ("slabs", Shape::Other),
    ("lru", Shape::Other),
    ("lru_crawler", Shape::Other),
    ("quit", Shape::Other),
];
/// What only a server of Memcached says.
const REPLIES: [&str; 17] = [
    "VALUE",
    "END",
    "STORED",
    "NOT_STORED",
    "EXISTS",
    "NOT_FOUND",
    "DELETED",
    "TOUCHED",
    "STAT",
    "VERSION",
    "HD",
    "VA",
    "EN",
    "NF",
    "NS",
    "EX",
    "MN",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// The word that is the key.
    Key(usize),
    /// The word that is the size of the data; the first one is the key.
    Data(usize),
    Other,
}

#[derive(Default)]
pub(super) struct Text {
    /// After a meta command that may or may not be answered, until `mn` shows where the answers of those end.
    quiet: bool,
    /// Commands that have an answer.
    sent: u64,
    answered: u64,
    /// Up to this answer an error may be that of a command that asked for none.
    doubtful: u64,
    /// Values of the answer have come.
    listed: bool,
}

struct Command<'a> {
    name: &'static str,
    key: Option<&'a str>,
    data: Option<u64>,
    /// It asked for no answer, and gets one only if it fails.
    no_reply: bool,
    quiet: bool,
}

impl Text {
    pub(super) fn command(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let line = match line(bytes, COMMAND_LIMIT) {
            Ok(line) => line,
            Err(step) => return step,
        };
        let Some(command) = read(line) else {
            return Step::Lost;
        };
        let key = command.key.map_or_else(String::new, fold::key);
        messages.request(Order, Request::new(command.name, key));
        if command.name == "mn" {
            self.quiet = false;
        }
        self.quiet |= command.quiet;
        if command.no_reply || self.quiet || command.name == "quit" {
            messages.no_response(Order);
        } else {
            self.sent += 1;
        }
        if command.no_reply {
            self.doubtful = self.sent + 1;
        }
        messages.request_end(Order);
        let skip = command.data.map_or(0, |size| size.saturating_add(2));
        Step::Took {
            bytes: line.len(),
            skip,
        }
    }

    pub(super) fn reply(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let line = match line(bytes, REPLY_LIMIT) {
            Ok(line) => line,
            Err(step) => return step,
        };
        let Some(mut words) = words(line) else {
            return Step::Lost;
        };
        let word = words.next().unwrap_or_default();
        let failed = matches!(word, "ERROR" | "CLIENT_ERROR" | "SERVER_ERROR");
        if failed && self.answered < self.doubtful {
            return Step::Lost;
        }
        let data = match word {
            "VALUE" => words.nth(2),
            "VA" => words.next(),
            _ => None,
        };
        let Ok(data) = data.map(str::parse::<u64>).transpose() else {
            return Step::Lost;
        };
        let step = Step::Took {
            bytes: line.len(),
            skip: data.map_or(0, |size| size.saturating_add(2)),
        };
        // Of a quiet command.
        let asked = messages.asked();
        if word != "MN" && (asked == Some("mn") || self.quiet && asked.is_none()) {
            return step;
        }
        messages.response(Order);
        let goes_on = matches!(word, "VALUE" | "STAT" | "ITEM");
        if word == "END" && self.listed {
            // It says no more than that this was all.
        } else if word.starts_with(|c: char| c.is_ascii_digit()) {
            messages.status(Order, "OK", false);
        } else {
            messages.status(Order, word, failed);
        }
        self.listed = goes_on;
        if !goes_on {
            self.answered += 1;
            messages.response_end(Order);
        }
        step
    }
}

fn read(line: &[u8]) -> Option<Command<'_>> {
    let mut words = words(line)?;
    let name = words.next()?;
    let (name, shape) = *COMMANDS.iter().find(|(known, _)| *known == name)?;
    let mut rest = words.clone();
    let (key, data) = match shape {
        Shape::Key(place) => (Some(rest.nth(place - 1)?), None),
        Shape::Data(place) => {
            let key = rest.next()?;
            // In the first versions `ms` had `S` before the size.
            let size = rest.nth(place - 2)?.trim_start_matches('S');
            (Some(key), Some(size.parse().ok()?))
        }
        Shape::Other => (None, None),
    };
    if key.is_some_and(|key| key.len() > KEY_LIMIT) {
        return None;
    }
    let meta = matches!(name, "mg" | "ms" | "md" | "ma");
    Some(Command {
        name,
        key,
        data,
        no_reply: !meta && words.clone().last() == Some("noreply") && !name.starts_with("ga"),
        quiet: meta && rest.any(|flag| flag == "q"),
    })
}

/// Whether `bytes` are commands, with their data, from beginning to end, or many.
pub(super) fn are_commands(mut bytes: &[u8]) -> bool {
    for _ in 0..MANY {
        if bytes.is_empty() {
            break;
        }
        let Ok(line) = line(bytes, COMMAND_LIMIT) else {
            return false;
        };
        let Some(command) = read(line) else {
            return false;
        };
        let data = command
            .data
            .map_or(Some(0), |size| usize::try_from(size).ok()?.checked_add(2));
        match data.and_then(|size| bytes.get(line.len().checked_add(size)?..)) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    true
}

pub(super) fn detect_command(bytes: &[u8]) -> Verdict {
    match line(bytes, COMMAND_LIMIT) {
        Ok(line) => match read(line) {
            // Others have a `get` of a key, too.
            Some(command) if command.data.is_some() => Verdict::Yes,
            Some(_) => Verdict::Maybe,
            None => Verdict::No,
        },
        Err(Step::More) => {
            let word = bytes
                .split(|b| matches!(b, b' ' | b'\r'))
                .next()
                .unwrap_or_default();
            let begins = |(name, _): &(&str, Shape)| match word.len() == bytes.len() {
                true => name.as_bytes().starts_with(word),
                false => name.as_bytes() == word,
            };
            match COMMANDS.iter().any(begins) {
                true => Verdict::Maybe,
                false => Verdict::No,
            }
        }
        Err(_) => Verdict::No,
    }
}

pub(super) fn detect_reply(bytes: &[u8]) -> Verdict {
    let end = bytes.iter().position(|b| matches!(b, b' ' | b'\r'));
    let word = &bytes[..end.unwrap_or(bytes.len())];
    let known = |reply: &str| match end {
        Some(_) => reply.as_bytes() == word,
        None => reply.as_bytes().starts_with(word),
    };
    if REPLIES.iter().any(|reply| known(reply)) {
        return if end.is_some() {
            Verdict::Yes
        } else {
            Verdict::Maybe
        };
    }
    // Others say these, too.
    let errors = ["ERROR", "CLIENT_ERROR", "SERVER_ERROR", "OK"];
    let number = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    match number || errors.iter().any(|reply| known(reply)) {
        true => Verdict::Maybe,
        false => Verdict::No,
    }
}

/// The first line with its end, or what to answer if there is none.
fn line(bytes: &[u8], limit: usize) -> Result<&[u8], Step> {
    match bytes.iter().take(limit).position(|b| *b == b'\n') {
        Some(end) => Ok(&bytes[..=end]),
        None if bytes.len() < limit => Err(Step::More),
        None => Err(Step::Lost),
    }
}

fn words(line: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    str::from_utf8(line).ok().map(str::split_ascii_whitespace)
}
