//! HTTP/2 in clear text (RFC 9113), and gRPC in it.
//!
//! Calls are told by their stream. In a conversation that is joined in its middle, or after a gap, fields whose names
//! are in a part of the header table that was not seen are unknown: operation or target are then `?`. What is pushed
//! is no call, as nobody asked for it.

mod frame;
mod grpc;
mod hpack;

use super::{Key, Kind, Messages, Protocol, ProtocolName, Request, Side, Step, Trace, fold};
use frame::{Frame, Header, Kind as Of};
use hpack::{Fields, Table};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Http2,
    ports: &[80, 8080, 50051],
    detect: frame::detect,
    start: || Box::new(Http2::default()),
};

/// In place of what could not be told.
const UNKNOWN: &str = "?";
/// Open streams that are looked for when the server refuses the last ones; the framework keeps no more calls open.
const REFUSED_LIMIT: u32 = 1024;

#[derive(Default)]
struct Http2 {
    /// Of each side.
    tables: [Table; 2],
    /// The highest stream that the client opened: higher ones are new.
    opened: u32,
    /// Whether the server said which was the last stream that it works off.
    gone: bool,
}

impl Protocol for Http2 {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        match frame::preface(from, bytes) {
            Some(true) => return took(frame::PREFACE.len(), 0),
            Some(false) => return Step::Need(frame::PREFACE.len()),
            None => {}
        }
        let Some(frame) = Frame::read(bytes) else {
            return Step::Need(frame::SIZE);
        };
        if !frame.is_valid(from) {
            return Step::Lost;
        }
        let key = Key::Id(u64::from(frame.stream));
        match frame.kind {
            Of::HEADERS | Of::PUSH_PROMISE => self.headers(from, bytes, &frame, messages),
            Of::CONTINUATION => {
                // Of a block whose start is lost, or was too long.
                self.tables[from as usize].forget();
                took(frame::SIZE, frame.length)
            }
            Of::DATA => {
                part(from, key, frame.ends_stream(), messages);
                took(frame::SIZE, frame.length)
            }
            Of::RST_STREAM => match frame::code(bytes, frame::SIZE) {
                None => Step::Need(frame::SIZE + 4),
                Some(code) => {
                    reset(from, key, code, messages);
                    took(frame::SIZE, frame.length)
                }
            },
            Of::GOAWAY => self.go_away(from, bytes, &frame, messages),
            _ => took(frame::SIZE, frame.length),
        }
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        frame::find(from, bytes)
    }

    fn lost(&mut self, from: Side) {
        self.tables[from as usize].forget();
    }
}

impl Http2 {
    fn headers(&mut self, from: Side, bytes: &[u8], frame: &Frame, messages: &mut Messages<'_>) -> Step {
        let (fields, step) = match frame.header(bytes) {
            Header::Whole { block, size } => (self.tables[from as usize].read(&block), took(size, 0)),
            Header::TooLong => {
                self.tables[from as usize].forget();
                let gaps = true;
                let fields = Fields {
                    gaps,
                    ..Fields::default()
                };
                (fields, took(frame::SIZE, frame.length))
            }
            Header::Step(step) => return step,
        };
        let key = Key::Id(u64::from(frame.stream));
        let ends = frame.ends_stream();
        match from {
            _ if frame.kind == Of::PUSH_PROMISE => {}
            Side::Client if frame.stream > self.opened && (fields.asks || !ends) => {
                self.opened = frame.stream;
                messages.request(key, request(&fields));
                if ends {
                    messages.request_end(key);
                }
            }
            Side::Client => part(from, key, ends, messages),
            Side::Server if is_interim(&fields) => {}
            Side::Server => {
                messages.response(key);
                if let Some((status, failed)) = status(&fields) {
                    messages.status(key, status, failed);
                }
                if ends {
                    messages.response_end(key);
                }
            }
        }
        step
    }

    /// The sender works off only the streams up to one that it names.
    fn go_away(&mut self, from: Side, bytes: &[u8], frame: &Frame, messages: &mut Messages<'_>) -> Step {
        let (Some(last), Some(code)) = (
            frame::code(bytes, frame::SIZE),
            frame::code(bytes, frame::SIZE + 4),
        ) else {
            return Step::Need(frame::SIZE + 8);
        };
        let last = last & frame::STREAM;
        if from == Side::Server && last < self.opened && !self.gone {
            let oldest = self.opened.saturating_sub(2 * REFUSED_LIMIT);
            for stream in (last.max(oldest) + 1..=self.opened).filter(|stream| stream % 2 == 1) {
                let key = Key::Id(u64::from(stream));
                messages.skipped(key, "GOAWAY", code != 0);
            }
            self.gone = true;
        }
        took(frame::SIZE, frame.length)
    }
}

fn took(bytes: usize, length: u32) -> Step {
    let skip = u64::from(length);
    Step::Took { bytes, skip }
}

/// A frame of a message that began before.
fn part(from: Side, key: Key, ends: bool, messages: &mut Messages<'_>) {
    match from {
        Side::Client => {
            messages.describe(key, Request::default());
            if ends {
                messages.request_end(key);
            }
        }
        Side::Server => {
            messages.response(key);
            if ends {
                messages.response_end(key);
            }
        }
    }
}

fn reset(from: Side, key: Key, code: u32, messages: &mut Messages<'_>) {
    match from {
        Side::Client => messages.cancel(key),
        Side::Server => {
            messages.response(key);
            messages.status(key, frame::error(code), code != 0);
            messages.response_end(key);
        }
    }
}

fn request(fields: &Fields) -> Request {
    let text = |field: &Option<Vec<u8>>| {
        field
            .as_deref()
            .map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let missing = || {
        if fields.gaps {
            UNKNOWN.to_owned()
        } else {
            String::new()
        }
    };
    let method = text(&fields.method).unwrap_or_else(missing);
    let path = text(&fields.path);
    let mut request = match (path, grpc::is_grpc(fields)) {
        (Some(path), true) => grpc::request(&path),
        (None, true) => Request::new(UNKNOWN, UNKNOWN),
        (Some(path), false) => Request::new(method, fold::path(&path)),
        // A tunnel has a host instead.
        (None, false) if method == "CONNECT" => {
            Request::new(method, text(&fields.authority).unwrap_or_else(missing))
        }
        (None, false) => Request::new(method, missing()),
    };
    if grpc::is_grpc(fields) {
        request.protocol = Some(ProtocolName::Grpc);
    }
    request.trace = fields.traceparent.as_deref().and_then(Trace::parse);
    request
        .details
        .extend(text(&fields.authority).map(|host| ("host", host)));
    request
}

/// Whether the response is still to come.
fn is_interim(fields: &Fields) -> bool {
    fields
        .status
        .as_deref()
        .is_some_and(|status| status.starts_with(b"1"))
}

/// How a call went, if the fields say so.
fn status(fields: &Fields) -> Option<(String, bool)> {
    if let Some(code) = &fields.grpc_status {
        return Some(grpc::status(code));
    }
    let Some(status) = fields.status.as_deref() else {
        // Of a first block, or the one at the end that has gRPC's status in it.
        return fields.gaps.then(|| (UNKNOWN.to_owned(), false));
    };
    // gRPC's own status comes at the end.
    if status == b"200" && grpc::is_grpc(fields) {
        return None;
    }
    Some((
        String::from_utf8_lossy(status).into_owned(),
        status.starts_with(b"5"),
    ))
}

#[cfg(test)]
mod tests;
