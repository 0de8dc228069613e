//! nats-server with nats.py and by hand, as recorded, and what they don't do.

use crate::protocol::{
    Call, Conversation, Losses, ProtocolName, Side,
    tests::sample::{play, told},
};

fn talk(said: &[(Side, &str)]) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::new(4222), Vec::new());
    for (at, (side, text)) in (1..).zip(said) {
        conversation.data(*side, at, text.as_bytes(), &mut calls);
    }
    (calls, conversation)
}

#[test]
fn a_caller() {
    let (calls, losses) = play(include_str!("../samples/nats-caller.txt"), 4222);
    assert_eq!(
        told(&calls),
        [
            ("CONNECT", "", "-"),
            ("PING", "", "PONG"),
            ("SUB", "_INBOX", "-"),
            ("PUB", "orders.get", "OK"),
            ("PUB", "orders.get", "OK"),
            ("PUB", "orders.get", "OK"),
            ("PUB", "nobody.home", "503"),
            ("PING", "", "PONG"),
            ("PUB", "orders.{id}.paid", "-"),
            ("PUB", "orders.{id}.paid", "-"),
            ("SUB", "_INBOX", "-"),
            ("UNSUB", "", "-"),
            ("PUB", "orders.get", "OK"),
            ("PUB", "$JS.API.STREAM.CREATE.EV", "OK"),
            ("PUB", "ev.a", "OK"),
            ("PUB", "$JS.API.STREAM.NAMES", "OK"),
            ("PUB", "$JS.API.CONSUMER.INFO.EV.dur", "OK"),
            ("PUB", "$JS.API.CONSUMER.CREATE.EV.dur.ev.*", "OK"),
            ("SUB", "_INBOX", "-"),
            ("PUB", "$JS.API.CONSUMER.MSG.NEXT.EV.dur", "-"),
            ("MSG", "ev.a", "-"),
            ("PUB", "$JS.ACK", "-")
        ]
    );
    assert!(calls.iter().any(|call| call.trace.is_some()));
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_service_is_called_by_the_server() {
    let (calls, losses) = play(include_str!("../samples/nats-service.txt"), 4222);
    assert_eq!(
        told(&calls),
        [
            ("CONNECT", "", "-"),
            ("PING", "", "PONG"),
            ("PING", "", "PONG"),
            ("SUB", "orders.get", "-"),
            ("SUB", "orders.*.paid", "-"),
            ("MSG", "orders.get", "OK"),
            ("MSG", "orders.get", "OK"),
            ("MSG", "orders.get", "OK"),
            ("MSG", "orders.{id}.paid", "-"),
            ("MSG", "orders.{id}.paid", "-"),
            ("MSG", "orders.get", "OK")
        ]
    );
    let delivered = |call: &Call| call.operation == "MSG";
    assert!(
        calls
            .iter()
            .all(|call| delivered(call) == (call.from == Side::Server))
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_client_that_wants_to_hear_that_all_is_well() {
    let (calls, losses) = play(include_str!("../samples/nats-verbose.txt"), 4222);
    assert_eq!(
        told(&calls),
        [
            ("CONNECT", "", "OK"),
            ("PING", "", "PONG"),
            ("SUB", "a.b", "OK"),
            ("PUB", "a.b", "OK"),
            ("MSG", "a.b", "-"),
            ("-ERR", "Invalid Publish Subject", "-"),
            ("-ERR", "Unknown Protocol Operation", "-")
        ]
    );
    // Its last word was none of the protocol's.
    assert_eq!(losses.undecodable, 1);
}

#[test]
fn a_wrong_password() {
    let (calls, losses) = play(include_str!("../samples/nats-denied.txt"), 4222);
    assert_eq!(
        told(&calls),
        [("CONNECT", "", "-"), ("PING", "", "Authorization Violation")]
    );
    assert!(calls.last().is_some_and(|call| call.failed));
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_reply_that_goes_elsewhere_is_not_waited_for() {
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            "CONNECT {}\r\nSUB mine.* 1\r\nPUB a _INBOX.other.1 1\r\nx\r\nPUB b mine.1 1\r\nx\r\n",
        ),
        (
            Side::Server,
            "MSG mine.2 1 1\r\ny\r\nMSG mine.1 1 1\r\ny\r\nMSG mine.1 1 1\r\nz\r\n",
        ),
    ]);
    assert_eq!(
        told(&calls),
        [
            ("CONNECT", "", "-"),
            ("SUB", "mine.*", "-"),
            ("PUB", "a", "-"),
            ("MSG", "mine.{id}", "-"),
            ("PUB", "b", "OK"),
            ("MSG", "mine.{id}", "-"),
        ]
    );
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn joined_in_the_middle_of_a_payload() {
    let (mut conversation, mut calls) = (Conversation::new(4222), Vec::new());
    for side in [Side::Client, Side::Server] {
        conversation.missing(side, 0, None, &mut calls);
    }
    let said = [
        (Side::Client, "rest of a payload\r\nPUB a _INBOX.x.1 2\r\nhi\r\n"),
        (Side::Client, "PUB a _INBOX.x.2 2\r\nhi\r\n"),
        (Side::Server, "MSG _INBOX.x.2 1 2\r\nyo\r\n"),
        (Side::Client, "PUB a _INBOX.x.3 2\r\nhi\r\n"),
        (Side::Server, "MSG _INBOX.x.3 1 2\r\nyo\r\n"),
    ];
    for (at, (side, text)) in (1..).zip(said) {
        conversation.data(side, at, text.as_bytes(), &mut calls);
    }
    assert_eq!(conversation.protocol(), Some(ProtocolName::Nats));
    let expected = [("MSG", "_INBOX", "-"), ("PUB", "a", "OK")];
    assert_eq!(told(&calls), expected);
}
