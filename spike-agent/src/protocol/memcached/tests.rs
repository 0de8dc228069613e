//! memcached with pymemcache, python-binary-memcached and libmemcached, as recorded, and what they don't do.

use crate::protocol::{
    Call, Conversation, Losses, Side,
    tests::sample::{play, told},
};

fn talk(said: &[(Side, &str)]) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::new(11211), Vec::new());
    for (at, (side, text)) in (1..).zip(said) {
        conversation.data(*side, at, text.as_bytes(), &mut calls);
    }
    (calls, conversation)
}

#[test]
fn text_commands() {
    let (calls, losses) = play(include_str!("../samples/memcached-text.txt"), 11211);
    assert_eq!(
        told(&calls),
        [
            ("set", "user:{id}:name", "STORED"),
            ("get", "user:{id}:name", "VALUE"),
            ("get", "nothing", "END"),
            ("add", "user:{id}:name", "NOT_STORED"),
            ("set", "n", "STORED"),
            ("incr", "n", "OK"),
            ("decr", "gone", "NOT_FOUND"),
            ("set", "a", "STORED"),
            ("set", "b", "STORED"),
            ("get", "a", "VALUE"),
            ("gets", "a", "VALUE"),
            ("cas", "a", "STORED"),
            ("cas", "a", "EXISTS"),
            ("set", "a", "-"),
            ("delete", "a", "-"),
            ("delete", "a", "NOT_FOUND"),
            ("touch", "n", "TOUCHED"),
            ("append", "b", "STORED"),
            ("version", "", "VERSION"),
            ("stats", "", "STAT"),
            ("incr", "user:{id}:name", "CLIENT_ERROR")
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn large_values_are_passed_over() {
    let (calls, losses) = play(include_str!("../samples/memcached-large.txt"), 11211);
    assert_eq!(
        told(&calls),
        [
            ("set", "big", "STORED"),
            ("get", "big", "VALUE"),
            ("flush_all", "", "OK"),
            ("quit", "", "-")
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn meta_commands() {
    let (calls, losses) = play(include_str!("../samples/memcached-meta.txt"), 11211);
    assert_eq!(
        told(&calls),
        [
            ("ms", "user:{id}", "HD"),
            ("mg", "user:{id}", "VA"),
            ("mg", "none", "EN"),
            ("md", "user:{id}", "HD"),
            ("ma", "num", "HD"),
            ("me", "num", "ME"),
            ("mg", "num", "-"),
            ("mg", "zz", "-"),
            ("mg", "num", "-"),
            ("mn", "", "MN"),
            ("set", "a", "STORED"),
            ("get", "a", "VALUE")
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn binary_commands() {
    let (calls, losses) = play(include_str!("../samples/memcached-binary.txt"), 11211);
    assert_eq!(
        told(&calls),
        [
            ("set", "user:{id}:name", "OK"),
            ("get", "user:{id}:name", "OK"),
            ("get", "gone", "NOT_FOUND"),
            ("setq", "a", "-"),
            ("setq", "b", "-"),
            ("noop", "", "OK"),
            ("getkq", "a", "-"),
            ("getkq", "b", "-"),
            ("getk", "c", "NOT_FOUND"),
            ("add", "a", "EXISTS"),
            ("delete", "a", "OK"),
            ("increment", "num", "OK"),
            ("stat", "", "OK")
        ]
    );
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/memcached-quiet.txt"), 11211);
    assert_eq!(
        told(&calls),
        [("getk", "f1", "OK"), ("getk", "f2", "OK"), ("quit", "", "OK")]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn quiet_commands_leave_the_others_their_answers() {
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            "mg a v\r\nmg b v q\r\nmg c v q\r\nmg d v\r\nmn\r\nget e\r\n",
        ),
        (
            Side::Server,
            "EN\r\nVA 1\r\nx\r\nHD\r\nMN\r\nVALUE e 0 1\r\nx\r\nEND\r\n",
        ),
    ]);
    assert_eq!(
        told(&calls),
        [
            ("mg", "b", "-"),
            ("mg", "c", "-"),
            ("mg", "d", "-"),
            ("mg", "a", "EN"),
            ("mn", "", "MN"),
            ("get", "e", "VALUE")
        ]
    );
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn an_error_that_may_be_of_a_command_without_answer_is_no_answer() {
    let said = [
        (Side::Client, "set a 0 0 1 noreply\r\nx\r\nget a\r\n"),
        (Side::Server, "SERVER_ERROR out of memory storing object\r\n"),
        (Side::Server, "END\r\n"),
        (Side::Client, "get b\r\n"),
    ];
    let (calls, mut conversation) = talk(&said);
    assert_eq!(told(&calls), [("set", "a", "-")]);
    assert_eq!(conversation.losses().calls, 1);
    let mut calls = Vec::new();
    conversation.data(Side::Server, 5, b"END\r\n", &mut calls);
    conversation.data(Side::Client, 6_000_000, b"get c\r\n", &mut calls);
    conversation.data(Side::Server, 6_000_001, b"SERVER_ERROR busy\r\n", &mut calls);
    assert_eq!(told(&calls), [("get", "c", "SERVER_ERROR")]);
    assert!(calls[0].failed);
}

fn binary(magic: u8, code: u8, number: u32, key: &str) -> Vec<u8> {
    let mut head = vec![
        magic,
        code,
        0,
        key.len() as u8,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        key.len() as u8,
    ];
    head.extend_from_slice(&number.to_be_bytes());
    head.extend_from_slice(&[0; 8]);
    head.extend_from_slice(key.as_bytes());
    head
}

#[test]
fn numbered_answers_come_in_any_order() {
    let (mut conversation, mut calls) = (Conversation::new(11211), Vec::new());
    for (at, number, key) in [(1, 7, "a"), (2, 8, "b")] {
        conversation.data(Side::Client, at, &binary(0x80, 0, number, key), &mut calls);
    }
    for (at, number) in [(3, 8), (4, 7)] {
        conversation.data(Side::Server, at, &binary(0x81, 0, number, ""), &mut calls);
    }
    assert_eq!(told(&calls), [("get", "b", "OK"), ("get", "a", "OK")]);
    // A number that is used twice.
    conversation.data(Side::Client, 5, &binary(0x80, 0, 7, "c"), &mut calls);
    conversation.data(Side::Client, 6, &binary(0x80, 0, 7, "d"), &mut calls);
    conversation.data(Side::Server, 7, &binary(0x81, 0, 7, ""), &mut calls);
    conversation.data(Side::Server, 8, &binary(0x81, 0, 7, ""), &mut calls);
    assert_eq!(told(&calls)[2..], [("get", "c", "OK"), ("get", "d", "OK")]);
    assert_eq!(calls[3].started_ns, 6);
}
