//! HTTP/1.0 and 1.1: whole messages, however their bodies are framed (RFC 9112).

use std::time::Duration;

use super::Recorded;
use crate::{
    protocol::fold,
    replay::{
        exchange::{Answer, Exchange, Sent, Talk},
        parts::{Parts, add_body, add_pairs},
    },
};

/// More fields make a message unreadable.
const FIELDS_LIMIT: usize = 128;
/// Longest head of a message, in bytes.
const HEAD_LIMIT: usize = 256 << 10;
/// Fields that are about the connection or the framing, and say nothing.
const FRAMING: [&str; 8] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "te",
    "trailer",
    "upgrade",
    "proxy-connection",
];

/// A whole message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Of a request; empty for a response.
    pub method: String,
    /// Of a request: path and query.
    pub target: String,
    /// Of a response; 0 for a request.
    pub status: u16,
    /// In their order.
    pub headers: Vec<(String, String)>,
    /// Without the framing of chunks.
    pub body: Vec<u8>,
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the whole message.
    pub size: usize,
    /// The sender closes the connection after it.
    pub closes: bool,
}

/// What the start of some bytes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A whole message.
    Message(Box<Message>),
    /// A message whose rest is still to come; the head, once that is there.
    Part(Option<Box<Message>>),
    /// No message.
    Bad(&'static str),
}

/// How long a body is.
enum Framing {
    Size(usize),
    Chunked,
    ToTheEnd,
}

impl Message {
    /// The first value of a header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The path alone.
    pub fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap_or_default()
    }
}

/// Reads a request.
pub fn request(bytes: &[u8]) -> Read {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
    let mut head = httparse::Request::new(&mut fields);
    let size = match head.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => return Read::Part(None),
        Ok(httparse::Status::Partial) => return Read::Bad("its head is too long"),
        Err(_) => return Read::Bad("it is no request of HTTP/1"),
    };
    let mut message = Message {
        method: head.method.unwrap_or_default().to_owned(),
        target: path_of(head.path.unwrap_or_default()).to_owned(),
        headers: headers(head.headers),
        head: size,
        closes: head.version == Some(0),
        ..Message::default()
    };
    message.note_connection();
    match message.framing() {
        Some(None) => message.whole(bytes, Framing::Size(0), false),
        Some(Some(framing)) => message.whole(bytes, framing, false),
        None => Read::Bad("the length of its body is nonsense"),
    }
}

/// Reads a response to a request with this method. With `ended`, no more bytes will come.
pub fn response(bytes: &[u8], method: &str, ended: bool) -> Read {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
    let mut head = httparse::Response::new(&mut fields);
    let size = match head.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => return Read::Part(None),
        Ok(httparse::Status::Partial) => return Read::Bad("its head is too long"),
        Err(_) => return Read::Bad("it is no response of HTTP/1"),
    };
    let mut message = Message {
        status: head.code.unwrap_or_default(),
        headers: headers(head.headers),
        head: size,
        closes: head.version == Some(0),
        ..Message::default()
    };
    message.note_connection();
    let Some(framing) = message.framing() else {
        return Read::Bad("the length of its body is nonsense");
    };
    let code = message.status;
    let is_empty = method == "HEAD" || code == 204 || code == 304 || (100..200).contains(&code);
    let tunnels = code == 101 || (method == "CONNECT" && (200..300).contains(&code));
    let framing = match framing {
        _ if is_empty || tunnels => Framing::Size(0),
        Some(framing) => framing,
        None => Framing::ToTheEnd,
    };
    message.closes |= matches!(framing, Framing::ToTheEnd);
    message.whole(bytes, framing, ended)
}

impl Message {
    fn note_connection(&mut self) {
        let Some(options) = self.header("connection").map(str::to_ascii_lowercase) else {
            return;
        };
        let mut options = options.split(',').map(str::trim);
        if let Some(said) = options.find(|option| matches!(*option, "close" | "keep-alive")) {
            self.closes = said == "close";
        }
    }

    /// None for nonsense, none within when nothing is said.
    fn framing(&self) -> Option<Option<Framing>> {
        if let Some(codings) = self.header("transfer-encoding") {
            let last = codings.rsplit(',').next().unwrap_or_default().trim();
            let chunked = last.eq_ignore_ascii_case("chunked");
            return Some(Some(if chunked {
                Framing::Chunked
            } else {
                Framing::ToTheEnd
            }));
        }
        match self.header("content-length").map(|text| text.trim().parse()) {
            None => Some(None),
            Some(Ok(size)) => Some(Some(Framing::Size(size))),
            Some(Err(_)) => None,
        }
    }

    fn whole(mut self, bytes: &[u8], framing: Framing, ended: bool) -> Read {
        let rest = &bytes[self.head..];
        match framing {
            Framing::Size(size) => match rest.get(..size) {
                Some(body) => {
                    self.body = body.to_vec();
                    self.size = self.head.saturating_add(size);
                }
                None => return Read::Part(Some(Box::new(self))),
            },
            Framing::Chunked => match chunks(rest) {
                Ok(Some((body, size))) => {
                    self.body = body;
                    self.size = self.head + size;
                }
                Ok(None) => return Read::Part(Some(Box::new(self))),
                Err(why) => return Read::Bad(why),
            },
            Framing::ToTheEnd if ended => {
                self.body = rest.to_vec();
                self.size = bytes.len();
            }
            Framing::ToTheEnd => return Read::Part(Some(Box::new(self))),
        }
        Read::Message(Box::new(self))
    }
}

