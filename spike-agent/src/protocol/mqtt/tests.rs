//! mosquitto with its own clients and paho, as recorded, and what they don't do.

use crate::protocol::{
    Call, Conversation, Losses, Side,
    tests::sample::{play, told},
};

#[test]
fn a_publisher_and_a_subscriber_of_every_quality() {
    let (calls, losses) = play(include_str!("../samples/mqtt-five.txt"), 1883);
    assert_eq!(
        told(&calls),
        [
            ("CONNECT", "", "Success"),
            ("SUBSCRIBE", "cmd/#", "Success"),
            ("SUBSCRIBE", "$share/g/x/+", "Success"),
            ("PUBLISH", "cmd/a", "-"),
            ("PUBLISH", "cmd/a", "-"),
            ("PUBLISH", "cmd/a", "Success"),
            ("PUBLISH", "cmd/a", "Success"),
            ("PUBLISH", "none/here", "No matching subscribers"),
            ("PUBLISH", "none/here", "No matching subscribers"),
            ("PUBLISH", "none/here", "No matching subscribers"),
            ("PUBLISH", "none/here", "No matching subscribers"),
            ("PUBLISH", "none/here", "No matching subscribers"),
            ("PUBLISH", "cmd/a", "Success"),
            ("PUBLISH", "cmd/a", "Success"),
            ("PINGREQ", "", "Success"),
            ("PINGREQ", "", "Success"),
            ("UNSUBSCRIBE", "cmd/#", "Success"),
            ("PUBLISH", "big", "No matching subscribers"),
            ("DISCONNECT", "", "-")
        ]
    );
    assert!(
        calls
            .iter()
            .any(|call| call.from == Side::Server && call.operation == "PUBLISH")
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn version_three() {
    let (calls, losses) = play(include_str!("../samples/mqtt-subscriber.txt"), 1883);
    assert_eq!(
        told(&calls),
        [
            ("CONNECT", "", "Success"),
            ("SUBSCRIBE", "home/+/temp", "Success"),
            ("PUBLISH", "home/{id}/temp", "-"),
            ("PUBLISH", "home/{id}/temp", "Success"),
            ("PUBLISH", "alarm", "Success"),
            ("DISCONNECT", "", "-")
        ]
    );
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/mqtt-publisher.txt"), 1883);
    assert_eq!(
        told(&calls),
        [
            ("CONNECT", "", "Success"),
            ("PUBLISH", "alarm", "Success"),
            ("DISCONNECT", "", "-")
        ]
    );
    // From the first byte of the message to the last word about it.
    let publish = &calls[1];
    assert!(
        publish
            .first_byte_ns
            .is_some_and(|first| first < publish.ended_ns)
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_wrong_password() {
    for (sample, status) in [
        (include_str!("../samples/mqtt-denied.txt"), "not authorized"),
        (include_str!("../samples/mqtt-denied-five.txt"), "Not authorized"),
    ] {
        let (calls, losses) = play(sample, 1883);
        assert_eq!(told(&calls)[0], ("CONNECT", "", status));
        assert!(calls[0].failed);
        assert_eq!(losses, Losses::default());
    }
}

fn talk(said: &[(Side, &[u8])]) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::new(1883), Vec::new());
    for (at, (side, bytes)) in (1..).zip(said) {
        conversation.data(*side, at, bytes, &mut calls);
    }
    (calls, conversation)
}

const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00";
const CONNECTED: &[u8] = b"\x20\x03\x00\x00\x00";

#[test]
fn answers_come_in_any_order_and_with_reasons() {
    let (calls, conversation) = talk(&[
        (Side::Client, CONNECT),
        (Side::Server, CONNECTED),
        (
            Side::Client,
            b"\x32\x06\x00\x01a\x00\x01\x00\x34\x06\x00\x01b\x00\x02\x00\x32\x06\x00\x01c\x00\x03\x00",
        ),
        (
            Side::Server,
            b"\x40\x03\x00\x03\x10\x50\x03\x00\x02\x97\x40\x03\x00\x01\x00",
        ),
        (Side::Client, b"\x82\x07\x00\x04\x00\x00\x01d\x00"),
        (Side::Server, b"\x90\x04\x00\x04\x00\x87"),
        (Side::Server, b"\xe0\x02\x8b\x00"),
    ]);
    let expected = [
        ("CONNECT", "", "Success"),
        ("PUBLISH", "c", "No matching subscribers"),
        ("PUBLISH", "b", "Quota exceeded"),
        ("PUBLISH", "a", "Success"),
        ("SUBSCRIBE", "d", "Not authorized"),
        ("DISCONNECT", "Server shutting down", "-"),
    ];
    assert_eq!(told(&calls), expected);
    let failed: Vec<_> = calls.iter().map(|call| call.failed).collect();
    assert_eq!(failed, [false, false, true, false, true, false]);
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn aliases_stand_for_topics_and_traces_are_read() {
    let trace = b"\x00\x0btraceparent\x00\x3700-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut second = vec![0x30, 0, 0, 0, 4 + trace.len() as u8, 0x23, 0, 7, 0x26];
    second.extend_from_slice(trace);
    second[1] = second.len() as u8 - 2;
    let (calls, conversation) = talk(&[
        (Side::Client, CONNECT),
        (Side::Server, CONNECTED),
        (Side::Client, b"\x30\x07\x00\x01a\x03\x23\x00\x07"),
        (Side::Client, &second),
    ]);
    let expected = [
        ("CONNECT", "", "Success"),
        ("PUBLISH", "a", "-"),
        ("PUBLISH", "a", "-"),
    ];
    assert_eq!(told(&calls), expected);
    assert!(calls[2].trace.is_some());
    assert_eq!(conversation.losses(), Losses::default());
}
