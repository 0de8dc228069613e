//! MariaDB with its shell, PyMySQL and MySQL's connector, as recorded, and what they don't do.

use crate::protocol::{
    Call, Conversation, Losses, ProtocolName, Side,
    tests::sample::{play, told},
};

struct Talk {
    conversation: Conversation,
    calls: Vec<Call>,
    at: u64,
}

impl Talk {
    fn new() -> Self {
        Self {
            conversation: Conversation::new(3306),
            calls: Vec::new(),
            at: 0,
        }
    }

    fn joined() -> Self {
        let mut talk = Self::new();
        talk.missing(Side::Client, None).missing(Side::Server, None);
        talk
    }

    /// Sends packets, the first of which has that number.
    fn say(&mut self, side: Side, mut sequence: u8, payloads: &[&[u8]]) -> &mut Self {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
            bytes.push(sequence);
            bytes.extend_from_slice(payload);
            sequence = sequence.wrapping_add(1);
        }
        self.at += 1;
        self.conversation.data(side, self.at, &bytes, &mut self.calls);
        self
    }

    fn query(&mut self, statement: &str) -> &mut Self {
        self.say(Side::Client, 0, &[&[b"\x03", statement.as_bytes()].concat()])
    }

    fn missing(&mut self, side: Side, count: Option<u64>) -> &mut Self {
        self.at += 1;
        self.conversation.missing(side, self.at, count, &mut self.calls);
        self
    }
}

/// Of a connection that was joined in its middle, if no more is lost.
const JOINED: Losses = Losses {
    undecodable: 0,
    bytes: 0,
    resyncs: 2,
    calls: 0,
};

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
const COLUMN: &[u8] = b"\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00";

