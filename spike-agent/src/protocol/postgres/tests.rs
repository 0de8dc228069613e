//! psql, pgbench, asyncpg and psycopg with PostgreSQL 15, as recorded, and what they don't do.

use crate::protocol::{
    Call, Conversation, End, Losses, ProtocolName, Side,
    tests::sample::{play, play_with_gaps, told},
};

const READY: &[u8] = b"Z\0\0\0\x05I";
const SYNC: &[u8] = b"S\0\0\0\x04";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 + 4;
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// `Parse`, `Bind` and `Execute` without names.
fn execute(statement: &str) -> Vec<u8> {
    let parse = format!("\0{statement}\0\0\0");
    [
        message(b'P', parse.as_bytes()),
        message(b'B', &[0; 8]),
        message(b'E', &[0; 5]),
    ]
    .concat()
}

fn done() -> Vec<u8> {
    [
        message(b'1', b""),
        message(b'2', b""),
        message(b'C', b"SELECT 1\0"),
    ]
    .concat()
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mno\0\0").as_bytes())
}

struct Talk {
    conversation: Conversation,
    calls: Vec<Call>,
    at: u64,
}

impl Talk {
    fn new() -> Self {
        let (conversation, calls, at) = (Conversation::new(5432), Vec::new(), 0);
        Self {
            conversation,
            calls,
            at,
        }
    }

    fn client(&mut self, bytes: &[u8]) -> &mut Self {
        self.at += 1;
        self.conversation
            .data(Side::Client, self.at, bytes, &mut self.calls);
        self
    }

    fn server(&mut self, bytes: &[u8]) -> &mut Self {
        self.at += 1;
        self.conversation
            .data(Side::Server, self.at, bytes, &mut self.calls);
        self
    }

    /// Silence, in nanoseconds.
    fn quiet(&mut self, count: u64) -> &mut Self {
        self.at += count;
        self
    }
}

