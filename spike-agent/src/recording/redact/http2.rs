//! Secrets in HTTP/2: header blocks are written anew, bodies lose their secrets by their media type.

use std::collections::HashMap;

use fluke_hpack::Decoder;

use super::{Found, Redact, Redaction, STAR, http1, text::Text};
use crate::{
    protocol::Side,
    recording::http2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Fields, Frame, HEAD, HEADERS, PREFACE, PUSH_PROMISE,
        encode, field, write_headers,
    },
};

/// Longest frame, and longest header block, that is looked at.
const LIMIT: usize = 1 << 20;
/// Streams whose bodies are looked at, at one time; of more than that they are masked as a whole.
const STREAMS_LIMIT: usize = 1024;

/// Finds the secrets of a connection.
pub(super) struct Http2 {
    rules: Redaction,
    sides: [Direction; 2],
}

struct Direction {
    held: Vec<u8>,
    has_begun: bool,
    decoder: Decoder<'static>,
    /// A header block that is not whole: the frame that began it, and what has come.
    block: Option<(Frame, Vec<u8>)>,
    texts: HashMap<u32, Text>,
    /// It is not what it should be: nothing of it is readable from here on.
    is_lost: bool,
}

impl Http2 {
    pub(super) fn new(rules: Redaction) -> Self {
        let direction = || Direction {
            held: Vec::new(),
            has_begun: false,
            decoder: Decoder::new(),
            block: None,
            texts: HashMap::new(),
            is_lost: false,
        };
        Self {
            rules,
            sides: [direction(), direction()],
        }
    }
}

impl Redact for Http2 {
    fn take(&mut self, from: Side, bytes: &[u8], out: &mut Vec<u8>, found: &mut Found) {
        let direction = &mut self.sides[from as usize];
        direction.held.extend_from_slice(bytes);
        if !direction.has_begun {
            let is_preface = from == Side::Client
                && PREFACE.starts_with(&direction.held[..direction.held.len().min(PREFACE.len())]);
            if is_preface && direction.held.len() < PREFACE.len() {
                return;
            }
            direction.has_begun = true;
            if is_preface {
                out.extend(direction.held.drain(..PREFACE.len()));
            }
        }
        let held = std::mem::take(&mut direction.held);
        let mut rest = &held[..];
        while !direction.is_lost
            && let Some(frame) = Frame::read(rest)
        {
            if frame.length > LIMIT {
                direction.is_lost = true;
            } else if let Some(payload) = rest.get(HEAD..HEAD + frame.length) {
                if direction.frame(frame, payload, out, &self.rules, found).is_none() {
                    direction.is_lost = true;
                    break;
                }
                rest = &rest[HEAD + frame.length..];
            } else {
                break;
            }
        }
        if direction.is_lost {
            out.resize(out.len() + rest.len(), STAR);
        } else {
            direction.held = rest.to_vec();
        }
    }

    fn gap(&mut self, _: Side, _: u64) -> bool {
        false
    }

    fn end(&mut self, from: Side, out: &mut Vec<u8>) {
        // A frame that never was whole can be of no use.
        let held = std::mem::take(&mut self.sides[from as usize].held);
        out.resize(out.len() + held.len(), STAR);
    }

    fn keeps_length(&self) -> bool {
        false
    }
}

impl Direction {
    /// None when it cannot be.
    fn frame(
        &mut self,
        frame: Frame,
        payload: &[u8],
        out: &mut Vec<u8>,
        rules: &Redaction,
        found: &mut Found,
    ) -> Option<()> {
        match frame.kind {
            HEADERS | PUSH_PROMISE => {
                let content = frame.content(payload)?;
                self.block = Some((frame, payload[content].to_vec()));
            }
            CONTINUATION => {
                let (_, block) = self.block.as_mut()?;
                block.extend_from_slice(payload);
                if block.len() > LIMIT {
                    return None;
                }
            }
            DATA => {
                let start = out.len();
                frame.write(out);
                out.extend_from_slice(payload);
                let content = frame.content(payload)?;
                let body = &mut out[start + HEAD..][content];
                match self.texts.get_mut(&frame.stream) {
                    Some(text) => text.mask(body, 0, rules, found),
                    None if rules.is_none() => {}
                    None => body.fill(STAR),
                }
                if frame.flags & END_STREAM != 0 {
                    self.texts.remove(&frame.stream);
                }
                return Some(());
            }
            _ => {
                frame.write(out);
                out.extend_from_slice(payload);
                return Some(());
            }
        }
        if frame.flags & END_HEADERS == 0 {
            return Some(());
        }
        let (begun, block) = self.block.take()?;
        let mut fields = self.decoder.decode(&block).ok()?;
        // What is pushed is told by nobody; its block had to be read for those that come after.
        if begun.kind == PUSH_PROMISE {
            return Some(());
        }
        for (name, value) in &mut fields {
            http1::mask_field(name, value, rules, found);
        }
        let ends = begun.flags & END_STREAM != 0;
        write_headers(begun.stream, ends, &encode(&fields), out);
        if ends {
            self.texts.remove(&begun.stream);
        } else if self.texts.len() < STREAMS_LIMIT && !self.texts.contains_key(&begun.stream) {
            self.texts.insert(begun.stream, text_of(&fields));
        }
        Some(())
    }
}

fn text_of(fields: &Fields) -> Text {
    let media_type = field(fields, b"content-type").unwrap_or_default();
    let coding = field(fields, b"content-encoding").unwrap_or(b"identity");
    // Fields of gRPC's messages have numbers in place of names.
    if media_type.starts_with(b"application/grpc") {
        return Text::Opaque;
    }
    match Text::of(media_type) {
        Text::Opaque => Text::Opaque,
        // Frames are not held until the whole body is there.
        _ if !coding.eq_ignore_ascii_case(b"identity") => Text::Secret,
        text => text,
    }
}