#[test]
fn a_shell() {
    let (calls, losses) = play(include_str!("../samples/mysql-shell.txt"), 3306);
    assert_eq!(
        told(&calls),
        [
            ("connect", "shop", "OK"),
            ("INSERT", "orders", "OK"),
            ("SELECT", "orders", "OK"),
            ("CALL", "two", "OK"),
            ("SELECT", "", "OK"),
            ("USE", "mysql", "OK"),
            ("SELECT", "shop.orders", "OK"),
            ("UPDATE", "shop.orders", "OK"),
            ("SELECT", "nosuch", "1146 (42S02)"),
            ("QUIT", "", "-"),
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn several_results_and_a_file() {
    let (calls, losses) = play(include_str!("../samples/mysql-results.txt"), 3306);
    assert_eq!(
        told(&calls),
        [
            ("connect", "shop", "OK"),
            ("SET", "", "OK"),
            ("SET", "", "OK"),
            ("INSERT", "orders", "OK"),
            ("COMMIT", "", "OK"),
            ("SELECT", "orders", "OK"),
            ("LOAD", "orders", "OK"),
            ("PING", "", "OK"),
            ("USE", "mysql", "OK"),
            ("ROLLBACK", "", "OK"),
            ("INSERT", "shop.orders", "1062 (23000)"),
            ("QUIT", "", "-"),
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_wrong_password() {
    let (calls, losses) = play(include_str!("../samples/mysql-denied.txt"), 3306);
    assert_eq!(told(&calls), [("connect", "", "1045 (28000)")]);
    assert!(calls[0].failed && calls[0].complete);
    assert_eq!(losses, Losses::default());
}

#[test]
fn prepared_statements() {
    let (calls, losses) = play(include_str!("../samples/mysql-prepared.txt"), 3306);
    assert_eq!(
        told(&calls),
        [
            ("connect", "shop", "OK"),
            ("SET", "", "OK"),
            ("SET", "", "OK"),
            ("PING", "", "OK"),
            ("PREPARE", "orders", "OK"),
            ("RESET STATEMENT", "orders", "OK"),
            ("SELECT", "orders", "OK"),
            ("RESET STATEMENT", "orders", "OK"),
            ("SELECT", "orders", "OK"),
            ("CLOSE", "orders", "-"),
            ("PREPARE", "orders", "OK"),
            ("RESET STATEMENT", "orders", "OK"),
            ("UPDATE", "orders", "OK"),
            ("CLOSE", "orders", "-"),
            ("PREPARE", "orders", "OK"),
            ("RESET STATEMENT", "orders", "OK"),
            ("DELETE", "orders", "OK"),
            ("COMMIT", "", "OK"),
            ("CLOSE", "orders", "-"),
            ("PREPARE", "gone", "1146 (42S02)"),
            ("CHANGE USER", "", "OK"),
            ("SET", "", "OK"),
            ("SET", "", "OK"),
            ("RESET CONNECTION", "", "OK"),
            ("SET", "", "OK"),
            ("SET", "", "OK"),
            ("QUIT", "", "-"),
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_large_result() {
    let (calls, losses) = play(include_str!("../samples/mysql-large.txt"), 3306);
    assert_eq!(
        told(&calls),
        [
            ("connect", "shop", "OK"),
            ("SET", "", "OK"),
            ("SET", "", "OK"),
            ("SELECT", "orders", "OK"),
            ("QUIT", "", "-"),
        ]
    );
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_proof_of_another_kind() {
    let (calls, losses) = play(include_str!("../samples/mysql-switch.txt"), 3306);
    assert_eq!(told(&calls)[0], ("connect", "", "OK"));
    assert_eq!(losses, Losses::default());
}

#[test]
fn of_tls_the_handshake_is_told() {
    let (calls, losses) = play(include_str!("../samples/mysql-tls.txt"), 3306);
    let protocols: Vec<_> = calls.iter().map(|call| call.protocol).collect();
    assert_eq!(protocols, [ProtocolName::MySql, ProtocolName::Tls]);
    assert_eq!(told(&calls), [("connect", "", "-"), ("handshake", "", "TLSv1.3")]);
    assert_eq!(calls[0].details.get("tls"), Some("true"));
    assert_eq!(losses, Losses::default());
}

#[test]
fn what_is_compressed_is_left_alone() {
    let (calls, losses) = play(include_str!("../samples/mysql-compressed.txt"), 3306);
    assert_eq!(told(&calls), [("connect", "", "OK")]);
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_statement_of_more_than_a_packet() {
    let mut talk = Talk::joined();
    talk.query("SELECT 1").say(Side::Server, 1, &[OK]);
    let mut statement = b"\x03INSERT INTO t VALUES ('".to_vec();
    statement.resize(0xff_ffff, b'x');
    talk.say(Side::Client, 0, &[&statement, b"')"])
        .say(Side::Server, 2, &[OK]);
    assert_eq!(told(&talk.calls), [("SELECT", "", "OK"), ("INSERT", "t", "OK")]);
    assert_eq!(talk.calls[1].request_bytes, 4 + 0xff_ffff + 4 + 2);
    let row = vec![b'x'; 0xff_ffff];
    talk.query("SELECT a FROM t")
        .say(Side::Server, 1, &[&[1], COLUMN, EOF, &row, b"\xfe", EOF]);
    assert_eq!(told(&talk.calls)[2..], [("SELECT", "t", "OK")]);
    assert_eq!(talk.conversation.losses(), JOINED);
}

#[test]
fn what_was_not_agreed_on_in_sight_is_found_out() {
    let mut talk = Talk::joined();
    let prepared = b"\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00";
    talk.say(Side::Client, 0, &[b"\x16SELECT a FROM t WHERE b=?"]);
    talk.say(Side::Server, 1, &[prepared, COLUMN, EOF, COLUMN, EOF]);
    let execute = b"\x17\x01\x00\x00\x00\x00\x01\x00\x00\x00";
    talk.say(Side::Client, 0, &[execute]);
    // An error in the middle of a result.
    talk.say(
        Side::Server,
        1,
        &[
            &[1],
            COLUMN,
            EOF,
            b"\x00\x00\x01a",
            b"\xff\x25\x05#70100Query interrupted",
        ],
    );
    talk.say(Side::Client, 0, &[b"\x19\x01\x00\x00\x00"]);
    let expected = [
        ("PREPARE", "t", "OK"),
        ("SELECT", "t", "1317 (70100)"),
        ("CLOSE", "t", "-"),
    ];
    assert_eq!(told(&talk.calls), expected);
    assert_eq!(talk.conversation.losses(), JOINED);
    // Without ends of lists, where a client that wants none says so only at the start.
    let mut talk = Talk::joined();
    talk.say(Side::Client, 0, &[b"\x16SELECT a FROM t WHERE b=?"]);
    talk.say(Side::Server, 1, &[prepared, COLUMN, COLUMN]);
    talk.say(Side::Client, 0, &[execute]);
    talk.say(
        Side::Server,
        1,
        &[&[1], COLUMN, b"\x00\x00\x01a", b"\xfe\x00\x00\x02\x00\x00\x00"],
    );
    talk.query("SELECT 2").say(Side::Server, 1, &[OK]);
    let expected = [
        ("PREPARE", "t", "OK"),
        ("SELECT", "t", "OK"),
        ("SELECT", "", "OK"),
    ];
    assert_eq!(told(&talk.calls), expected);
    assert_eq!(talk.conversation.losses(), JOINED);
}

#[test]
fn after_a_gap_no_answer_is_taken_for_another() {
    let mut talk = Talk::joined();
    talk.query("SELECT 1").say(Side::Server, 1, &[OK]);
    // The answer of the first is lost, in part.
    talk.query("SELECT a FROM first").missing(Side::Server, Some(40));
    talk.say(Side::Server, 4, &[b"\x01a", EOF]);
    talk.query("SELECT a FROM second")
        .say(Side::Server, 1, &[&[1], COLUMN, EOF, EOF]);
    // So is a command.
    talk.missing(Side::Client, Some(30)).say(Side::Server, 1, &[OK]);
    talk.query("SELECT a FROM third").say(Side::Server, 1, &[OK]);
    talk.query("SELECT a FROM fourth").say(Side::Server, 1, &[OK]);
    let tables: Vec<_> = talk.calls.iter().map(|call| &*call.target).collect();
    assert_eq!(tables, ["", "second", "third", "fourth"]);
    assert!(talk.calls.iter().all(|call| call.ended_ns == call.started_ns + 1));
}

#[test]
fn an_answer_with_another_number_is_no_answer() {
    let mut talk = Talk::joined();
    talk.query("SELECT 1").say(Side::Server, 2, &[OK]);
    talk.query("SELECT 2").say(Side::Server, 1, &[OK]);
    assert_eq!(talk.calls.len(), 1);
    assert_eq!(talk.calls[0].started_ns, 5);
    assert_eq!(talk.conversation.losses().undecodable, 1);
}
