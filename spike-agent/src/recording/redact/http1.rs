//! Secrets in HTTP/1.x: in headers, in the query, in bodies. Each byte is decided as it comes.

use std::collections::VecDeque;

use super::{Found, Redact, Redaction, STAR, coded::Coded, form::Form, rules::NAME_LIMIT, text::Text};
use crate::protocol::Side;

/// Bytes kept of values that say how the body is framed.
const VALUE_LIMIT: usize = 256;
/// Requests in flight whose methods are remembered.
const ASKED_LIMIT: usize = 1024;
/// Schemes of `Authorization`, which are no secret.
const SCHEMES: [&str; 8] = [
    "basic",
    "bearer",
    "digest",
    "negotiate",
    "ntlm",
    "token",
    "apikey",
    "aws4-hmac-sha256",
];

/// Finds the secrets of a connection.
pub(super) struct Http1 {
    rules: Redaction,
    sides: [Messages; 2],
    /// Methods of requests that are not answered yet.
    asked: VecDeque<Method>,
    /// Another protocol is spoken from here on.
    is_other: bool,
    /// One that has secrets which are not found: HTTP/2, in the midst of a connection.
    is_masked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Head,
    Connect,
    Other,
}

/// One direction.
#[derive(Default)]
struct Messages {
    part: Part,
    /// Of the head.
    head: Head,
    body: Body,
    text: Option<Text>,
    /// A body that is compressed, from its first byte on: whether it has secrets shows at its end.
    coded: Option<Coded>,
}

#[derive(Debug, Default)]
enum Part {
    /// Empty lines before a message, then its first line.
    #[default]
    Start,
    /// Of a first line: after so many spaces.
    Line(u8),
    /// In its query.
    Query(Form),
    /// At the start of a header's line.
    Name,
    /// After its colon.
    Value(Value),
    Body,
    /// A chunk's size, and what follows it in its line.
    ChunkSize {
        size: u64,
        in_digits: bool,
    },
    /// The end of a chunk's line.
    ChunkEnd,
    Trailers {
        is_empty: bool,
    },
}

/// How a header's value is looked at.
#[derive(Debug)]
enum Value {
    /// As it is, but for a query in it.
    Open { query: Option<Form> },
    /// A secret as a whole.
    Secret,
    /// A scheme, then the secret.
    Scheme(Vec<u8>),
    /// Names and secret values: of all, or of the first alone.
    Cookie { first_only: bool, part: Cookie },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cookie {
    Name,
    Value,
    Rest,
}

#[derive(Debug, Default)]
struct Head {
    /// First line: the method, or the version and the status.
    line: Vec<u8>,
    name: Vec<u8>,
    value: Vec<u8>,
    length: Option<u64>,
    is_chunked: bool,
    media_type: Vec<u8>,
    coding: Vec<u8>,
    upgrade: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    None,
    /// Bytes that still come.
    Size(u64),
    /// Of the chunk.
    Chunk(u64),
    ToTheEnd,
}

impl Http1 {
    pub(super) fn new(rules: Redaction) -> Self {
        Self {
            rules,
            sides: [Messages::default(), Messages::default()],
            asked: VecDeque::new(),
            is_other: false,
            is_masked: false,
        }
    }
}

impl Redact for Http1 {
    fn take(&mut self, from: Side, bytes: &[u8], out: &mut Vec<u8>, found: &mut Found) {
        let mut bytes = bytes.to_vec();
        // What was given to `out` already.
        let (mut at, mut given) = (0, 0);
        while at < bytes.len() && !self.is_other {
            let side = &mut self.sides[from as usize];
            if matches!(side.part, Part::Body) {
                let length = side.body_within(bytes.len() - at);
                let part = &mut bytes[at..at + length];
                if let Some(coded) = &mut side.coded {
                    coded.body(part);
                } else if let Some(text) = &mut side.text {
                    text.mask(part, at, &self.rules, found);
                }
                side.passed(length as u64);
                at += length;
            } else {
                let head_ends = side.byte(from, &mut bytes[at], at, &self.rules, found);
                if let Some(coded) = &mut side.coded {
                    coded.framing(bytes[at]);
                }
                at += 1;
                if head_ends {
                    self.head_ended(from);
                    if self.sides[from as usize].coded.is_some() {
                        out.extend_from_slice(&bytes[given..at]);
                        given = at;
                    }
                }
            }
            let side = &mut self.sides[from as usize];
            if let Some(coded) = &mut side.coded {
                given = at;
                let is_over = matches!(side.part, Part::Start);
                if is_over || coded.is_too_long() {
                    coded.end(is_over, &self.rules, out, found);
                    side.coded = None;
                    // The rest of one that is too long.
                    side.text = (!is_over).then_some(Text::Secret);
                }
            }
        }
        if self.is_masked {
            bytes[at..].fill(STAR);
        }
        out.extend_from_slice(&bytes[given..]);
    }

