//! Secrets in text of any kind: the parts of it that look like JSON, and in forms.

use super::{Found, Redaction, STAR, form::Form, json::Json};

/// How a body is looked at.
#[derive(Debug)]
pub(super) enum Text {
    /// Not at all: pictures and the like.
    Opaque,
    /// As JSON.
    Json(Json),
    /// As a form.
    Form(Form),
    /// As the parts of a form, between lines.
    Parts(Parts),
    /// By its first byte.
    Unknown,
    /// A secret as a whole.
    Secret,
}

impl Text {
    /// How to look at a body of this media type (without it, by its first byte).
    pub(super) fn of(media_type: &[u8]) -> Self {
        let whole = String::from_utf8_lossy(media_type).to_ascii_lowercase();
        let mut parts = whole.split(';');
        let kind = parts.next().unwrap_or_default().trim();
        match kind {
            "" => Self::Unknown,
            "application/x-www-form-urlencoded" => Self::Form(Form::default()),
            "multipart/form-data" => {
                // Not from the folded text: a boundary has its case.
                let boundary = boundary(media_type);
                boundary.map_or(Self::Unknown, |boundary| Self::Parts(Parts::new(&boundary)))
            }
            _ if kind.contains("json") || kind.contains("javascript") => Self::Json(Json::default()),
            _ if kind.starts_with("text/") || kind.contains("graphql") => Self::Json(Json::default()),
            _ if ["image/", "video/", "audio/", "font/"]
                .iter()
                .any(|group| kind.starts_with(group)) =>
            {
                Self::Opaque
            }
            _ => Self::Unknown,
        }
    }

    /// Makes the secrets in the next bytes, which begin at `offset` of what is looked at, unreadable.
    pub(super) fn mask(&mut self, bytes: &mut [u8], offset: usize, rules: &Redaction, found: &mut Found) {
        if let (Self::Unknown, Some(first)) = (&*self, bytes.iter().find(|byte| !byte.is_ascii_whitespace()))
        {
            *self = match first {
                b'{' | b'[' | b'"' => Self::Json(Json::default()),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => Self::Form(Form::default()),
                _ => Self::Opaque,
            };
        }
        if let Self::Secret = self {
            bytes.fill(STAR);
            return;
        }
        let mut index = 0;
        while let Some(rest) = bytes.get_mut(index..).filter(|rest| !rest.is_empty()) {
            if let Self::Json(json) = self {
                let plain = json.plain(rest);
                if plain > 0 {
                    index += plain;
                    continue;
                }
            }
            let byte = &mut rest[0];
            match self {
                Self::Opaque | Self::Unknown | Self::Secret => return,
                Self::Json(json) => json.byte(byte, offset + index, rules, found),
                Self::Form(form) => form.byte(byte, offset + index, "form", rules, found),
                Self::Parts(parts) => parts.byte(byte, offset + index, rules, found),
            }
            index += 1;
        }
    }
}

fn boundary(media_type: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(media_type);
    let value = text.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim())
    })?;
    let value = value.trim_matches('"');
    (!value.is_empty()).then(|| value.as_bytes().to_vec())
}

/// Longest line of a part's head that is read.
const LINE_LIMIT: usize = 512;

/// Finds the secrets of a multipart form (RFC 7578).
#[derive(Debug)]
pub(super) struct Parts {
    /// Ends a value: a new line, two dashes and the boundary.
    delimiter: Vec<u8>,
    /// Bytes of it that have come.
    matched: usize,
    line: Vec<u8>,
    state: State,
    is_secret: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Value,
}

impl Parts {
    fn new(boundary: &[u8]) -> Self {
        Self {
            delimiter: [b"\r\n--", boundary].concat(),
            // The first one has no line before it.
            matched: 2,
            line: Vec::new(),
            state: State::Value,
            is_secret: false,
        }
    }

    fn byte(&mut self, byte: &mut u8, offset: usize, rules: &Redaction, found: &mut Found) {
        match self.state {
            State::Head if *byte == b'\n' => {
                let line = std::mem::take(&mut self.line);
                let line = line.trim_ascii();
                if line.is_empty() {
                    self.state = State::Value;
                } else if let Some(name) = part_name(line)
                    && rules.is_secret_field(&name)
                {
                    self.is_secret = true;
                    found.note(offset, "form", &name);
                }
            }
            State::Head => {
                if self.line.len() < LINE_LIMIT {
                    self.line.push(*byte);
                }
            }
            State::Value => {
                if *byte == self.delimiter[self.matched] {
                    // Not of the secret, or no more of it than the delimiter says already.
                    self.matched += 1;
                    if self.matched == self.delimiter.len() {
                        (self.matched, self.is_secret) = (0, false);
                        // What is left of the delimiter's line.
                        self.line = vec![b'-'];
                        self.state = State::Head;
                    }
                    return;
                }
                self.matched = usize::from(*byte == self.delimiter[0]);
                if self.is_secret && self.matched == 0 {
                    *byte = STAR;
                }
            }
        }
    }
}

/// `name` of `Content-Disposition: form-data; name="password"`.
fn part_name(line: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(line);
    let (header, value) = text.split_once(':')?;
    if !header.eq_ignore_ascii_case("content-disposition") {
        return None;
    }
    value.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim()
            .eq_ignore_ascii_case("name")
            .then(|| value.as_bytes().to_vec())
    })
}
