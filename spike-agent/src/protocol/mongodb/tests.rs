//! PyMongo with SecantusDB, as recorded; with answers made by its own encoder, of what that server doesn't do; and what
//! neither does.

use proptest::prelude::*;

use super::bson;
use crate::protocol::{
    Call, Conversation, Losses, Side,
    tests::sample::{play, told},
};

#[test]
fn commands_cursors_and_errors() {
    let (calls, losses) = play(include_str!("../samples/mongodb-shop.txt"), 27017);
    assert_eq!(
        told(&calls),
        [
            ("ismaster", "", "OK"),
            ("find", "orders", "OK"),
            ("getMore", "orders", "OK"),
            ("find", "gone", "Unauthorized"),
            ("insert", "orders", "OK"),
            ("insert", "orders", "OK"),
            ("insert", "twice", "DuplicateKey"),
            ("update", "far", "WriteConcernFailed"),
            ("insert", "log", "-"),
            ("delete", "orders", "OK"),
            ("ping", "", "OK"),
            ("aggregate", "orders", "OK"),
            ("createIndexes", "orders", "OK"),
            ("find", "orders", "OK"),
            ("getMore", "orders", "OK"),
            ("endSessions", "", "OK")
        ]
    );
    let failed = calls.iter().filter(|call| call.failed).count();
    assert_eq!(failed, 3);
    let database = |call: &Call| call.details.get("database").map(str::to_owned);
    assert_eq!(database(&calls[1]).as_deref(), Some("shop"));
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_server() {
    let (calls, losses) = play(include_str!("../samples/mongodb-server.txt"), 27017);
    assert_eq!(
        told(&calls),
        [
            ("ismaster", "", "OK"),
            ("insert", "orders", "OK"),
            ("find", "orders", "OK"),
            ("getMore", "orders", "OK"),
            ("getMore", "orders", "OK"),
            ("insert", "orders", "DuplicateKey"),
            ("update", "orders", "OK"),
            ("createIndexes", "orders", "OK"),
            ("aggregate", "orders", "OK"),
            ("aggregate", "orders", "OK"),
            ("insert", "log", "-"),
            ("ping", "", "OK"),
            ("shrug", "", "CommandNotFound"),
            ("findAndModify", "orders", "OK"),
            ("delete", "orders", "OK"),
            ("drop", "orders", "OK"),
            ("endSessions", "", "OK")
        ]
    );
    // A cursor's second page.
    assert_eq!(
        (
            calls[3].started_ns,
            calls[3].first_byte_ns,
            calls[3].response_bytes
        ),
        (62921, Some(63478), 307)
    );
    assert_eq!(losses, Losses::default());
}

fn message(number: u32, answers: u32, kind: u32, body: &[u8]) -> Vec<u8> {
    let head = [16 + body.len() as u32, number, answers, kind];
    let mut message: Vec<_> = head.iter().flat_map(|part| part.to_le_bytes()).collect();
    message.extend_from_slice(body);
    message
}

/// `{name: text}`, or `{name: 1}`.
fn document(name: &str, text: Option<&str>) -> Vec<u8> {
    let mut elements = vec![if text.is_some() { 2 } else { 0x10 }];
    elements.extend_from_slice(name.as_bytes());
    elements.push(0);
    match text {
        Some(text) => {
            elements.extend_from_slice(&(text.len() as u32 + 1).to_le_bytes());
            elements.extend_from_slice(text.as_bytes());
            elements.push(0);
        }
        None => elements.extend_from_slice(&1_u32.to_le_bytes()),
    }
    let size = elements.len() as u32 + 5;
    [&size.to_le_bytes()[..], &elements, &[0]].concat()
}

fn command(flags: u32, document: &[u8]) -> Vec<u8> {
    [&flags.to_le_bytes()[..], &[0], document].concat()
}

fn talk(said: &[(Side, Vec<u8>)]) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::new(27017), Vec::new());
    for (at, (side, bytes)) in (1..).zip(said) {
        conversation.data(*side, at, bytes, &mut calls);
    }
    (calls, conversation)
}

#[test]
fn answers_come_in_any_order_and_secrets_are_not_shown() {
    let ok = || command(0, &document("ok", None));
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            message(7, 0, 2013, &command(0, &document("find", Some("orders")))),
        ),
        (
            Side::Client,
            message(8, 0, 2013, &command(0, &document("createUser", Some("ann")))),
        ),
        (
            Side::Client,
            message(9, 0, 2012, &[0xdd, 7, 0, 0, 5, 0, 0, 0, 1, 9, 9, 9]),
        ),
        (Side::Server, message(1, 8, 2013, &ok())),
        (
            Side::Server,
            message(2, 9, 2012, &[0xdd, 7, 0, 0, 5, 0, 0, 0, 1, 9, 9, 9]),
        ),
        (Side::Server, message(3, 7, 2013, &ok())),
    ]);
    let expected = [
        ("createUser", "", "OK"),
        ("OP_COMPRESSED", "", "-"),
        ("find", "orders", "OK"),
    ];
    assert_eq!(told(&calls), expected);
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn the_first_versions() {
    let query = |name: &str, document: &[u8]| [&[0; 4], name.as_bytes(), &[0; 9], document].concat();
    let reply = |flags: u8, document: &[u8]| [&[flags][..], &[0; 19], document].concat();
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            message(1, 0, 2004, &query("admin.$cmd", &document("isMaster", None))),
        ),
        (Side::Server, message(5, 1, 1, &reply(8, &document("ok", None)))),
        (
            Side::Client,
            message(2, 0, 2004, &query("shop.orders", &document("a", None))),
        ),
        (
            Side::Server,
            message(6, 2, 1, &reply(2, &document("$err", Some("no")))),
        ),
        (
            Side::Client,
            message(3, 0, 2002, &query("shop.log.old", &document("a", None))),
        ),
    ]);
    let expected = [
        ("isMaster", "", "OK"),
        ("query", "orders", "QueryFailure"),
        ("insert", "log.old", "-"),
    ];
    assert_eq!(told(&calls), expected);
    assert_eq!(conversation.losses(), Losses::default());
}

#[test]
fn news_of_a_server_that_is_watched_are_no_answers() {
    let ok = |flags| command(flags, &document("ok", None));
    let (calls, conversation) = talk(&[
        (
            Side::Client,
            message(1, 0, 2013, &command(1 << 16, &document("hello", None))),
        ),
        (Side::Server, message(5, 1, 2013, &ok(2))),
        (Side::Server, message(6, 5, 2013, &ok(2))),
        (Side::Server, message(7, 6, 2013, &ok(2))),
    ]);
    assert_eq!(told(&calls), [("hello", "", "OK")]);
    assert_eq!(calls[0].ended_ns, 2);
    assert_eq!(conversation.losses(), Losses::default());
}

proptest! {
    #[test]
    fn any_document_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let count = bson::elements(&bytes).count();
        prop_assert!(count <= bytes.len());
    }

    #[test]
    fn any_kinds_of_elements_are_survived(kinds in proptest::collection::vec((0..0x20_u8, any::<i32>()), 0..30)) {
        let elements = kinds.iter().flat_map(|(kind, size)| [&[*kind, b'a', 0][..], &size.to_le_bytes()].concat());
        let bytes: Vec<_> = [0; 4].into_iter().chain(elements).collect();
        let count = bson::elements(&bytes).count();
        prop_assert!(count <= bytes.len());
    }
}
