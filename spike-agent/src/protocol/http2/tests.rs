//! nginx, nghttpx, grpcio, and their clients httpx, nghttp and h2load, as recorded, and what they don't do.

use super::frame::PREFACE;
use crate::protocol::{
    Call, Conversation, Losses, ProtocolName, Side,
    tests::sample::{play, play_with_gaps, told},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

struct Talk {
    conversation: Conversation,
    calls: Vec<Call>,
    at: u64,
}

impl Talk {
    /// A connection from its start; times count up from 1.
    fn new() -> Self {
        let mut talk = Self::joined();
        talk.conversation = Conversation::new(80);
        talk.client(PREFACE).client(&frame(SETTINGS, 0, 0, b""));
        talk.server(&frame(SETTINGS, 0, 0, b""));
        talk
    }

    fn joined() -> Self {
        let (mut conversation, mut calls) = (Conversation::new(80), Vec::new());
        for side in [Side::Client, Side::Server] {
            conversation.missing(side, 0, None, &mut calls);
        }
        let at = 0;
        Self {
            conversation,
            calls,
            at,
        }
    }

    fn client(&mut self, bytes: &[u8]) -> &mut Self {
        self.at += 1;
        self.conversation
            .data(Side::Client, self.at, bytes, &mut self.calls);
        self
    }

    fn server(&mut self, bytes: &[u8]) -> &mut Self {
        self.at += 1;
        self.conversation
            .data(Side::Server, self.at, bytes, &mut self.calls);
        self
    }

    fn missing(&mut self, from: Side, count: u64) -> &mut Self {
        self.at += 1;
        self.conversation
            .missing(from, self.at, Some(count), &mut self.calls);
        self
    }
}

#[test]
fn requests_one_after_the_other() {
    let (calls, losses) = play(include_str!("../samples/http2-requests.txt"), 80);
    assert_eq!(
        told(&calls),
        [
            ("GET", "/index.html", "200"),
            ("GET", "/users/{id}/profile", "200"),
            ("GET", "/missing", "404"),
            ("GET", "/fail", "503"),
            ("GET", "/empty", "204"),
            ("GET", "/users/{id}/profile", "200"),
            ("GET", "/moved", "302"),
            ("POST", "/users/{id}", "200"),
        ]
    );
    for call in &calls {
        assert_eq!(call.failed, call.target == "/fail");
        assert!(call.complete && call.protocol == ProtocolName::Http2);
        assert!(call.sent_ns <= call.first_byte_ns && call.first_byte_ns <= Some(call.ended_ns));
    }
    let trace = calls[5].trace.unwrap().to_string();
    assert_eq!(trace, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(calls[0].details.get("host"), Some("127.0.0.1:19083"));
    assert!(calls[7].request_bytes > 3000);
    assert_eq!(losses, Losses::default());
}

#[test]
fn streams_side_by_side() {
    let (calls, losses) = play(include_str!("../samples/http2-parallel.txt"), 80);
    let mut told = told(&calls);
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("GET", "/fail", "503"),
            ("GET", "/index.html", "200"),
            ("GET", "/moved", "302"),
            ("GET", "/users/{id}/cart", "200"),
        ]
    );
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/http2-load.txt"), 80);
    assert_eq!(calls.len(), 40);
    for call in &calls {
        let expected = if call.target == "/fail" { "503" } else { "200" };
        assert_eq!(call.status.as_deref(), Some(expected));
    }
    assert_eq!(calls.iter().filter(|call| call.failed).count(), 20);
    assert_eq!(losses, Losses::default());
}

#[test]
fn blocks_in_several_frames_and_what_is_pushed() {
    let (calls, losses) = play(include_str!("../samples/http2-continuation-push.txt"), 80);
    assert_eq!(told(&calls), [("GET", "/pushed.html", "200")]);
    assert!(calls[0].trace.is_some() && calls[0].request_bytes > 16_384);
    assert_eq!(losses, Losses::default());
}

#[test]
fn trailers_of_a_request() {
    let (calls, losses) = play(include_str!("../samples/http2-trailers.txt"), 80);
    assert_eq!(told(&calls), [("POST", "/index.html", "405")]);
    assert_eq!(losses, Losses::default());
}

#[test]
fn an_upgrade_from_http1() {
    let (calls, losses) = play(include_str!("../samples/http2-upgrade.txt"), 80);
    assert_eq!(
        told(&calls),
        [("GET", "/index.html", "502"), ("GET", "/nothing", "502")]
    );
    assert!(
        calls
            .iter()
            .all(|call| call.complete && call.protocol == ProtocolName::Http2)
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn grpc_has_its_own_status() {
    let (calls, losses) = play(include_str!("../samples/grpc-calls.txt"), 50051);
    assert!(
        calls
            .iter()
            .all(|call| call.target == "shop.v1.Cart" && call.protocol == ProtocolName::Grpc)
    );
    let told: Vec<_> = calls
        .iter()
        .map(|call| {
            (
                &*call.operation,
                call.status.as_deref().unwrap_or("-"),
                call.failed,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Get", "OK", false),
            ("Get", "OK", false),
            ("Get", "NOT_FOUND", false),
            ("Get", "UNAVAILABLE", true),
            ("Get", "UNKNOWN", true),
            ("Get", "cancelled", false),
            ("List", "OK", false),
            ("Put", "OK", false),
            ("Nope", "UNIMPLEMENTED", true),
        ]
    );
    assert!(calls[0].trace.is_some() && calls[2].trace.is_none());
    assert_eq!(losses, Losses::default());
}

#[test]
fn gaps_never_mix_calls_up() {
    for sample in [
        include_str!("../samples/http2-requests.txt"),
        include_str!("../samples/http2-parallel.txt"),
        include_str!("../samples/http2-load.txt"),
        include_str!("../samples/http2-continuation-push.txt"),
        include_str!("../samples/http2-trailers.txt"),
        include_str!("../samples/http2-upgrade.txt"),
        include_str!("../samples/grpc-calls.txt"),
    ] {
        play_with_gaps(sample, 80);
    }
}

#[test]
fn streams_that_are_reset_or_refused() {
    let mut talk = Talk::new();
    for stream in [1, 3, 5, 7] {
        talk.client(&frame(HEADERS, 5, stream, b"\x82\x86\x84"));
    }
    talk.server(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]));
    talk.client(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]));
    talk.server(&frame(GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]));
    talk.server(&frame(HEADERS, 5, 5, b"\x88"));
    let told: Vec<_> = talk
        .calls
        .iter()
        .map(|call| {
            (
                call.started_ns,
                call.status.as_deref().unwrap(),
                call.failed,
                call.complete,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (4, "INTERNAL_ERROR", true, true),
            (5, "cancelled", false, false),
            (7, "GOAWAY", false, false),
            (6, "200", false, true),
        ]
    );
}

