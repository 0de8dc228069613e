//! nginx and curl, as recorded, and what they don't do.

use crate::protocol::{
    Call, Conversation, End, Losses, Side,
    tests::sample::{play, told},
};

/// What a side said, in order; times count up from 1.
fn talk(said: &[(Side, &str)]) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::new(80), Vec::new());
    for (at, (side, text)) in (1..).zip(said) {
        conversation.data(*side, at, text.as_bytes(), &mut calls);
    }
    (calls, conversation)
}

#[test]
fn a_connection_that_is_kept_alive() {
    let (calls, losses) = play(include_str!("../samples/http1-keepalive.txt"), 80);
    assert_eq!(
        told(&calls),
        [
            ("GET", "/index.html", "200"),
            ("GET", "/users/{id}/profile", "200"),
            ("GET", "/missing", "404"),
            ("GET", "/fail", "503"),
            ("GET", "/empty", "204"),
        ]
    );
    assert_eq!(
        calls.iter().map(|call| call.failed).collect::<Vec<_>>(),
        [false, false, false, true, false]
    );
    assert!(
        calls
            .iter()
            .all(|call| call.complete && call.started_ns < call.ended_ns)
    );
    let trace = calls[0].trace.unwrap().to_string();
    assert_eq!(trace, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(calls[0].details.get("host"), Some("127.0.0.1:18081"));
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_head_has_no_body() {
    let (calls, losses) = play(include_str!("../samples/http1-head.txt"), 80);
    assert_eq!(
        told(&calls),
        [("HEAD", "/index.html", "200"), ("GET", "/index.html", "200")]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn chunks_are_passed_over() {
    let (calls, losses) = play(include_str!("../samples/http1-chunked.txt"), 80);
    assert_eq!(
        told(&calls),
        [("GET", "/chunked/a.txt", "200"), ("GET", "/index.html", "200")]
    );
    assert!(calls[0].response_bytes > 3000);
    assert_eq!(losses, Losses::default());
}

#[test]
fn an_interim_response_is_not_the_response() {
    let (calls, losses) = play(include_str!("../samples/http1-continue.txt"), 80);
    assert_eq!(told(&calls)[0], ("PUT", "/up.bin", "500"));
    assert!(calls[0].request_bytes > 2000 && calls[0].first_byte_ns > calls[0].sent_ns);
    assert_eq!(losses, Losses::default());
}

#[test]
fn pipelined_requests() {
    let (calls, losses) = play(include_str!("../samples/http1-pipelined.txt"), 80);
    let expected = [
        ("GET", "/index.html", "200"),
        ("HEAD", "/big.bin", "200"),
        ("GET", "/fail", "503"),
    ];
    assert_eq!(told(&calls), expected);
    assert_eq!(losses, Losses::default());
}

#[test]
fn chunked_requests_trailers_and_bodies_up_to_the_end() {
    let (mut calls, mut conversation) = talk(&[
        (
            Side::Client,
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
        ),
        (
            Side::Server,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nA\r\n0123456789\r\n0\r\n",
        ),
        (Side::Server, "Check: sum\r\n\r\n"),
        (Side::Client, "GET http://shop.example/b?c HTTP/1.0\r\n\r\n"),
        (Side::Server, "HTTP/1.0 200 OK\r\n\r\nto the"),
        (Side::Server, "end"),
    ]);
    conversation.end(7, End::Closed, &mut calls);
    assert_eq!(told(&calls), [("POST", "/a", "200"), ("GET", "/b", "200")]);
    assert_eq!((calls[0].ended_ns, calls[1].ended_ns), (3, 7));
    assert!(calls.iter().all(|call| call.complete));
}

#[test]
fn an_upgrade_ends_it_and_a_tunnel_starts_anew() {
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            "GET /live HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ),
        (
            Side::Server,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}",
        ),
    ]);
    assert_eq!(told(&calls), [("GET", "/live", "101")]);
    assert!(conversation.is_opaque());
    let (calls, _) = talk(&[
        (Side::Client, "CONNECT shop.example:80 HTTP/1.1\r\n\r\n"),
        (Side::Server, "HTTP/1.1 200 OK\r\n\r\n"),
        (Side::Client, "GET /in HTTP/1.1\r\n\r\n"),
        (Side::Server, "HTTP/1.1 204 No Content\r\n\r\n"),
    ]);
    assert_eq!(
        told(&calls),
        [("CONNECT", "shop.example:80", "200"), ("GET", "/in", "204")]
    );
}

#[test]
fn a_conversation_joined_in_a_body_is_found_again() {
    let (mut conversation, mut calls) = (Conversation::new(80), Vec::new());
    for side in [Side::Client, Side::Server] {
        conversation.missing(side, 0, None, &mut calls);
    }
    conversation.data(Side::Server, 1, b"...rest of a body", &mut calls);
    conversation.data(Side::Client, 2, b"GET /a HTTP/1.1\r\n\r\n", &mut calls);
    conversation.data(Side::Server, 3, b"HTTP/1.1 204 No Content\r\n\r\n", &mut calls);
    assert_eq!(told(&calls), [("GET", "/a", "204")]);
    conversation.missing(Side::Server, 4, Some(20), &mut calls);
    conversation.data(
        Side::Server,
        5,
        b"body POST HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &mut calls,
    );
    conversation.data(Side::Client, 6, b"GET /b HTTP/1.1\r\n\r\n", &mut calls);
    conversation.data(
        Side::Server,
        7,
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        &mut calls,
    );
    assert_eq!(told(&calls[1..]), [("GET", "/b", "404")]);
}

#[test]
fn lengths_that_contradict_each_other_are_not_guessed() {
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        ),
        (Side::Server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(calls, []);
    assert_eq!(conversation.losses().undecodable, 1);
}
