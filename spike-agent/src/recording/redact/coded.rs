//! Bodies that are compressed: held until they are whole, kept if no secret is in them, else masked as a whole.
//!
//! What is changed in them would have another length once compressed.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::{Found, Redaction, STAR, text::Text};

/// Longest body that is held; of a longer one nothing is readable.
const HELD_LIMIT: usize = 1 << 20;
/// Bytes that are looked at once they are not compressed any more: what is beyond is taken for a secret.
const PLAIN_LIMIT: u64 = 32 << 20;

/// A body that is held.
pub(super) struct Coded {
    coding: Vec<u8>,
    media_type: Vec<u8>,
    /// All bytes, and which of them are of the body and not of its chunks.
    held: Vec<u8>,
    is_body: Vec<(usize, usize)>,
}

impl Coded {
    pub(super) fn new(coding: &[u8], media_type: &[u8]) -> Self {
        Self {
            coding: coding.to_ascii_lowercase(),
            media_type: media_type.to_vec(),
            held: Vec::new(),
            is_body: Vec::new(),
        }
    }

    /// Bytes of the body.
    pub(super) fn body(&mut self, bytes: &[u8]) {
        let from = self.held.len();
        self.held.extend_from_slice(bytes);
        self.is_body.push((from, self.held.len()));
    }

    /// A byte between chunks.
    pub(super) fn framing(&mut self, byte: u8) {
        self.held.push(byte);
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.held.len() > HELD_LIMIT
    }

    /// Gives it all to `out`: as it is when it `is_whole` and has no secret.
    pub(super) fn end(&mut self, is_whole: bool, rules: &Redaction, out: &mut Vec<u8>, found: &mut Found) {
        if !is_whole || self.has_secrets(rules) {
            found.note(0, "body", &self.coding);
            for (from, to) in &self.is_body {
                self.held[*from..*to].fill(STAR);
            }
        }
        out.append(&mut self.held);
    }

    /// What cannot be read may have some.
    fn has_secrets(&self, rules: &Redaction) -> bool {
        let body: Vec<u8> = self
            .is_body
            .iter()
            .flat_map(|(from, to)| &self.held[*from..*to])
            .copied()
            .collect();
        if body.is_empty() {
            return false;
        }
        let read = |input: &mut dyn Read| {
            let mut plain = Vec::new();
            let whole = input.take(PLAIN_LIMIT + 1).read_to_end(&mut plain).is_ok();
            (whole && plain.len() as u64 <= PLAIN_LIMIT).then_some(plain)
        };
        let plain = match &self.coding[..] {
            b"gzip" | b"x-gzip" => read(&mut MultiGzDecoder::new(&*body)),
            // Named so are both, with and without a head.
            b"deflate" => {
                read(&mut ZlibDecoder::new(&*body)).or_else(|| read(&mut DeflateDecoder::new(&*body)))
            }
            _ => None,
        };
        let Some(mut plain) = plain else { return true };
        let mut found = Found::default();
        found.at(crate::protocol::Side::Client, 0);
        Text::of(&self.media_type).mask(&mut plain, 0, rules, &mut found);
        !found.is_empty()
    }
}