    fn end(&mut self, from: Side, out: &mut Vec<u8>) {
        if let Some(mut coded) = self.sides[from as usize].coded.take() {
            coded.end(true, &self.rules, out, &mut Found::default());
        }
    }

    fn gap(&mut self, from: Side, count: u64) -> bool {
        let side = &mut self.sides[from as usize];
        let room = match (&side.part, side.body) {
            (Part::Body, Body::Size(left)) => left,
            // The chunk's own line end comes after it.
            (Part::Body, Body::Chunk(left)) => left,
            (Part::Body, Body::ToTheEnd) => u64::MAX,
            _ => 0,
        };
        if self.is_other {
            return true;
        }
        if count > room {
            return false;
        }
        // It may have ended within a secret.
        if side.coded.is_some() {
            return false;
        }
        if let Some(text) = side.text.as_mut().filter(|text| !matches!(text, Text::Opaque)) {
            *text = Text::Secret;
        }
        side.passed(count);
        true
    }
}

impl Http1 {
    /// The head of `from` is complete: what comes next is known.
    fn head_ended(&mut self, from: Side) {
        let head = std::mem::take(&mut self.sides[from as usize].head);
        let first = head.line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let mut body = match (head.is_chunked, head.length) {
            (true, _) => Body::Chunk(0),
            (false, Some(0)) => Body::None,
            (false, Some(size)) => Body::Size(size),
            (false, None) if from == Side::Server => Body::ToTheEnd,
            (false, None) => Body::None,
        };
        match from {
            Side::Client => {
                let method = match first {
                    b"HEAD" => Method::Head,
                    b"CONNECT" => Method::Connect,
                    _ => Method::Other,
                };
                if self.asked.len() < ASKED_LIMIT {
                    self.asked.push_back(method);
                }
            }
            Side::Server => {
                let status = head.line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
                if status.starts_with(b"1") && status != b"101" {
                    body = Body::None;
                } else {
                    let method = self.asked.pop_front().unwrap_or(Method::Other);
                    let is_tunnel = method == Method::Connect && status.starts_with(b"2");
                    self.is_other = status == b"101" || is_tunnel;
                    self.is_masked = status == b"101" && head.upgrade.eq_ignore_ascii_case(b"h2c");
                    if method == Method::Head || status == b"204" || status == b"304" {
                        body = Body::None;
                    }
                }
            }
        }
        let is_coded = !head.coding.is_empty() && !head.coding.eq_ignore_ascii_case(b"identity");
        let side = &mut self.sides[from as usize];
        let text = Text::of(&head.media_type);
        side.coded = (body != Body::None && is_coded && !matches!(text, Text::Opaque))
            .then(|| Coded::new(&head.coding, &head.media_type));
        side.text = (body != Body::None).then_some(text);
        side.body = body;
        side.part = match body {
            Body::None => Part::Start,
            Body::Chunk(_) => Part::ChunkSize {
                size: 0,
                in_digits: true,
            },
            Body::Size(_) | Body::ToTheEnd => Part::Body,
        };
    }
}

impl Messages {
    /// How many of the next `length` bytes are of the body.
    fn body_within(&self, length: usize) -> usize {
        match self.body {
            Body::Size(left) | Body::Chunk(left) => {
                usize::try_from(left).map_or(length, |left| left.min(length))
            }
            Body::ToTheEnd | Body::None => length,
        }
    }

