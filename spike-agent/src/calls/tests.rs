//! Segments in any order, connections that come and go, the budget: what becomes of sampled bytes.

use std::time::Duration;

use super::{Book, Budget, Connections, EdgeCall, Sample};
use crate::protocol::Side;

/// Plays a connection to port 80.
struct Player {
    connections: Connections,
    book: Book,
    calls: Vec<EdgeCall>,
    at_ns: u64,
}

impl Player {
    fn new() -> Self {
        Self {
            connections: Connections::default(),
            book: Book::default(),
            calls: Vec::new(),
            at_ns: 1_000,
        }
    }

    fn sample<'a>(&mut self, from: Side, sequence: u32, bytes: &'a [u8]) -> Sample<'a> {
        self.at_ns += 1_000;
        Sample {
            is_datagram: false,
            cookie: 7,
            edge: 3,
            at_ns: self.at_ns,
            from,
            port: 80,
            sequence,
            length: u32::try_from(bytes.len()).unwrap(),
            bytes,
            first: false,
            fin: false,
            reset: false,
        }
    }

    fn take(&mut self, sample: &Sample<'_>) {
        self.connections.take(sample, &mut self.book, &mut self.calls);
    }

    /// Opens with a request and its response: 16 bytes from sequence number 100, 40 from 500.
    fn open(&mut self) {
        let mut request = self.sample(Side::Client, 100, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        request.first = true;
        self.take(&request);
        let mut response = self.sample(
            Side::Server,
            500,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        );
        response.first = true;
        self.take(&response);
    }

    fn expire_after(&mut self, ns: u64) {
        self.at_ns += ns;
        let (book, calls) = (&mut self.book, &mut self.calls);
        self.connections.expire(self.at_ns, book, calls);
    }

    fn targets(&self) -> Vec<&str> {
        self.calls
            .iter()
            .map(|entry| entry.call.target.as_str())
            .collect()
    }
}

const REQUEST: &[u8] = b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn calls_are_found_and_counted_for_their_edge() {
    let mut player = Player::new();
    player.open();
    assert_eq!(player.targets(), ["/"]);
    assert_eq!(player.calls[0].edge, 3);
    let edge = player.book.edge(3).unwrap();
    assert_eq!((edge.calls, edge.failed), (1, 0));
    assert_eq!(edge.protocol().unwrap().as_str(), "http");
}

#[test]
fn what_is_sent_again_is_read_once() {
    let mut player = Player::new();
    player.open();
    // The last 4 bytes of the first request once more, then the next one, in one segment.
    let mut again = b"\r\n\r\n".to_vec();
    again.extend_from_slice(REQUEST);
    let request = player.sample(Side::Client, 100 + 27 - 4, &again);
    player.take(&request);
    let response = player.sample(Side::Server, 500 + 40, RESPONSE);
    player.take(&response);
    player.take(&response);
    assert_eq!(player.targets(), ["/", "/b"]);
    assert_eq!(player.book.edge(3).unwrap().losses.resyncs, 0);
}

#[test]
fn a_body_that_was_not_copied_costs_nothing() {
    let mut player = Player::new();
    player.open();
    let request = player.sample(Side::Client, 127, REQUEST);
    player.take(&request);
    let mut response = player.sample(
        Side::Server,
        540,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n",
    );
    response.length += 9000;
    player.take(&response);
    assert_eq!(player.targets(), ["/", "/b"]);
    assert_eq!(player.calls[1].call.response_bytes, 41 + 9000);
    assert_eq!(player.book.edge(3).unwrap().losses.bytes, 0);
}

