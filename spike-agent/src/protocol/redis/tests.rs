//! redis-server, redis-cli and others, as recorded, and what they don't do.

use crate::protocol::{
    Call, Conversation, Losses, Side,
    tests::sample::{play, told},
};

fn talk(said: &[(Side, &str)]) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::new(6379), Vec::new());
    for (at, (side, text)) in (1..).zip(said) {
        conversation.data(*side, at, text.as_bytes(), &mut calls);
    }
    (calls, conversation)
}

#[test]
fn commands_of_every_kind() {
    let (calls, losses) = play(include_str!("../samples/redis-commands.txt"), 6379);
    assert_eq!(
        told(&calls),
        [
            ("SET", "user:{id}:name", "OK"),
            ("GET", "user:{id}:name", "OK"),
            ("GET", "nothing", "OK"),
            ("HSET", "cart:{id}", "OK"),
            ("HGETALL", "cart:{id}", "OK"),
            ("INCR", "user:{id}:name", "ERR"),
            ("NOSUCH", "thing", "ERR"),
            ("MULTI", "", "OK"),
            ("INCR", "hits", "OK"),
            ("INCR", "user:{id}:name", "OK"),
            ("EXEC", "", "ERR"),
            ("EVAL", "", "OK"),
            ("CONFIG GET", "", "OK"),
        ]
    );
    assert!(
        calls
            .iter()
            .all(|call| call.complete && call.failed == (call.status.as_deref() != Some("OK")))
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn resp3_with_maps() {
    let (calls, losses) = play(include_str!("../samples/redis-resp3.txt"), 6379);
    let expected = [
        ("HELLO", "", "OK"),
        ("HSET", "cart:{id}", "OK"),
        ("HGETALL", "cart:{id}", "OK"),
        ("CONFIG GET", "", "OK"),
    ];
    assert_eq!(told(&calls), expected);
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_pipeline_of_inline_commands() {
    let (calls, losses) = play(include_str!("../samples/redis-pipe.txt"), 6379);
    let mut expected = vec![("SET", "k:{id}", "OK"); 5];
    expected.extend([
        ("LPUSH", "l", "OK"),
        ("INCR", "l", "WRONGTYPE"),
        ("ECHO", "", "OK"),
    ]);
    assert_eq!(told(&calls), expected);
    assert_eq!(losses, Losses::default());
}

#[test]
fn large_values_are_passed_over() {
    let (calls, losses) = play(include_str!("../samples/redis-large.txt"), 6379);
    assert_eq!(told(&calls), [("SET", "big", "OK")]);
    assert_eq!(calls[0].request_bytes, 20_032);
    assert_eq!(losses, Losses::default());
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n", u32::MAX);
    let (mut calls, mut conversation) = talk(&[(Side::Client, &head)]);
    conversation.missing(Side::Client, 2, Some(u64::from(u32::MAX) + 2), &mut calls);
    conversation.data(Side::Server, 3, b"+OK\r\n", &mut calls);
    assert_eq!(
        calls[0].request_bytes,
        head.len() as u64 + u64::from(u32::MAX) + 2
    );
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn messages_of_channels_are_no_replies() {
    let (calls, losses) = play(include_str!("../samples/redis-pubsub.txt"), 6379);
    let expected = [
        ("SUBSCRIBE", "news", "-"),
        ("UNSUBSCRIBE", "news", "-"),
        ("UNSUBSCRIBE", "", "-"),
        ("PING", "", "OK"),
    ];
    assert_eq!(told(&calls), expected);
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/redis-push.txt"), 6379);
    assert_eq!(
        told(&calls),
        [
            ("HELLO", "", "OK"),
            ("SUBSCRIBE", "news", "-"),
            ("PING", "", "OK")
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn what_a_monitor_sees_is_no_reply() {
    let (calls, losses) = play(include_str!("../samples/redis-monitor.txt"), 6379);
    assert_eq!(told(&calls), [("MONITOR", "", "OK")]);
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_client_that_wants_no_replies() {
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
        ),
        (Side::Client, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"),
        (Side::Server, "$1\r\n1\r\n"),
    ]);
    assert_eq!(
        told(&calls),
        [("CLIENT REPLY", "", "-"), ("SET", "a", "-"), ("GET", "a", "OK")]
    );
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn secrets_are_not_shown() {
    let (calls, _) = talk(&[
        (Side::Client, "*2\r\n$4\r\nAUTH\r\n$6\r\nhunter\r\n"),
        (Side::Server, "-WRONGPASS no\r\n"),
    ]);
    assert_eq!(told(&calls), [("AUTH", "", "WRONGPASS")]);
}

#[test]
fn a_gap_is_got_over_in_the_next_silence() {
    let (mut conversation, mut calls) = (Conversation::new(6379), Vec::new());
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
    conversation.data(Side::Client, 1, get, &mut calls);
    conversation.missing(Side::Server, 2, Some(300), &mut calls);
    conversation.data(Side::Client, 3, get, &mut calls);
    conversation.data(Side::Server, 4, b"$1\r\n1\r\n", &mut calls);
    assert_eq!(calls, []);
    conversation.data(Side::Client, 6_000_000, get, &mut calls);
    conversation.data(Side::Server, 6_000_100, b"$1\r\n1\r\n", &mut calls);
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].started_ns, calls[0].first_byte_ns),
        (6_000_000, Some(6_000_100))
    );
}
