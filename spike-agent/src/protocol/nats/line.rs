//! Lines of words, and heads of messages.

use super::{Side, Step, Trace};

/// Longest line: a server describes a whole cluster in one.
const LINE_LIMIT: usize = 48 * 1024;
/// Longest subject.
const SUBJECT_LIMIT: usize = 4 * 1024;

pub(super) enum Line<'a> {
    Info { tls: bool },
    Connect { verbose: bool },
    Ping,
    Pong,
    Ok,
    Error(&'a [u8]),
    Subscribe(&'a [u8]),
    Unsubscribe,
    Message(Sent<'a>),
}

pub(super) struct Sent<'a> {
    pub(super) subject: &'a [u8],
    pub(super) reply: Option<&'a [u8]>,
    /// Size of the headers.
    pub(super) headers: usize,
    /// Size of these and of what is behind them.
    pub(super) size: u64,
}

/// The line at the start of `bytes`, and its size.
pub(super) fn read(from: Side, bytes: &[u8]) -> Result<(Line<'_>, usize), Step> {
    let size = match bytes.iter().take(LINE_LIMIT).position(|b| *b == b'\n') {
        Some(end) => end + 1,
        None if bytes.len() < LINE_LIMIT => return Err(Step::More),
        None => return Err(Step::Lost),
    };
    let line = bytes[..size].strip_suffix(b"\r\n").ok_or(Step::Lost)?;
    parse(from, line).map(|line| (line, size)).ok_or(Step::Lost)
}

fn parse(from: Side, line: &[u8]) -> Option<Line<'_>> {
    let end = line
        .iter()
        .position(|b| matches!(b, b' ' | b'\t'))
        .unwrap_or(line.len());
    let (word, rest) = (line[..end].to_ascii_uppercase(), line[end..].trim_ascii());
    let mut words = rest
        .split(|b| matches!(b, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    Some(match (&*word, from) {
        (b"PING", _) => Line::Ping,
        (b"PONG", _) => Line::Pong,
        (b"INFO", Side::Server) if rest.starts_with(b"{") => Line::Info {
            tls: has(rest, b"\"tls_required\":true"),
        },
        (b"+OK", Side::Server) => Line::Ok,
        (b"-ERR", Side::Server) => Line::Error(rest),
        (b"CONNECT", Side::Client) if rest.starts_with(b"{") => Line::Connect {
            verbose: has(rest, b"\"verbose\":true") || has(rest, b"\"verbose\": true"),
        },
        (b"SUB", Side::Client) => Line::Subscribe(subject(words.next()?)?),
        (b"UNSUB", Side::Client) => Line::Unsubscribe,
        (b"PUB", Side::Client) => Line::Message(sent(words, 1)?),
        (b"HPUB", Side::Client) => Line::Message(sent(words, 2)?),
        (b"MSG", Side::Server) => Line::Message(sent(without_id(words)?, 1)?),
        (b"HMSG", Side::Server) => Line::Message(sent(without_id(words)?, 2)?),
        _ => return None,
    })
}

/// A delivery's words but for the second, which is the number of the subscription.
fn without_id<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<impl Iterator<Item = &'a [u8]>> {
    let subject = words.next()?;
    words.next()?;
    Some(std::iter::once(subject).chain(words))
}

/// A subject, perhaps one for the reply, and sizes.
fn sent<'a>(words: impl Iterator<Item = &'a [u8]>, sizes: usize) -> Option<Sent<'a>> {
    let words: Vec<_> = words.take(5).collect();
    let (subject_, rest) = words.split_first()?;
    let (reply, rest) = match rest.len().checked_sub(sizes)? {
        0 => (None, rest),
        1 => (Some(subject(rest[0])?), &rest[1..]),
        _ => return None,
    };
    let number = |word: &&[u8]| str::from_utf8(word).ok()?.parse::<u64>().ok();
    let size = rest.last().and_then(number)?;
    let headers = if sizes == 2 {
        rest.first().and_then(number)?
    } else {
        0
    };
    (headers <= size).then_some(Sent {
        subject: subject(subject_)?,
        reply,
        headers: usize::try_from(headers).ok()?,
        size,
    })
}

fn subject(word: &[u8]) -> Option<&[u8]> {
    let valid = |b: &u8| b.is_ascii_graphic() || *b >= 0x80;
    (word.len() <= SUBJECT_LIMIT && word.iter().all(valid)).then_some(word)
}

/// What a message's headers say of how it went, by number, and the trace that it belongs to.
pub(super) fn headers(headers: &[u8]) -> (Option<String>, Option<Trace>) {
    let mut lines = headers.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let code = lines.next().and_then(|first| first.strip_prefix(b"NATS/1.0"));
    let mut code = code.map(<[u8]>::trim_ascii).and_then(code_of);
    let mut trace = None;
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"traceparent") {
            trace = Trace::parse(value);
        } else if name.eq_ignore_ascii_case(b"Nats-Service-Error-Code") {
            code = code_of(value);
        }
    }
    (code, trace)
}

fn code_of(text: &[u8]) -> Option<String> {
    let code = text.split(|b| *b == b' ').next()?;
    let number = (1..=5).contains(&code.len()) && code.iter().all(u8::is_ascii_digit);
    number.then(|| String::from_utf8_lossy(code).into_owned())
}

/// Nobody is there to answer, or what answered could not.
pub(super) fn is_failure(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| code >= 500)
}

/// An error's text, without the names in it.
pub(super) fn error(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).trim_matches('\'').to_owned();
    let end = text.find(['"', ':']).unwrap_or(text.len());
    let end = text[..end].find(" for ").unwrap_or(end);
    text[..end].trim().to_owned()
}

/// Whether the server closes the connection behind it.
pub(super) fn is_fatal(error: &str) -> bool {
    !error.starts_with("Permissions Violation") && !error.starts_with("Invalid ")
}

fn has(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}