#[test]
fn interim_responses_padding_and_priority() {
    let mut talk = Talk::new();
    talk.client(&frame(HEADERS, 0x2d, 1, b"\x02\0\0\0\0\x10\x82\x86\x84\0\0"));
    // `103`, then `200` and a body.
    talk.server(&frame(HEADERS, 4, 1, b"\x08\x03103"));
    talk.server(&frame(HEADERS, 4, 1, b"\x88"));
    talk.server(&frame(DATA, 9, 1, b"\x03body\0\0\0"));
    let call = &talk.calls[0];
    assert_eq!(told(&talk.calls), [("GET", "/", "200")]);
    assert_eq!(
        (call.started_ns, call.first_byte_ns, call.ended_ns),
        (4, Some(6), 7)
    );
    assert_eq!(call.response_bytes, 10 + 17);
}

#[test]
fn a_conversation_joined_in_its_middle_names_what_it_saw() {
    let mut talk = Talk::joined();
    // The path is in the table since before, the method and scheme are not; then a path that is put into it.
    talk.client(&frame(HEADERS, 5, 7, b"\x82\x86\xbe"));
    talk.server(&frame(HEADERS, 5, 7, b"\x88"));
    talk.client(&frame(HEADERS, 5, 9, b"\x82\x86\x44\x02/a"));
    talk.client(&frame(HEADERS, 5, 11, b"\x82\x86\xbe"));
    talk.server(&frame(HEADERS, 5, 11, b"\x88"));
    // A status from before.
    talk.server(&frame(HEADERS, 5, 9, b"\xbe"));
    assert_eq!(
        told(&talk.calls),
        [("GET", "?", "200"), ("GET", "/a", "200"), ("GET", "/a", "?")]
    );
    assert_eq!(talk.calls[1].started_ns, 4);
}

#[test]
fn a_gap_in_a_block_voids_the_table_and_not_the_streams() {
    let mut talk = Talk::new();
    talk.client(&frame(HEADERS, 5, 1, b"\x82\x86\x44\x02/a"));
    talk.server(&frame(HEADERS, 5, 1, b"\x88"));
    talk.client(&frame(HEADERS, 5, 3, b"\x82\x86\xbe"));
    talk.missing(Side::Client, 20);
    talk.client(&frame(HEADERS, 5, 7, b"\x82\x86\xbe"));
    for stream in [5, 7, 3] {
        talk.server(&frame(HEADERS, 5, stream, b"\x88"));
    }
    assert_eq!(
        told(&talk.calls),
        [("GET", "/a", "200"), ("GET", "?", "200"), ("GET", "/a", "200")]
    );
    // Responses that were in a gap are not taken from others.
    talk.client(&frame(HEADERS, 5, 9, b"\x82\x86\x84"));
    talk.missing(Side::Server, 10);
    talk.client(&frame(HEADERS, 5, 11, b"\x82\x86\x84"));
    talk.server(&frame(HEADERS, 5, 9, b"\x88"));
    talk.server(&frame(HEADERS, 5, 11, b"\x8d"));
    assert_eq!(told(&talk.calls[3..]), [("GET", "/", "404")]);
}

#[test]
fn a_block_that_is_too_long_is_passed_over() {
    let mut talk = Talk::new();
    talk.client(&frame(HEADERS, 0, 1, &[0x82; 16_000]));
    for _ in 0..4 {
        talk.client(&frame(CONTINUATION, 0, 1, &[0x82; 16_000]));
    }
    talk.client(&frame(CONTINUATION, 4, 1, b"\x84"));
    talk.client(&frame(DATA, 1, 1, b"body"));
    talk.server(&frame(HEADERS, 5, 1, b"\x88"));
    assert_eq!(told(&talk.calls), [("?", "?", "200")]);
    assert_eq!(talk.conversation.losses(), Losses::default());
}

#[test]
fn frames_that_can_not_be_are_not_guessed() {
    let mut talk = Talk::new();
    talk.client(&frame(RST_STREAM, 0, 1, b"\0"));
    assert_eq!(talk.conversation.losses().undecodable, 1);
    talk.client(&frame(HEADERS, 5, 3, b"\x82\x86\x84"));
    talk.server(&frame(HEADERS, 5, 3, b"\x88"));
    assert_eq!(told(&talk.calls), [("GET", "/", "200")]);
}