#[test]
fn a_lost_segment_is_a_gap_and_no_wrong_pair() {
    let mut player = Player::new();
    player.open();
    // The request is lost, its response is not.
    let response = player.sample(Side::Server, 540, RESPONSE);
    player.take(&response);
    let next = player.sample(Side::Client, 127 + 28, b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n");
    player.take(&next);
    let answer = player.sample(Side::Server, 580, RESPONSE);
    player.take(&answer);
    assert_eq!(player.targets(), ["/"], "it may yet come");
    player.expire_after(60_000_000);
    assert_eq!(player.targets().first(), Some(&"/"));
    assert!(!player.targets().contains(&"/b"));
    for entry in &player.calls {
        assert!(
            entry.call.ended_ns - entry.call.started_ns < 2_000,
            "{:?}",
            entry.call
        );
    }
    assert!(player.book.edge(3).unwrap().losses.resyncs > 0);
}

#[test]
fn a_connection_joined_late_is_read_from_its_next_request() {
    let mut player = Player::new();
    let middle = player.sample(Side::Server, 9_000, b"the rest of a body");
    player.take(&middle);
    let request = player.sample(Side::Client, 4_000, REQUEST);
    player.take(&request);
    let response = player.sample(Side::Server, 9_018, RESPONSE);
    player.take(&response);
    assert_eq!(player.targets(), ["/b"]);
}

#[test]
fn sequence_numbers_wrap() {
    let mut player = Player::new();
    let start = u32::MAX - 10;
    let mut request = player.sample(Side::Client, start, REQUEST);
    request.first = true;
    player.take(&request);
    let length = u32::try_from(REQUEST.len()).unwrap();
    let mut response = player.sample(Side::Server, 1, RESPONSE);
    response.first = true;
    player.take(&response);
    let request = player.sample(Side::Client, start.wrapping_add(length), REQUEST);
    player.take(&request);
    let response = player.sample(Side::Server, 41, RESPONSE);
    player.take(&response);
    assert_eq!(player.targets(), ["/b", "/b"]);
}

#[test]
fn a_reset_ends_an_open_call_as_failed() {
    let mut player = Player::new();
    player.open();
    let request = player.sample(Side::Client, 127, REQUEST);
    player.take(&request);
    let mut reset = player.sample(Side::Server, 540, b"");
    reset.reset = true;
    player.take(&reset);
    assert_eq!(player.targets(), ["/", "/b"]);
    assert!(player.calls[1].call.failed);
    assert!(player.connections.is_empty());
}

#[test]
fn idle_connections_are_let_go() {
    let mut player = Player::new();
    player.open();
    player
        .connections
        .expire(player.at_ns + 59_000_000_000, &mut player.book, &mut player.calls);
    assert_eq!(player.connections.len(), 1);
    player
        .connections
        .expire(player.at_ns + 61_000_000_000, &mut player.book, &mut player.calls);
    assert!(player.connections.is_empty());
}

#[test]
fn the_budget_is_kept_and_given_back() {
    const WALL: Duration = Duration::from_millis(200);
    let mut budget = Budget::new(0.05);
    assert_eq!(budget.turn().below, u32::MAX);
    for (percent, is_spent) in [(4, false), (6, true)] {
        assert_eq!(budget.is_spent(WALL, WALL * percent / 100, 0), is_spent);
    }
    // Decoding everything would take 80 % of a core.
    let cost = |budget: &Budget| WALL.mul_f64(0.8 * budget.sampled());
    for _ in 0..50 {
        let busy = cost(&budget);
        budget.adjust(WALL, busy, 0);
    }
    assert!((0.03..0.065).contains(&budget.used()), "{}", budget.used());
    assert!((0.03..0.09).contains(&budget.sampled()), "{}", budget.sampled());
    let seed = budget.turn().seed;
    assert!(seed > 0, "each connection has its turn");
    for _ in 0..50 {
        budget.adjust(WALL, Duration::from_millis(1), 0);
    }
    assert_eq!(budget.turn().below, u32::MAX);
}

#[test]
fn without_a_budget_nothing_is_sampled() {
    let mut budget = Budget::new(0.0);
    assert!(!budget.is_spent(Duration::from_millis(200), Duration::from_secs(1), 1000));
    assert_eq!(budget.turn().below, 0);
    assert!(!budget.adjust(Duration::from_secs(1), Duration::ZERO, 0));
}

/// A query of A db.test, as the resolver of glibc sends it.
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x04test\x00\x00\x01\x00\x01";

#[test]
fn a_query_finds_its_answer_or_is_told_without() {
    let mut player = Player::new();
    let mut answer = QUERY.to_vec();
    // An answer that says that there is no such name (RFC 1035 section 4.1.1).
    (answer[2], answer[3]) = (0x81, 0x83);
    let datagram = |player: &mut Player, from, id: u8, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[1] = id;
        let mut sample = player.sample(from, 0, &bytes);
        sample.is_datagram = true;
        player.take(&sample);
    };
    datagram(&mut player, Side::Server, 9, &answer);
    for id in [1, 2, 1] {
        datagram(&mut player, Side::Client, id, QUERY);
    }
    datagram(&mut player, Side::Server, 2, &answer);
    datagram(&mut player, Side::Server, 2, &answer);
    assert_eq!(player.targets(), ["db.test"]);
    let call = player.calls[0].call.clone();
    assert_eq!(
        (call.operation.as_str(), call.status.as_deref()),
        ("A", Some("NXDOMAIN"))
    );
    assert_eq!(
        (call.failed, call.complete),
        (false, true),
        "that there is none is an answer"
    );
    assert_eq!(call.ended_ns - call.started_ns, 2_000);

    let (at, book, calls) = (player.at_ns, &mut player.book, &mut player.calls);
    player.connections.expire(at + 4_000_000_000, book, calls);
    assert_eq!(calls.len(), 1);
    player.connections.expire(at + 6_000_000_000, book, calls);
    assert_eq!(calls.len(), 2);
    let call = &calls[1].call;
    assert_eq!(
        (call.failed, call.complete, call.first_byte_ns),
        (true, false, None)
    );
    let edge = book.edge(3).unwrap();
    assert_eq!(
        (edge.calls, edge.failed, edge.protocol().unwrap().as_str()),
        (2, 1, "dns")
    );

    let mut garbage = player.sample(Side::Client, 0, b"no message");
    garbage.is_datagram = true;
    player.take(&garbage);
    assert_eq!(player.book.edge(3).unwrap().losses.undecodable, 1);
}

