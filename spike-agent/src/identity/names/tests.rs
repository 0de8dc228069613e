//! Answers of a real server, and histories.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::Query,
    rr::{
        Record, RecordType,
        rdata::{A, CNAME},
    },
};

use super::*;

const ME: Asker = Asker { netns: 7, cgroup: 42 };
const OTHER: Asker = Asker { netns: 7, cgroup: 43 };

/// dnsmasq 2.90 on db.shop.test: 10.0.0.7 and fd00::7.
const DB_A: &str =
    "1234858000010001000000000264620473686f7004746573740000010001c00c000100010000000000040a000007";
const DB_AAAA: &str = "1234858000010001000000000264620473686f70047465737400001c0001c00c001c0001000000000010fd000000000000\
    000000000000000007";
/// dnsmasq 2.90 on WWW.shop.test, with EDNS: an alias of edge.shop.test, which is one of web.shop.test, 10.0.0.8.
const WWW: &str = "123485800001000300000001035757570473686f7004746573740000010001c00c00050001000000000010046564676504\
    73686f70047465737400c02b0005000100000000000f037765620473686f70047465737400c047000100010000000000040a00000800002904\
    d0000000000000";
/// dnsmasq 2.90 on what does not exist, and on a TXT record that does not.
const NOTHING: &str = "123481830001000000000000076e6f7468696e670473686f7004746573740000010001";
const NO_TXT: &str = "1234818000010000000000000264620473686f7004746573740000100001";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn dns(name: &str) -> Name {
    Name::from_ascii(name).unwrap()
}

fn answer(question: &str, records: impl IntoIterator<Item = Record>) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    message.add_query(Query::query(dns(question), RecordType::A));
    message.add_answers(records);
    message
}

fn a(name: &str, address: [u8; 4]) -> Record {
    Record::from_rdata(dns(name), 1, RData::A(A(Ipv4Addr::from(address))))
}

fn cname(name: &str, target: &str) -> Record {
    Record::from_rdata(dns(name), 1, RData::CNAME(CNAME(dns(target))))
}

/// `asker` resolved `name` to 10.0.0.1 at each of these times, in this order of arrival.
fn history(asker: Asker, sightings: &[(&str, u64)]) -> NameTable {
    let mut table = NameTable::default();
    for (name, at) in sightings {
        let message = answer(name, [a(name, [10, 0, 0, 1])]).to_vec().unwrap();
        table.learn(asker, &message, *at).unwrap();
    }
    table
}

#[test]
fn real_answers_are_learned() {
    let mut table = NameTable::default();
    for message in [DB_A, DB_AAAA, WWW, NOTHING, NO_TXT] {
        table.learn(ME, &bytes(message), 100).unwrap();
    }
    let name = |address| table.name(ME, ip(address), 100);
    assert_eq!(name("10.0.0.7").as_deref(), Some("db.shop.test"));
    assert_eq!(name("::ffff:10.0.0.7").as_deref(), Some("db.shop.test"));
    assert_eq!(name("fd00::7").as_deref(), Some("db.shop.test"));
    assert_eq!(
        name("10.0.0.8").as_deref(),
        Some("www.shop.test"),
        "what was asked for, in small letters"
    );
    assert_eq!(table.addresses, 3);
    assert_eq!(table.name(OTHER, ip("10.0.0.7"), 100), None, "somebody else's");
    assert_eq!(table.name(ME, ip("10.0.0.7"), 99), None, "not yet");
    assert_eq!(
        table.name(ME, ip("10.0.0.7"), u64::MAX).as_deref(),
        Some("db.shop.test"),
        "long after its TTL"
    );
}

#[test]
fn the_last_name_before_the_connection_counts() {
    let table = history(
        ME,
        &[("a", 10), ("b", 20), ("a", 30), ("a", 40), ("a", 50), ("b", 60)],
    );
    for (at, expected) in [
        (9, None),
        (10, Some("a")),
        (25, Some("b")),
        (30, Some("a")),
        (59, Some("a")),
        (60, Some("b")),
    ] {
        assert_eq!(table.name(ME, ip("10.0.0.1"), at).as_deref(), expected, "{at}");
    }
    let late = history(ME, &[("a", 10), ("a", 30), ("b", 20), ("c", 5)]);
    for (at, expected) in [(5, "c"), (10, "a"), (20, "b"), (30, "a")] {
        assert_eq!(
            late.name(ME, ip("10.0.0.1"), at).as_deref(),
            Some(expected),
            "out of order, {at}"
        );
    }
}

#[test]
fn only_what_the_question_leads_to_counts() {
    let mut table = NameTable::default();
    let mut learn = |message: &Message| table.learn(ME, &message.to_vec().unwrap(), 1).unwrap();
    // Aliases in any order, one of them its own; and records that nobody asked for.
    learn(&answer(
        "shop.test.",
        [
            a("c.test.", [10, 0, 0, 1]),
            cname("b.test.", "c.test."),
            cname("Shop.test.", "b.test."),
            cname("c.test.", "shop.test."),
            a("bank.test.", [10, 0, 0, 2]),
        ],
    ));
    let mut failed = answer("x.test.", [a("x.test.", [10, 0, 0, 3])]);
    failed.metadata.response_code = ResponseCode::ServFail;
    learn(&failed);
    let mut query = answer("x.test.", [a("x.test.", [10, 0, 0, 4])]);
    query.metadata.message_type = MessageType::Query;
    learn(&query);
    learn(&Message::response(1, OpCode::Query));
    let name = |last: u8| table.name(ME, IpAddr::from([10, 0, 0, last]), 1);
    assert_eq!(name(1).as_deref(), Some("shop.test"));
    assert_eq!((name(2), name(3), name(4)), (None, None, None));
}

#[test]
fn memory_is_bounded_and_the_greedy_pay() {
    let names: Vec<String> = (0..50).map(|n| format!("n{n}")).collect();
    let sightings: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(1..).collect();
    let mut table = history(ME, &sightings);
    assert_eq!(table.askers[&ME].peek(&ip("10.0.0.1")).unwrap().len(), MAX_NAMES);
    assert_eq!(table.name(ME, ip("10.0.0.1"), 50).as_deref(), Some("n49"));
    for n in 0..MAX_ADDRESSES as u32 + 100 {
        let address = Ipv4Addr::from(0x0b00_0000 + n).octets();
        let message = answer("crawl.test.", [a("crawl.test.", address)])
            .to_vec()
            .unwrap();
        table.learn(OTHER, &message, 60).unwrap();
    }
    assert_eq!(table.addresses, MAX_ADDRESSES);
    assert_eq!(
        table.askers.values().map(LruCache::len).sum::<usize>(),
        MAX_ADDRESSES
    );
    assert_eq!(table.name(ME, ip("10.0.0.1"), 60).as_deref(), Some("n49"));
    assert_eq!(
        table.name(OTHER, ip("11.0.0.0"), 60),
        None,
        "the oldest of the greedy one's"
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(mut message in proptest::collection::vec(proptest::num::u8::ANY, 0..96), real: bool) {
        if real {
            // A real answer with some bytes overwritten gets further.
            let mut whole = bytes(WWW);
            for (at, byte) in message.drain(..).enumerate().step_by(7) {
                let length = whole.len();
                whole[(at * 31 + usize::from(byte)) % length] = byte;
            }
            message = whole;
        }
        _ = NameTable::default().learn(ME, &message, 1);
    }
}
