//! librdkafka with the broker Tansu, as recorded; with its own mock cluster, as captured, kafka-python too, for the
//! errors and older versions that this broker has not; and what these don't do.

use crate::protocol::{
    Call, Conversation, Losses, Side,
    tests::sample::{play, told},
};

#[test]
fn a_producer() {
    let (calls, losses) = play(include_str!("../samples/kafka-producer.txt"), 9092);
    assert_eq!(
        told(&calls),
        [
            ("ApiVersions", "", "UNSUPPORTED_VERSION"),
            ("ApiVersions", "", "OK"),
            ("Metadata", "", "-"),
            ("GetTelemetrySubscriptions", "", "-"),
            ("Produce", "orders", "OK"),
            ("Produce", "orders", "OK")
        ]
    );
    assert_eq!(calls[0].details.get("client"), Some("shop"));
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_producer_that_wants_no_answer() {
    let (calls, losses) = play(include_str!("../samples/kafka-fire.txt"), 9092);
    assert_eq!(
        told(&calls),
        [
            ("ApiVersions", "", "UNSUPPORTED_VERSION"),
            ("ApiVersions", "", "OK"),
            ("Produce", "log.lines", "-"),
            ("Produce", "log.lines", "-"),
            ("GetTelemetrySubscriptions", "", "-")
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_reader_and_its_group() {
    let (calls, losses) = play(include_str!("../samples/kafka-reader.txt"), 9092);
    assert_eq!(
        told(&calls),
        [
            ("ApiVersions", "", "UNSUPPORTED_VERSION"),
            ("ApiVersions", "", "OK"),
            ("Metadata", "", "-"),
            ("FindCoordinator", "", "OK"),
            ("GetTelemetrySubscriptions", "", "-"),
            ("FindCoordinator", "", "OK"),
            ("Metadata", "", "-"),
            ("ListOffsets", "", "-"),
            ("ListOffsets", "", "-"),
            ("ListOffsets", "", "-"),
            ("ListOffsets", "", "-"),
            ("Fetch", "", "OK"),
            ("Fetch", "", "OK"),
            ("Fetch", "", "OK"),
            ("Fetch", "", "OK"),
            ("Fetch", "", "closed")
        ]
    );
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/kafka-group.txt"), 9092);
    assert_eq!(
        told(&calls),
        [
            ("ApiVersions", "", "UNSUPPORTED_VERSION"),
            ("ApiVersions", "", "OK"),
            ("Metadata", "", "-"),
            ("JoinGroup", "", "OK"),
            ("Metadata", "", "-"),
            ("SyncGroup", "", "OK"),
            ("Heartbeat", "", "OK"),
            ("OffsetFetch", "", "-"),
            ("OffsetCommit", "", "-"),
            ("Heartbeat", "", "OK"),
            ("OffsetCommit", "", "-"),
            ("LeaveGroup", "", "OK")
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn another_client() {
    let (calls, losses) = play(include_str!("../samples/kafka-python.txt"), 9092);
    assert_eq!(
        told(&calls),
        [
            ("ApiVersions", "", "OK"),
            ("InitProducerId", "", "OK"),
            ("Metadata", "", "-"),
            ("Produce", "orders", "OK")
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_broker_is_asked_by_several_kinds_of_clients() {
    let (calls, losses) = play(include_str!("../samples/kafka-broker-setup.txt"), 9092);
    let names: Vec<_> = calls.iter().map(|call| &*call.operation).collect();
    assert_eq!(
        names,
        [
            "ApiVersions",
            "Metadata",
            "CreateTopics",
            "GetTelemetrySubscriptions",
            "CreateTopics"
        ]
    );
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/kafka-broker-group.txt"), 9092);
    let told = told(&calls);
    assert_eq!(
        told[..8],
        [
            ("ApiVersions", "", "OK"),
            ("Metadata", "", "-"),
            ("JoinGroup", "", "MEMBER_ID_REQUIRED"),
            ("JoinGroup", "", "OK"),
            ("Metadata", "", "-"),
            ("SyncGroup", "", "OK"),
            ("Heartbeat", "", "OK"),
            ("OffsetFetch", "", "-")
        ]
    );
    assert_eq!((told.len(), told[15]), (16, ("LeaveGroup", "", "OK")));
    assert!(calls.iter().all(|call| !call.failed));
    assert_eq!(losses, Losses::default());
}

#[test]
fn what_a_broker_is_asked_at_once_is_timed_each() {
    let (calls, losses) = play(include_str!("../samples/kafka-broker-producer.txt"), 9092);
    let times: Vec<_> = calls
        .iter()
        .map(|call| (&*call.operation, call.started_ns, call.first_byte_ns))
        .collect();
    assert_eq!(
        times,
        [
            ("ApiVersions", 183, Some(17343)),
            ("Produce", 19589, Some(20341)),
            ("GetTelemetrySubscriptions", 19951, Some(20967)),
            ("Produce", 20684, Some(23724)),
            ("Produce", 64577, Some(68131)),
            ("Produce", 68367, Some(68894))
        ]
    );
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/kafka-broker-reader.txt"), 9092);
    // A fetch waits for what is new, while another request waits behind it.
    let times: Vec<_> = calls[11..]
        .iter()
        .map(|call| (&*call.operation, call.started_ns, call.first_byte_ns))
        .collect();
    assert_eq!(
        times,
        [
            ("Fetch", 4090047, Some(4392128)),
            ("Metadata", 4189617, Some(4392455))
        ]
    );
    assert_eq!(losses, Losses::default());
}

/// A request of a client named `me`, or an answer, with that behind its head.
fn message(head: &[u8], body: &[u8]) -> Vec<u8> {
    let size = (head.len() + body.len()) as u32;
    [&size.to_be_bytes()[..], head, body].concat()
}

fn request(api: u8, version: u8, number: u8, body: &[u8]) -> Vec<u8> {
    message(&[0, api, 0, version, 0, 0, 0, number, 0, 2, b'm', b'e'], body)
}

fn answer(number: u8, body: &[u8]) -> Vec<u8> {
    message(&[0, 0, 0, number], body)
}

fn talk(said: &[(Side, Vec<u8>)]) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::new(9092), Vec::new());
    for (at, (side, bytes)) in (1..).zip(said) {
        conversation.data(*side, at, bytes, &mut calls);
    }
    (calls, conversation)
}

#[test]
fn errors_of_old_and_new_versions() {
    // Produce of `t`: no transaction, acknowledged by all.
    let old = b"\xff\xff\xff\xff\x00\x00\x03\xe8\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x00";
    let new = b"\x00\x00\xff\xff\x00\x00\x03\xe8\x02\x02t\x01\x00\x00";
    let by_number = [
        &b"\x00\x00\xff\xff\x00\x00\x03\xe8\x02"[..],
        &[7; 16],
        b"\x01\x00\x00",
    ]
    .concat();
    let (calls, conversation) = talk(&[
        (Side::Client, request(0, 7, 1, old)),
        (Side::Client, request(0, 9, 2, new)),
        (Side::Client, request(0, 13, 3, &by_number)),
        (Side::Client, request(12, 3, 4, &[])),
        (
            Side::Server,
            answer(
                1,
                b"\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00\x00\x06",
            ),
        ),
        (
            Side::Server,
            answer(2, b"\x00\x02\x02t\x02\x00\x00\x00\x00\x00\x0a"),
        ),
        (
            Side::Server,
            answer(
                3,
                &[&b"\x00\x02"[..], &[7; 16], b"\x02\x00\x00\x00\x00\x00\x00"].concat(),
            ),
        ),
        (Side::Server, answer(4, b"\x00\x00\x00\x00\x00\x1b")),
    ]);
    let expected = [
        ("Produce", "t", "NOT_LEADER_OR_FOLLOWER"),
        ("Produce", "t", "MESSAGE_TOO_LARGE"),
        ("Produce", "", "OK"),
        ("Heartbeat", "", "REBALANCE_IN_PROGRESS"),
    ];
    assert_eq!(told(&calls), expected);
    let failed: Vec<_> = calls.iter().map(|call| call.failed).collect();
    assert_eq!(failed, [true, true, false, false]);
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn a_large_batch_is_passed_over_and_a_gap_is_got_over() {
    let head = b"\xff\xff\xff\xff\x00\x00\x03\xe8\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01";
    let mut batch = request(0, 7, 1, head);
    let size = (batch.len() as u32 - 4 + 5_000_000).to_be_bytes();
    batch[..4].copy_from_slice(&size);
    batch.resize(1100, 0);
    let whole = 4 + u64::from(u32::from_be_bytes(size));
    let (mut calls, mut conversation) = talk(&[(Side::Client, batch)]);
    conversation.missing(Side::Client, 2, Some(whole - 1100), &mut calls);
    conversation.data(Side::Server, 3, &answer(1, &[0; 40]), &mut calls);
    assert_eq!(calls[0].request_bytes, whole);
    assert_eq!(conversation.losses(), Losses::default());
    // An answer is lost, and the start of the next one.
    conversation.data(Side::Client, 4, &request(12, 0, 2, &[]), &mut calls);
    conversation.missing(Side::Server, 5, Some(30), &mut calls);
    conversation.data(Side::Server, 6, &[9; 50], &mut calls);
    conversation.data(Side::Client, 7, &request(12, 0, 3, &[]), &mut calls);
    conversation.data(Side::Server, 8, &answer(3, &[0, 0]), &mut calls);
    let started: Vec<_> = calls.iter().map(|call| call.started_ns).collect();
    assert_eq!(started, [1, 7]);
}

#[test]
fn a_frame_of_grpc_is_not_taken_for_a_request() {
    // A frame of data of 4,096 bytes on stream 1, in it a message that is a string of 9 bytes, and what comes behind.
    let frame = b"\x00\x10\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x09shop two.";
    let mut conversation = Conversation::new(50051);
    let mut calls = Vec::new();
    for side in [Side::Client, Side::Server] {
        conversation.missing(side, 0, None, &mut calls);
    }
    let mut bytes = frame.to_vec();
    bytes.resize(1400, b'a');
    conversation.data(Side::Client, 1, &bytes, &mut calls);
    assert_ne!(
        conversation.protocol(),
        Some(crate::protocol::ProtocolName::Kafka)
    );
}