#[test]
fn segments_are_wanted_whole_where_more_than_a_body_is_lost() {
    let mut player = Player::new();
    player.open();
    let requests = [REQUEST, REQUEST].concat();
    let request = player.sample(Side::Client, 127, &requests);
    player.take(&request);
    // Of two responses the second is not copied.
    let mut responses = player.sample(Side::Server, 540, RESPONSE);
    responses.length += 40;
    player.take(&responses);
    assert_eq!(player.connections.take_wants(), [(7, super::Want::Whole)]);
    player.take(&responses);
    assert_eq!(player.connections.take_wants(), []);
}

#[test]
fn what_overtook_is_put_right() {
    let mut player = Player::new();
    player.open();
    let (first, second) = REQUEST.split_at(10);
    let late = player.sample(Side::Client, 127, first);
    let early = player.sample(Side::Client, 137, second);
    let response = player.sample(Side::Server, 540, RESPONSE);
    for sample in [&early, &response, &late] {
        player.take(sample);
    }
    assert_eq!(player.targets(), ["/", "/b"]);
    let call = &player.calls[1].call;
    assert_eq!((call.started_ns, call.ended_ns), (late.at_ns, response.at_ns));
    assert_eq!(player.book.edge(3).unwrap().losses.resyncs, 0);
}

#[test]
fn waiting_is_bounded() {
    let mut player = Player::new();
    player.open();
    for index in 0..1_000 {
        let sample = player.sample(Side::Server, 10_000 + index * 100, RESPONSE);
        player.take(&sample);
    }
    let lost = player.book.edge(3).unwrap().losses;
    assert!(lost.resyncs > 0, "{lost:?}");
}
