//! Keeps in the recording what the real server answered to requests that were not recorded, for the next stub.

use std::time::Instant;

use crate::{
    protocol::Side,
    recording::{
        NewConnection,
        http2::{END_STREAM, Frame, PREFACE, encode, write_headers},
        live::Live,
    },
    replay::exchange::{Answer, Exchange, Header, Sent},
};

use super::place::Place;

/// Type of HTTP/2's frame with settings, and of one that breaks a stream off.
const SETTINGS: u8 = 4;
const RST_STREAM: u8 = 3;
/// The only stream of a connection that is made up.
const STREAM: u32 = 1;
/// Most content of one frame that every receiver takes.
const FRAME_LIMIT: usize = 16_384;

/// Writes an exchange as a connection of its own, which began when the request came.
pub(super) fn keep(live: &Live, place: &Place, is_udp: bool, exchange: &Exchange) {
    let told_at = Instant::now();
    let asked_at = told_at - exchange.waited.unwrap_or_default();
    let (asked, told) = wire(exchange);
    let connection = live.open(
        asked_at,
        NewConnection {
            transport: if is_udp { "udp" } else { "tcp" }.to_owned(),
            caller: "stub".to_owned(),
            callee: place.callee.clone(),
            // Whose connection it was is not told to who answers it.
            client: "0.0.0.0:0".to_owned(),
            server: place.server.clone(),
            host: place.host.clone(),
            ..NewConnection::default()
        },
    );
    // Where there is no room, it is counted as lost, as all that is recorded.
    drop(connection.bytes(Side::Client, asked_at, &asked));
    drop(connection.bytes(Side::Server, told_at, &told));
    connection.ended(told_at, false);
}

/// What was said, as it is on a connection.
fn wire(exchange: &Exchange) -> (Vec<u8>, Vec<u8>) {
    let asked = match &exchange.sent {
        Sent::Raw(bytes) => bytes.to_vec(),
        Sent::Stream { head, body } => {
            let mut out = PREFACE.to_vec();
            frame(SETTINGS, 0, 0, b"", &mut out);
            headers(head, body.is_empty(), &mut out);
            data(body, true, &mut out);
            out
        }
    };
    let told = match &exchange.answer {
        Answer::Raw { .. } => exchange.answer.bytes(),
        Answer::Stream {
            head,
            trailers,
            reset,
            ..
        } => {
            let body = exchange.answer.bytes();
            let goes_on = trailers.is_some() || reset.is_some();
            let mut out = Vec::new();
            frame(SETTINGS, 0, 0, b"", &mut out);
            headers(head, body.is_empty() && !goes_on, &mut out);
            data(&body, !goes_on, &mut out);
            if let Some(trailers) = trailers {
                headers(trailers, true, &mut out);
            } else if let Some(code) = reset {
                frame(RST_STREAM, 0, STREAM, &code.to_be_bytes(), &mut out);
            }
            out
        }
    };
    (asked, told)
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8], out: &mut Vec<u8>) {
    let head = Frame {
        length: content.len(),
        kind,
        flags,
        stream,
    };
    head.write(out);
    out.extend_from_slice(content);
}

fn headers(fields: &[Header], ends: bool, out: &mut Vec<u8>) {
    let fields = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec()));
    write_headers(STREAM, ends, &encode(&fields.collect::<Vec<_>>()), out);
}

fn data(body: &[u8], ends: bool, out: &mut Vec<u8>) {
    let mut pieces = body.chunks(FRAME_LIMIT).peekable();
    while let Some(piece) = pieces.next() {
        let flags = u8::from(ends && pieces.peek().is_none()) * END_STREAM;
        frame(crate::recording::http2::DATA, flags, STREAM, piece, out);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        recording::live::Options,
        replay::{Matcher, Parts, flow::Piece, load, stub::place::places, wire::testing::recorded},
    };

    fn exchange(sent: Sent, answer: Answer) -> Exchange {
        Exchange {
            label: String::new(),
            kind: String::new(),
            request: Parts::default(),
            response: Parts::default(),
            sent,
            answer,
            started_ns: u64::MAX,
            waited: Some(Duration::from_millis(7)),
            whole: true,
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_there_for_the_next_stub() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.spike");
        let live = Live::start(&path, Options::default()).unwrap();
        live.stop();
        live.ended().await;
        let mut recorded = recorded("http", b"", b"");
        recorded.server = "10.0.0.1:80".to_owned();
        recorded.callee = "payments".to_owned();
        let place = places(&[recorded.split()], &Matcher::default()).remove(0);

        let live = Live::append(&path).unwrap();
        let answer = Answer::at_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let request = "GET /a?token=s3cret HTTP/1.1\r\nHost: x\r\n\r\n";
        keep(&live, &place, false, &exchange(Sent::Raw(request.into()), answer));
        let field = |name: &'static str, value: &'static str| (name.into(), value.into());
        let sent = Sent::Stream {
            head: vec![
                field(":method", "POST"),
                field(":path", "/s/M"),
                field("content-type", "application/grpc"),
            ],
            body: b"\0\0\0\0\x02\x08\x07"[..].into(),
        };
        let answer = Answer::Stream {
            head: vec![field(":status", "200"), field("content-type", "application/grpc")],
            after: Duration::ZERO,
            pieces: vec![Piece {
                after: Duration::ZERO,
                bytes: b"\0\0\0\0\x02\x08\x09"[..].into(),
            }],
            trailers: Some(vec![field("grpc-status", "0")]),
            reset: None,
        };
        keep(&live, &place, false, &exchange(sent, answer));
        live.stop();
        live.ended().await;

        let talks = load(&path).unwrap().talks;
        let shown: Vec<_> = talks
            .iter()
            .map(|talk| {
                (
                    talk.server.as_str(),
                    talk.callee.as_str(),
                    talk.exchanges[0].label.as_str(),
                )
            })
            .collect();
        let server = "10.0.0.1:80";
        let expected = [
            (server, "payments", "GET /a?token=******"),
            (server, "payments", "/s/M"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(talks[0].exchanges[0].response.get("status"), Some("200"));
        let waited = talks[0].exchanges[0].waited.unwrap();
        assert_eq!(waited, Duration::from_millis(7));
        let call = &talks[1].exchanges[0];
        assert!(call.whole, "{call:?}");
        assert_eq!(call.request.get("message.1"), Some("7"));
        assert_eq!(call.response.get("message.1"), Some("9"));
        assert_eq!(call.response.get("trailer.grpc-status"), Some("0"));
    }
}
