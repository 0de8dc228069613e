//! Connections of PostgreSQL, made message by message.

use super::*;
use crate::replay::{exchange::Sent, wire::testing::recorded};

/// A connection's start, as a client says it.
fn begin() -> Vec<u8> {
    let content = [&(3_u32 << 16).to_be_bytes()[..], b"user\0me\0\0"].concat();
    let size = u32::try_from(content.len() + 4).unwrap();
    [&size.to_be_bytes()[..], &content].concat()
}

/// What a server says to that.
fn begun() -> Vec<u8> {
    [
        message(b'R', &[0, 0, 0, 0]),
        message(b'S', b"server_version\x0016\0"),
        message(b'K', &[0; 8]),
        ready(b'I'),
    ]
    .concat()
}

fn bind(values: &[&str]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap();
    let mut content = b"\0s1\0\0\0".to_vec();
    content.extend(count.to_be_bytes());
    for value in values {
        content.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        content.extend(value.as_bytes());
    }
    content.extend([0, 0]);
    message(b'B', &content)
}

fn row(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    message(
        b'D',
        &[&[0, 1][..], &length.to_be_bytes(), value.as_bytes()].concat(),
    )
}

#[test]
fn simple_queries_are_found_by_their_statement() {
    let asked = [begin(), message(b'Q', b"SELECT  1;\0"), message(b'X', b"")].concat();
    let told = [begun(), row("1"), message(b'C', b"SELECT 1\0"), ready(b'I')].concat();
    let talk = recorded("postgresql", &asked, &told).split();
    assert!(talk.left_out.is_empty(), "{:?}", talk.left_out);
    assert!(talk.greeting.starts_with(b"S") && talk.greeting.len() < told.len());
    let [query] = &talk.exchanges[..] else {
        panic!("{talk:?}")
    };
    assert_eq!(
        (query.label.as_str(), query.kind.as_str()),
        ("SELECT 1;", "query SELECT ?")
    );
    assert_eq!(query.request.get("literal.1"), Some("1"));
    assert_eq!(query.response.get("row.1.1"), Some("1"));
    assert!(query.answer.bytes().ends_with(&ready(b'I')));
}

#[test]
fn statements_are_known_by_their_text_and_not_by_their_name() {
    let talk = |name: &str| {
        let asked = [
            begin(),
            message(b'P', format!("{name}\0SELECT $1::text\0\0\0").as_bytes()),
            message(b'D', format!("S{name}\0").as_bytes()),
            message(b'S', b""),
            bind(&["a"]),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
        ]
        .concat();
        let told = [
            begun(),
            message(b'1', b""),
            message(b't', &[0, 1, 0, 0, 0, 25]),
            message(
                b'T',
                b"\0\x01text\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
            ),
            ready(b'I'),
            message(b'2', b""),
            row("a"),
            message(b'C', b"SELECT 1\0"),
            ready(b'I'),
        ]
        .concat();
        recorded("postgresql", &asked, &told).split()
    };
    let first = talk("s1");
    let labels: Vec<_> = first.exchanges.iter().map(|each| each.label.as_str()).collect();
    assert_eq!(labels, ["describe SELECT $1::text", "execute SELECT $1::text"]);
    assert_eq!(first.exchanges[1].request.get("param.1"), Some("a"));
    assert_eq!(first.exchanges[1].response.get("done"), Some("SELECT 1"));
    assert!(first.left_out.is_empty(), "{:?}", first.left_out);
    let other = talk("other");
    assert_eq!(first.exchanges[0].request, other.exchanges[0].request);
}

#[test]
fn after_an_error_all_up_to_sync_is_passed_over() {
    let error = message(b'E', b"SERROR\0C42601\0Mno\0\0");
    let asked = [
        begin(),
        message(b'P', b"s1\0SELEC\0\0\0"),
        bind(&[]),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
        message(b'Q', b"SELECT 2\0"),
    ]
    .concat();
    let told = [
        begun(),
        error,
        ready(b'I'),
        row("2"),
        message(b'C', b"SELECT 1\0"),
        ready(b'I'),
    ]
    .concat();
    let talk = recorded("postgresql", &asked, &told).split();
    let labels: Vec<_> = talk.exchanges.iter().map(|each| each.label.as_str()).collect();
    assert_eq!(labels, ["parse SELEC", "SELECT 2"]);
    assert_eq!(talk.exchanges[0].response.get("error.code"), Some("42601"));
}

#[test]
fn a_refused_encryption_is_followed_by_the_start() {
    let encrypt = [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat();
    let asked = [encrypt.clone(), begin(), message(b'Q', b"SELECT 1\0")].concat();
    let told = [b"N".to_vec(), begun(), message(b'C', b"SELECT 0\0"), ready(b'I')].concat();
    assert_eq!(recorded("postgresql", &asked, &told).split().exchanges.len(), 1);
    let told = [b"S".to_vec(), begun()].concat();
    let talk = recorded("postgresql", &encrypt, &told).split();
    assert_eq!(talk.left_out, ["the connection is encrypted"]);
}

#[test]
fn rounds_are_what_is_sent_up_to_the_next_time_the_server_is_ready() {
    let password = message(b'p', b"x\0");
    let simple = message(b'Q', b"SELECT 1\0");
    let executed = [
        message(b'P', b"s1\0SELECT $1::text\0\0\0"),
        bind(&["a"]),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ]
    .concat();
    let copied = [
        message(b'Q', b"COPY t FROM STDIN\0"),
        message(b'd', b"1\n"),
        message(b'c', b""),
    ]
    .concat();
    let asked = [
        begin(),
        password,
        simple.clone(),
        executed.clone(),
        copied.clone(),
        message(b'X', b""),
    ]
    .concat();
    let done = |tag: &[u8]| [message(b'C', tag), ready(b'I')].concat();
    let told = [
        begun(),
        [row("1"), done(b"SELECT 1\0")].concat(),
        [
            message(b'1', b""),
            message(b'2', b""),
            row("a"),
            done(b"SELECT 1\0"),
        ]
        .concat(),
        [message(b'G', &[0, 0, 0]), done(b"COPY 1\0")].concat(),
    ]
    .concat();
    let talk = recorded("postgresql", &asked, &told).split();
    assert_eq!(talk.login, [("user".to_owned(), "me".to_owned())]);
    let sent: Vec<_> = talk.rounds.iter().map(|round| round.sent.clone()).collect();
    assert_eq!(
        sent,
        [simple, executed, copied].map(|bytes| Sent::Raw(bytes.into()))
    );
    let labels: Vec<_> = talk.rounds.iter().map(|round| round.label.as_str()).collect();
    assert_eq!(
        labels,
        ["SELECT 1", "execute SELECT $1::text", "COPY t FROM STDIN"]
    );
    assert_eq!(talk.rounds[1].response.get("row.1.1"), Some("a"));
    assert_eq!(talk.rounds[2].response.get("done"), Some("COPY 1"));
}

#[test]
fn the_server_is_ready_when_it_says_so_and_an_error_has_its_words() {
    let error = message(b'E', b"SERROR\0C28P01\0Mwrong password\0\0");
    assert_eq!(error_text(&error), "wrong password");
    let told = [error, ready(b'I')].concat();
    assert_eq!(ready_at(&told), Some(told.len()));
    assert_eq!(ready_at(&told[..told.len() - 1]), None);
}
