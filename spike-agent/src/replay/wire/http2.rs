//! HTTP/2 in clear text, and gRPC in it: each stream is a request and its answer.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use bytes::Bytes;

use super::{Recorded, hpack::Table, http1};
use crate::{
    protocol::fold,
    recording::http2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEAD, HEADERS, PUSH_PROMISE, RST_STREAM,
    },
    replay::{
        exchange::{Answer, Exchange, Header, Sent, Talk},
        flow::{Flow, Piece},
        parts::{Parts, add_body, add_protobuf, text_of},
    },
};

pub use crate::recording::http2::PREFACE;

/// What one side says on a stream.
#[derive(Debug, Default)]
struct Half {
    head: Vec<Header>,
    trailers: Option<Vec<Header>>,
    data: Vec<Range<usize>>,
    /// Positions of its first and behind its last frame.
    range: Range<usize>,
    ended: bool,
    reset: Option<u32>,
}

/// Reads the streams of one side.
fn halves(flow: &Flow, start: usize) -> Result<BTreeMap<u32, Half>, String> {
    let bytes = flow.bytes();
    let mut table = Table::default();
    let mut halves = BTreeMap::<u32, Half>::new();
    // Of a header block in several frames.
    let mut block: Option<(u32, bool, Vec<u8>)> = None;
    let mut at = start;
    while let Some(frame) = bytes.get(at..).and_then(Frame::read) {
        let place = at..at + HEAD + frame.length;
        let Some(payload) = bytes.get(at + HEAD..place.end) else {
            break;
        };
        at = place.end;
        let is_of_headers = matches!(frame.kind, HEADERS | PUSH_PROMISE | CONTINUATION);
        if is_of_headers && !flow.is_whole(place.clone()) {
            return Err("a part of its headers is missing".to_owned());
        }
        let ends = frame.flags & END_STREAM != 0;
        let half = |halves: &mut BTreeMap<u32, Half>, ends: bool| {
            let half = halves.entry(frame.stream).or_insert_with(|| Half {
                range: place.clone(),
                ..Half::default()
            });
            half.range.end = place.end;
            half.ended |= ends;
        };
        let inner = if matches!(frame.kind, DATA | HEADERS | PUSH_PROMISE) {
            let content = frame.content(payload);
            content.ok_or_else(|| "a frame that is shorter than its padding".to_owned())?
        } else {
            0..payload.len()
        };
        match frame.kind {
            DATA => {
                half(&mut halves, ends);
                let data = place.start + HEAD + inner.start..place.start + HEAD + inner.end;
                if let Some(half) = halves.get_mut(&frame.stream).filter(|_| !data.is_empty()) {
                    half.data.push(data);
                }
            }
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                if frame.kind == HEADERS {
                    half(&mut halves, ends);
                }
                let part = &payload[inner];
                match &mut block {
                    Some((_, _, whole)) if frame.kind == CONTINUATION => whole.extend_from_slice(part),
                    _ => block = Some((frame.stream, frame.kind == HEADERS, part.to_vec())),
                }
                if frame.flags & END_HEADERS != 0
                    && let Some((stream, is_own, whole)) = block.take()
                {
                    let fields = table
                        .read(&whole)
                        .ok_or("headers that refer to what was not recorded")?;
                    if let Some(half) = halves.get_mut(&stream).filter(|_| is_own) {
                        half.add(fields);
                    }
                }
            }
            RST_STREAM => {
                half(&mut halves, true);
                let code = payload.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
                if let Some(half) = halves.get_mut(&frame.stream) {
                    half.reset = Some(code);
                }
            }
            _ => {}
        }
    }
    Ok(halves)
}

impl Half {
    fn add(&mut self, fields: Vec<Header>) {
        let is_interim =
            |head: &[Header]| field(head, ":status").is_some_and(|status| status.starts_with(b"1"));
        if self.head.is_empty() || is_interim(&self.head) {
            self.head = fields;
        } else {
            self.trailers = Some(fields);
        }
    }

    fn body(&self, flow: &Flow) -> Vec<u8> {
        let ranges = self.data.iter();
        ranges
            .flat_map(|range| flow.bytes()[range.clone()].iter().copied())
            .collect()
    }
}

/// The first value of a field.
pub fn field<'a>(head: &'a [Header], name: &str) -> Option<&'a Bytes> {
    let found = head.iter().find(|(known, _)| known == name.as_bytes());
    found.map(|(_, value)| value)
}

fn text(head: &[Header], name: &str) -> String {
    let value = field(head, name).map(|value| String::from_utf8_lossy(value).into_owned());
    value.unwrap_or_default()
}

/// Whether it is a call of gRPC.
pub fn is_grpc(head: &[Header]) -> bool {
    text(head, "content-type").starts_with("application/grpc")
}

/// The names of a call.
pub fn names(head: &[Header]) -> (String, String) {
    let (method, path) = (text(head, ":method"), text(head, ":path"));
    if is_grpc(head) {
        return (path.clone(), path);
    }
    (
        format!("{method} {path}"),
        format!("{method} {}", fold::path(&path)),
    )
}

/// What a request says.
pub fn request_parts(head: &[Header], body: &[u8]) -> Parts {
    let mut parts = Parts::default();
    parts.push("method", text(head, ":method"));
    http1::add_target(&mut parts, &text(head, ":path"));
    add_fields(&mut parts, head);
    add_content(&mut parts, head, body);
    parts
}