    /// Bytes of the body passed.
    fn passed(&mut self, count: u64) {
        match &mut self.body {
            Body::Size(left) => {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    (self.part, self.text) = (Part::Start, None);
                }
            }
            Body::Chunk(left) => {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    self.part = Part::ChunkEnd;
                }
            }
            Body::ToTheEnd | Body::None => {}
        }
    }

    /// Takes a byte that is not of the body; true when it ends the head.
    fn byte(&mut self, from: Side, byte: &mut u8, at: usize, rules: &Redaction, found: &mut Found) -> bool {
        let was = *byte;
        match &mut self.part {
            Part::Start => {
                if was != b'\r' && was != b'\n' {
                    self.head = Head::default();
                    self.head.line.push(was);
                    self.part = Part::Line(0);
                }
            }
            Part::Line(spaces) => match was {
                b'\n' => self.part = Part::Name,
                b'?' if from == Side::Client && *spaces == 1 => self.part = Part::Query(Form::default()),
                _ => {
                    *spaces += u8::from(was == b' ' && *spaces < 2);
                    if self.head.line.len() < VALUE_LIMIT {
                        self.head.line.push(was);
                    }
                }
            },
            Part::Query(form) => match was {
                b' ' | b'\r' => self.part = Part::Line(2),
                b'\n' => self.part = Part::Name,
                _ => form.byte(byte, at, "query", rules, found),
            },
            Part::Name => match was {
                b'\n' if self.head.name.is_empty() => return true,
                // A line without a colon.
                b'\n' => self.head.name.clear(),
                b'\r' => {}
                // What goes on with the value before.
                b' ' | b'\t' if self.head.name.is_empty() => self.part = Part::Value(Value::Secret),
                b':' => {
                    self.head.value.clear();
                    self.part = Part::Value(Value::of(&self.head.name, at, rules, found));
                }
                _ => {
                    if self.head.name.len() < NAME_LIMIT {
                        self.head.name.push(was);
                    }
                }
            },
            Part::Value(value) => {
                if was == b'\n' {
                    self.head.value_ended();
                    self.part = Part::Name;
                } else if was != b'\r' {
                    if self.head.value.len() < VALUE_LIMIT && self.head.is_framing() {
                        self.head.value.push(was);
                    }
                    value.byte(byte, at, rules, found);
                }
            }
            Part::ChunkSize { size, in_digits } => match was {
                b'\n' => {
                    let size = *size;
                    self.body = Body::Chunk(size);
                    self.part = if size == 0 {
                        Part::Trailers { is_empty: true }
                    } else {
                        Part::Body
                    };
                }
                _ => match char::from(was).to_digit(16).filter(|_| *in_digits) {
                    Some(digit) => *size = size.saturating_mul(16).saturating_add(u64::from(digit)),
                    None => *in_digits = false,
                },
            },
            Part::ChunkEnd => {
                if was == b'\n' {
                    self.part = Part::ChunkSize {
                        size: 0,
                        in_digits: true,
                    };
                }
            }
            Part::Trailers { is_empty } => match was {
                b'\n' if *is_empty => (self.part, self.text) = (Part::Start, None),
                b'\n' => *is_empty = true,
                b'\r' => {}
                _ => *is_empty = false,
            },
            Part::Body => {}
        }
        false
    }
}

/// Masks the secrets in a field of HTTP/2, whose names are HTTP/1's in small letters.
pub(super) fn mask_field(name: &[u8], value: &mut [u8], rules: &Redaction, found: &mut Found) {
    let mut looked = Value::of(name, 0, rules, found);
    for byte in value {
        looked.byte(byte, 0, rules, found);
    }
}

impl Head {
    /// Does the header's value say how the body is to be read?
    fn is_framing(&self) -> bool {
        [
            &b"content-length"[..],
            b"transfer-encoding",
            b"content-type",
            b"content-encoding",
            b"upgrade",
        ]
        .iter()
        .any(|name| self.name.eq_ignore_ascii_case(name))
    }

    fn value_ended(&mut self) {
        let value = self.value.trim_ascii();
        if self.name.eq_ignore_ascii_case(b"content-length") {
            self.length = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        } else if self.name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            self.is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else if self.name.eq_ignore_ascii_case(b"content-type") {
            self.media_type = value.to_vec();
        } else if self.name.eq_ignore_ascii_case(b"content-encoding") {
            self.coding = value.to_vec();
        } else if self.name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = value.to_vec();
        }
        self.name.clear();
        self.value.clear();
    }
}

impl Value {
    /// How to look at the value of a header of this name.
    fn of(name: &[u8], at: usize, rules: &Redaction, found: &mut Found) -> Self {
        if !rules.is_secret_header(name) {
            return Self::Open { query: None };
        }
        found.note(at, "header", name);
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("authorization") || is("proxy-authorization") {
            Self::Scheme(Vec::new())
        } else if is("cookie") || is("set-cookie") {
            Self::Cookie {
                first_only: is("set-cookie"),
                part: Cookie::Name,
            }
        } else {
            Self::Secret
        }
    }

    fn byte(&mut self, byte: &mut u8, at: usize, rules: &Redaction, found: &mut Found) {
        let is_space = matches!(*byte, b' ' | b'\t');
        match self {
            Self::Open { query } => match query {
                Some(_) if is_space || matches!(*byte, b'"' | b'>' | b',') => *query = None,
                Some(form) => form.byte(byte, at, "query", rules, found),
                None if *byte == b'?' => *query = Some(Form::default()),
                None => {}
            },
            Self::Secret => {
                if !is_space {
                    *byte = STAR;
                }
            }
            Self::Scheme(word) => {
                if is_space && word.is_empty() {
                    return;
                }
                if is_space {
                    // After a scheme, all is secret.
                    *self = Self::Secret;
                    return;
                }
                word.push(byte.to_ascii_lowercase());
                if !SCHEMES.iter().any(|scheme| scheme.as_bytes().starts_with(word)) {
                    *byte = STAR;
                    *self = Self::Secret;
                }
            }
            Self::Cookie { first_only, part } => match (*part, *byte) {
                (Cookie::Name, b'=') => *part = Cookie::Value,
                (Cookie::Value, b';') if *first_only => *part = Cookie::Rest,
                (Cookie::Value, b';') => *part = Cookie::Name,
                (Cookie::Value, _) => *byte = STAR,
                (Cookie::Name | Cookie::Rest, _) => {}
            },
        }
    }
}
