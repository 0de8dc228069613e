//! Secrets in JSON, by the names of members.
//!
//! It need not be well-formed, nor all of the text: a string that is followed by a colon is a name wherever it is.

use super::{Found, Redaction, STAR, rules::NAME_LIMIT};

/// Deeper levels within a secret count as objects.
const DEPTH_LIMIT: u32 = 64;

/// Finds them, a byte at a time.
#[derive(Debug, Default)]
pub(super) struct Json {
    /// The last string, if it was not too long.
    name: Vec<u8>,
    part: Part,
    /// The value that comes is a secret.
    is_secret: bool,
    /// Levels within a value that is a secret as a whole, and which of them are arrays: a bit each.
    depth: u32,
    arrays: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Between strings.
    #[default]
    Outside,
    /// In a string that may turn out to be a name; after a backslash.
    Text(bool),
    /// After a string: a colon makes it a name.
    AfterText,
    /// After a name's colon.
    Value,
    /// In a string that is a secret; after a backslash.
    Secret(bool),
    /// In a number that is one.
    Number,
}

impl Json {
    /// Makes the next byte, at `offset` of what is looked at, unreadable if it is of a secret. What it becomes is JSON, too.
    pub(super) fn byte(&mut self, byte: &mut u8, offset: usize, rules: &Redaction, found: &mut Found) {
        self.part = match (self.part, *byte) {
            (Part::Secret(false), b'"') => Part::Outside,
            (Part::Secret(escaped), other) => {
                *byte = STAR;
                Part::Secret(!escaped && other == b'\\')
            }
            (Part::Text(false), b'"') => Part::AfterText,
            (Part::Text(escaped), other) => {
                if self.name.len() < NAME_LIMIT {
                    self.name.push(other);
                }
                Part::Text(!escaped && other == b'\\')
            }
            (Part::AfterText, b' ' | b'\t' | b'\r' | b'\n') => Part::AfterText,
            (Part::AfterText, b':') => {
                if rules.is_secret_field(&self.name) {
                    self.is_secret = true;
                    found.note(offset, "json", &self.name);
                }
                Part::Value
            }
            (Part::Value, b' ' | b'\t' | b'\r' | b'\n') => Part::Value,
            (Part::Number, b'0'..=b'9') => {
                *byte = b'1';
                Part::Number
            }
            (Part::Number, b'.' | b'e' | b'E' | b'+' | b'-') => Part::Number,
            (part, other) => self.outside(part == Part::Value, other, byte),
        };
    }

    /// How many of the next bytes change nothing: most of a text, found faster than a byte at a time.
    pub(super) fn plain(&self, bytes: &[u8]) -> usize {
        match self.part {
            Part::Outside if self.depth == 0 && !self.is_secret => {
                memchr::memchr(b'"', bytes).unwrap_or(bytes.len())
            }
            Part::Text(false) if self.name.len() >= NAME_LIMIT => {
                memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len())
            }
            _ => 0,
        }
    }

    /// A byte that is in no string.
    fn outside(&mut self, is_value: bool, was: u8, byte: &mut u8) -> Part {
        // In an array within a secret every element is one, in an object every value.
        let in_secret = self.depth > 0 && (is_value || self.in_array());
        let is_secret = std::mem::take(&mut self.is_secret) || in_secret;
        match was {
            b'"' if is_secret => Part::Secret(false),
            b'"' => {
                self.name.clear();
                Part::Text(false)
            }
            b'{' | b'[' if is_secret || self.depth > 0 => {
                if self.depth < DEPTH_LIMIT {
                    let bit = 1 << self.depth;
                    self.arrays = if was == b'[' {
                        self.arrays | bit
                    } else {
                        self.arrays & !bit
                    };
                }
                self.depth += 1;
                Part::Outside
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                Part::Outside
            }
            b'0'..=b'9' if is_secret => {
                *byte = b'1';
                Part::Number
            }
            b'-' if is_secret => Part::Number,
            _ => Part::Outside,
        }
    }

    fn in_array(&self) -> bool {
        let level = self.depth.saturating_sub(1);
        level < DEPTH_LIMIT && self.arrays & (1 << level) != 0
    }
}