/// What a response says.
pub fn response_parts(head: &[Header], body: &[u8], trailers: Option<&[Header]>) -> Parts {
    let mut parts = Parts::default();
    parts.push("status", text(head, ":status"));
    add_fields(&mut parts, head);
    add_content(&mut parts, head, body);
    for (name, value) in trailers.unwrap_or_default() {
        parts.push(
            format!("trailer.{}", String::from_utf8_lossy(name)),
            text_of(value),
        );
    }
    parts
}

fn add_fields(parts: &mut Parts, head: &[Header]) {
    for (name, value) in head {
        let name = String::from_utf8_lossy(name);
        if !name.starts_with(':') && !http1::is_framing(&name) {
            parts.push(format!("header.{name}"), text_of(value));
        }
    }
}

fn add_content(parts: &mut Parts, head: &[Header], body: &[u8]) {
    if !is_grpc(head) {
        let kind = text(head, "content-type");
        return add_body(parts, "body", Some(&kind), body);
    }
    let mut rest = body;
    let mut number = 0_usize;
    while let Some((prefix, after)) = rest.split_first_chunk::<5>() {
        let [compressed, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        let message = after.get(..length).unwrap_or(after);
        number += 1;
        let name = if number == 1 {
            "message".to_owned()
        } else {
            format!("message{number}")
        };
        // One without fields is one, too.
        parts.push(
            format!("{name}.bytes"),
            if message.is_empty() { "none" } else { "some" },
        );
        if compressed == 0 {
            add_protobuf(parts, &name, message);
        } else {
            parts.push(name, text_of(message));
        }
        rest = after.get(length..).unwrap_or_default();
    }
}

pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    if !recorded.client.bytes().starts_with(PREFACE) {
        return talk.left_out.push("its beginning was not recorded".to_owned());
    }
    let (client, answers) = (
        halves(&recorded.client, PREFACE.len()),
        halves(&recorded.answers, 0),
    );
    let (client, mut answers) = match (client, answers) {
        (Ok(client), Ok(answers)) => (client, answers),
        (Err(why), _) | (_, Err(why)) => return talk.left_out.push(why),
    };
    for (stream, asked) in client {
        if asked.head.is_empty() {
            continue;
        }
        let (label, kind) = names(&asked.head);
        let body = asked.body(&recorded.client);
        let told = answers.remove(&stream).filter(|told| !told.head.is_empty());
        if told.is_none() {
            talk.left_out.push(format!("{label}: it was not answered"));
        }
        let ended_at = recorded.client.at(asked.range.end - 1);
        let whole = told.as_ref().is_some_and(|told| {
            (told.ended || told.reset.is_some())
                && recorded.answers.is_whole(told.range.clone())
                && recorded.client.is_whole(asked.range.clone())
        });
        let told = told.unwrap_or_default();
        let since =
            |position: usize| Duration::from_nanos(recorded.answers.at(position).saturating_sub(ended_at));
        let response = response_parts(
            &told.head,
            &told.body(&recorded.answers),
            told.trailers.as_deref(),
        );
        let pieces = told.data.iter().map(|range| Piece {
            after: since(range.start),
            bytes: recorded.answers.bytes().slice(range.clone()),
        });
        let after = since(told.range.start);
        talk.exchanges.push(
            Exchange {
                label,
                kind,
                request: request_parts(&asked.head, &body),
                response,
                started_ns: recorded.client.at(asked.range.start),
                waited: Some(after),
                whole,
                answer: Answer::Stream {
                    after,
                    pieces: pieces.collect(),
                    head: told.head,
                    trailers: told.trailers,
                    reset: told.reset,
                },
                sent: Sent::Stream {
                    head: asked.head,
                    body: body.into(),
                },
            }
            .into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recording::http2::PADDED, replay::wire::testing::recorded};

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn streams_are_requests_and_answers_with_trailers() {
        let head = b"\x83\x86\x44\x04/s/M\x5f\x10application/grpc";
        let asked = [
            PREFACE.to_vec(),
            frame(4, 0, 0, b""),
            frame(1, END_HEADERS, 1, head),
            frame(0, END_STREAM, 1, b"\0\0\0\0\x02\x08\x07"),
        ]
        .concat();
        let told = [
            frame(4, 0, 0, b""),
            frame(1, 0, 1, b"\x88\x5f\x10applica"),
            frame(9, END_HEADERS, 1, b"tion/grpc"),
            frame(0, PADDED, 1, b"\x01\0\0\0\0\x02\x08\x09x"),
            frame(1, END_HEADERS | END_STREAM, 1, b"\x40\x0bgrpc-status\x010"),
        ]
        .concat();
        let talk = recorded("grpc", &asked, &told).split();
        assert!(talk.left_out.is_empty(), "{:?}", talk.left_out);
        let [call] = &talk.exchanges[..] else {
            panic!("{talk:?}")
        };
        assert_eq!((call.label.as_str(), call.whole), ("/s/M", true));
        assert_eq!(call.request.get("message.1"), Some("7"));
        assert_eq!(call.response.get("message.1"), Some("9"));
        assert_eq!(call.response.get("trailer.grpc-status"), Some("0"));
        assert_eq!(call.answer.bytes(), b"\0\0\0\0\x02\x08\x09");
    }

    #[test]
    fn a_connection_without_its_beginning_is_left_out() {
        let talk = recorded("http2", &frame(4, 0, 0, b""), b"").split();
        assert_eq!(talk.left_out, ["its beginning was not recorded"]);
    }
}
