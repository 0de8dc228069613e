//! dig and dnspython with unbound, as recorded, and what they don't do.

use proptest::{collection::vec, prelude::*};

use super::{Message, message};
use crate::protocol::{
    Conversation, End, Losses, Side,
    tests::sample::{play, play_with_gaps, told},
};

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Of a message with a question for the address of a name.
fn asked(id: u16, flags: [u8; 2], name: &str) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &flags, &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

#[test]
fn queries_one_after_the_other() {
    let (calls, losses) = play(include_str!("../samples/dns-queries.txt"), 53);
    assert_eq!(
        told(&calls),
        [
            ("A", "web.shop.example", "NOERROR"),
            ("AAAA", "web.shop.example", "NOERROR"),
            ("A", "nothing.shop.example", "NXDOMAIN"),
            ("MX", "shop.example", "NOERROR"),
            ("A", "x.no.example", "REFUSED"),
        ]
    );
    let failed: Vec<_> = calls.iter().map(|call| call.failed).collect();
    assert_eq!(failed, [false, false, false, false, true]);
    assert!(calls.iter().all(|call| call.complete && call.request_bytes > 20));
    assert_eq!(losses, Losses::default());
}

#[test]
fn answers_in_another_order() {
    let (calls, losses) = play(include_str!("../samples/dns-pipelined.txt"), 53);
    assert_eq!(
        told(&calls),
        [
            ("A", "web.shop.example", "NOERROR"),
            ("PTR", "{id}.in-addr.arpa", "NOERROR"),
            ("A", "slow.other.example", "closed"),
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn gaps_never_mix_calls_up() {
    play_with_gaps(include_str!("../samples/dns-queries.txt"), 53);
    play_with_gaps(include_str!("../samples/dns-pipelined.txt"), 53);
}

#[test]
fn datagrams_of_unbound() {
    let query = bytes("e50101000001000000000000037765620473686f70076578616d706c650000010001");
    let answer = bytes(
        "e50185800001000100000000037765620473686f70076578616d706c650000010001c00c0001000100000e1000040a000001",
    );
    let expected = Message {
        id: 0xe501,
        operation: "A".to_owned(),
        target: "web.shop.example".to_owned(),
        status: None,
        failed: false,
    };
    assert_eq!(message(Side::Client, &query), Some(expected.clone()));
    let status = Some("NOERROR".to_owned());
    assert_eq!(
        message(Side::Server, &answer),
        Some(Message { status, ..expected })
    );
    assert_eq!(
        (message(Side::Server, &query), message(Side::Client, &answer)),
        (None, None)
    );
    assert_eq!(message(Side::Client, &query[..20]), None);
}

#[test]
fn codes_and_names() {
    for (code, status, failed) in [
        (0, "NOERROR", false),
        (1, "FORMERR", false),
        (2, "SERVFAIL", true),
        (3, "NXDOMAIN", false),
        (4, "NOTIMP", true),
        (5, "REFUSED", true),
        (15, "RESERVED", false),
    ] {
        let message = message(Side::Server, &asked(1, [0x81, code], "a.example")).unwrap();
        assert_eq!(
            (message.status.as_deref(), message.failed),
            (Some(status), failed)
        );
    }
    for (name, target) in [
        ("WWW.Shop.example", "www.shop.example"),
        (
            "550e8400-e29b-41d4-a716-446655440000.cache.example",
            "{id}.cache.example",
        ),
        ("4.3.2.10.in-addr.arpa", "{id}.in-addr.arpa"),
        ("1.0.a.f.8.ip6.arpa", "{id}.ip6.arpa"),
        ("_grpc._tcp.cart.svc", "_grpc._tcp.cart.svc"),
    ] {
        assert_eq!(
            message(Side::Client, &asked(1, [1, 0], name)).unwrap().target,
            target
        );
    }
    let notify = message(Side::Client, &asked(1, [0x24, 0], "shop.example")).unwrap();
    assert_eq!(notify.operation, "NOTIFY");
}

#[test]
fn long_answers_and_answers_without_a_question() {
    let (mut conversation, mut calls) = (Conversation::new(53), Vec::new());
    conversation.data(
        Side::Client,
        1,
        &framed(&asked(7, [1, 0], "a.example")),
        &mut calls,
    );
    let mut answer = asked(7, [0x81, 0], "a.example");
    answer.resize(65_535, 0);
    conversation.data(Side::Server, 2, &framed(&answer)[..1000], &mut calls);
    conversation.missing(Side::Server, 3, Some(65_537 - 1000), &mut calls);
    // `FORMERR`, with nothing but a header.
    conversation.data(
        Side::Server,
        4,
        b"\0\x0c\0\x07\x80\x01\0\0\0\0\0\0\0\0",
        &mut calls,
    );
    conversation.end(5, End::Closed, &mut calls);
    assert_eq!(told(&calls), [("A", "a.example", "NOERROR")]);
    assert_eq!((calls[0].ended_ns, calls[0].response_bytes), (3, 65_537));
    assert_eq!(conversation.losses(), Losses::default());
}

proptest! {
    #[test]
    fn any_datagram_is_survived(bytes in vec(any::<u8>(), 0..600), server: bool) {
        let from = if server { Side::Server } else { Side::Client };
        message(from, &bytes);
        // With a header that is right, too.
        let mut bytes = [&asked(1, [u8::from(server) << 7, 0], "a")[..12], &bytes].concat();
        message(from, &bytes);
        bytes.insert(12, 0xc0);
        message(from, &bytes);
    }
}