#[test]
fn simple_queries() {
    let (calls, losses) = play(include_str!("../samples/postgres-psql.txt"), 5432);
    assert_eq!(
        told(&calls),
        [
            ("connect", "postgres", "OK"),
            ("SELECT", "users", "OK"),
            ("INSERT", "orders", "OK"),
            ("SELECT", "missing", "42P01"),
            ("SELECT", "", "22012"),
            ("BEGIN", "", "OK"),
            ("UPDATE", "users", "OK"),
            ("COMMIT", "", "OK"),
            ("SELECT", "", "OK"),
            ("DO", "", "OK"),
            ("COPY", "users", "OK"),
            ("COPY", "orders", "OK"),
            ("LISTEN", "", "OK"),
            ("NOTIFY", "", "OK"),
            ("QUERY", "", "OK"),
        ]
    );
    for call in &calls {
        assert_eq!(call.failed, call.status.as_deref() != Some("OK"));
        assert!(call.complete);
    }
    assert_eq!(calls[0].details.get("user"), Some("app"));
    assert_eq!(calls[0].details.get("application"), Some("psql"));
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_wrong_password() {
    let (calls, losses) = play(include_str!("../samples/postgres-denied.txt"), 5432);
    assert_eq!(told(&calls), [("connect", "postgres", "28P01")]);
    assert!(calls[0].failed && calls[0].complete);
    assert_eq!(losses, Losses::default());
}

#[test]
fn statements_that_were_prepared() {
    let (calls, losses) = play(include_str!("../samples/postgres-prepared.txt"), 5432);
    let mut expected = vec![
        ("connect", "postgres", "OK"),
        ("PREPARE", "users", "OK"),
        ("SELECT", "users", "OK"),
        ("PREPARE", "users", "OK"),
        ("UPDATE", "users", "OK"),
    ];
    expected.extend([("SELECT", "users", "OK"), ("UPDATE", "users", "OK")].repeat(4));
    assert_eq!(told(&calls), expected);
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/postgres-psycopg.txt"), 5432);
    let mut expected = vec![("connect", "postgres", "OK"), ("BEGIN", "", "OK")];
    expected.extend([("SELECT", "users", "OK")].repeat(5));
    expected.push(("PREPARE", "users", "OK"));
    expected.extend([("SELECT", "users", "OK")].repeat(2));
    expected.extend([("UPDATE", "users", "OK")].repeat(3));
    expected.extend([("SELECT", "orders", "OK"), ("COMMIT", "", "OK")]);
    assert_eq!(told(&calls), expected);
    assert_eq!(losses, Losses::default());
}

#[test]
fn unnamed_statements_and_a_pipeline() {
    let (calls, losses) = play(include_str!("../samples/postgres-extended.txt"), 5432);
    let pair = [("SELECT", "users", "OK"), ("UPDATE", "users", "OK")];
    assert_eq!(told(&calls)[1..], pair.repeat(3));
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/postgres-pipeline.txt"), 5432);
    let three = [
        ("SELECT", "users", "OK"),
        ("INSERT", "orders", "OK"),
        ("SELECT", "orders", "OK"),
    ];
    assert_eq!(told(&calls)[1..], three.repeat(2));
    assert_eq!(losses, Losses::default());
}

#[test]
fn cursors_copies_and_a_cancelled_statement() {
    let (calls, losses) = play(include_str!("../samples/postgres-asyncpg.txt"), 5432);
    let told = told(&calls);
    assert_eq!(told.iter().filter(|told| told.0 == "INSERT").count(), 3);
    let end = [
        ("SELECT", "users", "OK"),
        ("CLOSE", "", "OK"),
        ("COMMIT", "", "OK"),
        ("PREPARE", "nope", "42P01"),
        ("PREPARE", "orders", "OK"),
        ("COPY", "orders", "OK"),
        ("SELECT", "", "57014"),
    ];
    assert_eq!(told[told.len() - end.len()..], end);
    // The rows are a part of it.
    let copy = &calls[calls.len() - 2];
    assert!(copy.request_bytes > 30_000 && copy.sent_ns > Some(copy.started_ns));
    assert_eq!(losses, Losses::default());
    let (calls, losses) = play(include_str!("../samples/postgres-cancel.txt"), 5432);
    assert_eq!(self::told(&calls), [("cancel", "", "-")]);
    assert_eq!(losses, Losses::default());
}

#[test]
fn gaps_never_mix_calls_up() {
    for sample in [
        include_str!("../samples/postgres-psql.txt"),
        include_str!("../samples/postgres-denied.txt"),
        include_str!("../samples/postgres-prepared.txt"),
        include_str!("../samples/postgres-extended.txt"),
        include_str!("../samples/postgres-pipeline.txt"),
        include_str!("../samples/postgres-asyncpg.txt"),
        include_str!("../samples/postgres-psycopg.txt"),
    ] {
        play_with_gaps(sample, 5432);
    }
}

#[test]
fn what_follows_an_error_is_passed_over() {
    let mut talk = Talk::new();
    let asked = [
        execute("SELECT 1 FROM a"),
        execute("SELECT 1 FROM b"),
        execute("SELECT 1 FROM c"),
    ]
    .concat();
    talk.client(&asked).client(SYNC);
    talk.client(&[&execute("SELECT 1 FROM d")[..], SYNC].concat());
    talk.server(&done()).server(&error("40001")).server(READY);
    talk.server(&done()).server(READY);
    assert_eq!(
        told(&talk.calls),
        [
            ("SELECT", "a", "OK"),
            ("SELECT", "b", "40001"),
            ("SELECT", "c", "aborted"),
            ("SELECT", "d", "OK"),
        ]
    );
    let ends: Vec<_> = talk
        .calls
        .iter()
        .map(|call| (call.ended_ns, call.failed, call.complete))
        .collect();
    assert_eq!(
        ends,
        [
            (4, false, true),
            (5, true, true),
            (6, true, false),
            (8, false, true)
        ]
    );
    assert_eq!(talk.conversation.losses(), Losses::default());
}

#[test]
fn a_commit_that_fails_fails_its_statement() {
    let mut talk = Talk::new();
    talk.client(&[&execute("INSERT INTO a VALUES ($1)")[..], SYNC].concat());
    talk.server(&done())
        .server(&[&error("23503")[..], READY].concat());
    assert_eq!(told(&talk.calls), [("INSERT", "a", "23503")]);
    assert_eq!(talk.calls[0].ended_ns, 3);
}

#[test]
fn what_nobody_asked_for_is_no_answer() {
    let mut talk = Talk::new();
    talk.client(&message(b'Q', b"SELECT 1 FROM a\0"));
    talk.server(&message(b'N', b"SNOTICE\0\0"))
        .server(&message(b'A', b"\0\0\0\x01a\0\0"));
    talk.server(&message(b'C', b"SELECT 1\0")).server(READY);
    talk.server(&error("57P01"));
    talk.conversation.end(9, End::Closed, &mut talk.calls);
    assert_eq!(told(&talk.calls), [("SELECT", "a", "OK")]);
    assert_eq!(
        (talk.calls[0].first_byte_ns, talk.calls[0].ended_ns),
        (Some(4), 5)
    );
}

#[test]
fn encryption_ends_what_can_be_read() {
    let (calls, losses) = play(include_str!("../samples/postgres-tls.txt"), 5432);
    assert_eq!(told(&calls), [("handshake", "", "TLSv1.3")]);
    assert_eq!(losses, Losses::default());
    let mut talk = Talk::new();
    talk.client(b"\0\0\0\x08\x04\xd2\x16\x30")
        .server(b"G")
        .client(&[0x99; 40]);
    assert!(talk.conversation.is_opaque() && talk.calls.is_empty());
}

#[test]
fn joined_in_its_middle_it_names_what_it_saw_prepared() {
    let mut talk = Talk::new();
    for side in [Side::Client, Side::Server] {
        talk.conversation.missing(side, 0, None, &mut talk.calls);
    }
    let mut bind = message(b'B', b"\0s1\0\0\0\0\0\0\0");
    bind.extend(message(b'E', &[0; 5]));
    bind.extend(SYNC);
    talk.server(&done()).server(READY);
    let answer = [message(b'2', b""), message(b'C', b"SELECT 1\0"), READY.to_vec()].concat();
    talk.quiet(2_000_000).client(&bind).server(&answer);
    talk.client(&[message(b'P', b"s1\0SELECT 1 FROM a\0\0\0"), bind.clone()].concat());
    talk.server(&[message(b'1', b""), answer.clone()].concat());
    assert_eq!(told(&talk.calls), [("?", "?", "OK"), ("SELECT", "a", "OK")]);
    // The name may have been given away in a gap.
    talk.conversation
        .missing(Side::Client, talk.at, Some(50), &mut talk.calls);
    talk.client(&bind)
        .server(&answer)
        .quiet(2_000_000)
        .client(&bind)
        .server(&answer);
    assert_eq!(told(&talk.calls[2..]), [("?", "?", "OK")]);
}

#[test]
fn long_statements_and_values_are_passed_over() {
    let mut talk = Talk::new();
    let text = format!("SELECT '{}' FROM a", "x".repeat(200_000));
    talk.client(&message(b'Q', format!("{text}\0").as_bytes()));
    talk.server(&message(b'D', &[0; 300_000]))
        .server(&message(b'C', b"SELECT 1\0"))
        .server(READY);
    // The table is behind what is read.
    assert_eq!(told(&talk.calls), [("SELECT", "", "OK")]);
    assert_eq!(
        (talk.calls[0].request_bytes, talk.calls[0].response_bytes),
        (200_022, 300_025)
    );
}

#[test]
fn requests_of_kafka_are_not_taken_for_a_start() {
    let mut talk = Talk::new();
    // `Metadata`, version 12, and an answer.
    talk.client(b"\0\0\0\x14\0\x03\0\x0c\0\0\0\x01\0\x04test\0\0\0\0\0\0");
    talk.server(b"\0\0\0\x08\0\0\0\x01\0\0\0\0");
    assert_ne!(talk.conversation.protocol(), Some(ProtocolName::Postgres));
}