/// The body in chunks, and their size with the trailers; none when there is more to come.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = line(&bytes[at..]) else {
            return Ok(None);
        };
        at += line.len();
        let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let size = str::from_utf8(digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let size = size.ok_or("the size of a chunk is nonsense")?;
        if size == 0 {
            break;
        }
        let Some(chunk) = at.checked_add(size).and_then(|end| bytes.get(at..end)) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Err("a chunk does not end where it says"),
            None => return Ok(None),
        }
    }
    loop {
        let Some(line) = line(&bytes[at..]) else {
            return Ok(None);
        };
        at += line.len();
        if line.trim_ascii().is_empty() {
            return Ok(Some((body, at)));
        }
    }
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    Some(&bytes[..=end])
}

fn headers(fields: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let text = |field: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(field.value).into_owned();
        (field.name.to_owned(), value)
    };
    fields.iter().map(text).collect()
}

/// Path and query of a target in absolute form; any other as it is.
fn path_of(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    }
}

/// What a request says.
pub fn request_parts(message: &Message) -> Parts {
    let mut parts = Parts::default();
    parts.push("method", message.method.clone());
    add_target(&mut parts, &message.target);
    for (name, value) in message.headers.iter().filter(|(name, _)| !is_framing(name)) {
        parts.push(format!("header.{}", name.to_ascii_lowercase()), value.clone());
    }
    add_body(&mut parts, "body", message.header("content-type"), &message.body);
    parts
}

/// What a response says.
pub fn response_parts(message: &Message) -> Parts {
    let mut parts = Parts::default();
    parts.push("status", message.status.to_string());
    for (name, value) in message.headers.iter().filter(|(name, _)| !is_framing(name)) {
        parts.push(format!("header.{}", name.to_ascii_lowercase()), value.clone());
    }
    add_body(&mut parts, "body", message.header("content-type"), &message.body);
    parts
}

/// Adds path and query.
pub(super) fn add_target(parts: &mut Parts, target: &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    for (number, segment) in path.trim_start_matches('/').split('/').enumerate() {
        parts.push(format!("path.{}", number + 1), segment);
    }
    add_pairs(parts, "query", query);
}

/// Fields about the connection or the framing.
pub(super) fn is_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name))
}

/// The names of a call.
pub fn names(method: &str, target: &str) -> (String, String) {
    (
        format!("{method} {target}"),
        format!("{method} {}", fold::path(target)),
    )
}

pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    let (asked, told) = (recorded.client.bytes(), recorded.answers.bytes());
    let (mut sent_at, mut answer_at) = (0, 0);
    while sent_at < asked.len() {
        let message = match request(&asked[sent_at..]) {
            Read::Message(message) => message,
            Read::Part(_) => {
                return talk
                    .left_out
                    .push("a request that was not sent to its end".to_owned());
            }
            Read::Bad(why) => return talk.left_out.push(format!("a request: {why}")),
        };
        let range = sent_at..sent_at + message.size;
        sent_at = range.end;
        let answer = match next_response(&told[answer_at..], &message.method) {
            Ok((response, interim)) => {
                let start = answer_at + interim;
                let end = start + response.size;
                answer_at = end;
                Some((response, start..end))
            }
            Err(why) => {
                talk.left_out
                    .push(format!("{} {}: {why}", message.method, message.target));
                None
            }
        };
        let ended_at = recorded.client.at(range.end - 1);
        let (label, kind) = names(&message.method, &message.target);
        let tunnels = answer.as_ref().is_some_and(|(response, _)| {
            response.status == 101 || (message.method == "CONNECT" && response.status / 100 == 2)
        });
        let whole = recorded.client.is_whole(range.clone())
            && answer
                .as_ref()
                .is_some_and(|(_, range)| recorded.answers.is_whole(range.clone()));
        let waited = answer.as_ref().map(|(_, range)| {
            let first = recorded.answers.at(range.start);
            Duration::from_nanos(first.saturating_sub(ended_at))
        });
        talk.exchanges.push(
            Exchange {
                label: label.clone(),
                kind,
                request: request_parts(&message),
                response: answer
                    .as_ref()
                    .map(|(response, _)| response_parts(response))
                    .unwrap_or_default(),
                sent: Sent::Raw(asked.slice(range.clone())),
                answer: Answer::Raw {
                    pieces: answer
                        .as_ref()
                        .map(|(_, range)| recorded.answers.pieces(range.clone(), ended_at))
                        .unwrap_or_default(),
                    closes: answer.as_ref().is_none_or(|(response, _)| response.closes),
                },
                started_ns: recorded.client.at(range.start),
                waited,
                whole,
            }
            .into(),
        );
        if answer.is_none() {
            return;
        }
        if tunnels {
            return talk.left_out.push(format!("{label}: what follows is not HTTP"));
        }
    }
}

/// The response at the start of `bytes`, and how many bytes of interim ones are before it.
fn next_response(bytes: &[u8], method: &str) -> Result<(Box<Message>, usize), String> {
    let mut interim = 0;
    loop {
        match response(&bytes[interim..], method, true) {
            Read::Message(message) if (100..200).contains(&message.status) && message.status != 101 => {
                interim += message.size;
            }
            Read::Message(message) => return Ok((message, interim)),
            Read::Part(_) if bytes.len() == interim => return Err("it was not answered".to_owned()),
            Read::Part(_) => return Err("its answer was cut off".to_owned()),
            Read::Bad(why) => return Err(format!("its answer: {why}")),
        }
    }
}

#[cfg(test)]
mod tests;
