//! Messages in every framing, whole, cut and wrong.

use super::*;
use crate::replay::wire::testing::recorded;

fn message(read: Read) -> Message {
    match read {
        Read::Message(message) => *message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bodies_are_read_however_they_are_framed() {
    let sized = message(request(
        b"POST /a?b=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET",
    ));
    assert_eq!((sized.body.as_slice(), sized.size), (&b"abc"[..], 46));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: 1\r\n\r\nHTTP";
    let chunked = message(response(chunked, "GET", false));
    assert_eq!(chunked.body, b"abcd");
    let open = b"HTTP/1.0 200 OK\r\n\r\nrest";
    assert!(matches!(response(open, "GET", false), Read::Part(Some(_))));
    let ended = message(response(open, "GET", true));
    assert!(ended.closes && ended.body == b"rest");
    let head = message(response(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        "HEAD",
        false,
    ));
    assert!(head.body.is_empty() && !head.closes);
}

#[test]
fn nonsense_is_no_message() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"\x16\x03\x01",
    ] {
        assert!(matches!(request(bytes), Read::Bad(_)), "{bytes:?}");
    }
    // Cut anywhere, it is a part.
    let whole = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    for length in 0..whole.len() {
        assert!(matches!(request(&whole[..length]), Read::Part(_)), "{length}");
    }
}

#[test]
fn a_connection_is_taken_apart_in_order() {
    let asked = b"GET /users/7?q=a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    let told = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: d\r\n\r\nokHTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let talk = recorded("http", asked, told).split();
    assert!(talk.left_out.is_empty(), "{:?}", talk.left_out);
    let [first, second] = &talk.exchanges[..] else {
        panic!("{talk:?}")
    };
    assert_eq!(
        (first.label.as_str(), first.kind.as_str()),
        ("GET /users/7?q=a", "GET /users/{id}")
    );
    let asked: Vec<_> = first.request.iter().collect();
    assert_eq!(
        asked,
        [
            ("method", "GET"),
            ("path.1", "users"),
            ("path.2", "7"),
            ("query.q", "a"),
            ("header.host", "x")
        ]
    );
    assert!(first.answer.bytes().ends_with(b"\r\n\r\nok"));
    assert!(matches!(first.answer, Answer::Raw { closes: false, .. }));
    assert_eq!(second.request.get("body.a"), Some("1"));
    assert_eq!(second.response.get("status"), Some("201"));
    assert!(matches!(second.answer, Answer::Raw { closes: true, .. }));
}

#[test]
fn what_is_cut_off_is_left_out_and_said() {
    let talk = recorded(
        "http",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
    )
    .split();
    assert_eq!(talk.left_out, ["GET /: its answer was cut off"]);
    assert!(!talk.exchanges[0].whole);
    let talk = recorded("http", b"GET / HTTP/1.1\r\n", b"").split();
    assert!(talk.exchanges.is_empty() && talk.left_out.len() == 1);
}
