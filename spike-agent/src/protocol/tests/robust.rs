//! Any bytes, in any pieces: the same calls, no panic, bounded memory.

use proptest::{collection::vec, prelude::*, string::bytes_regex};

use super::{Call, Conversation, EAGER, End, Kind, PATIENT, Side, Talk};
use crate::protocol::{kind::ALL, stream::HEAD_LIMIT};

/// What a client asks and a server answers, with bodies, in order and by id, pipelined.
fn talk() -> impl Strategy<Value = Vec<(Side, String)>> {
    let exchange = (0..3_usize, 0..40_usize, 1..4_usize, any::<bool>());
    vec(exchange, 1..12).prop_map(|exchanges| {
        let mut said = Vec::new();
        for (index, (kind, size, count, oneway)) in exchanges.into_iter().enumerate() {
            let (mut asked, mut answered) = (String::new(), String::new());
            let body = "b".repeat(size);
            for nth in 0..count {
                let id = if kind == 0 {
                    String::new()
                } else {
                    format!("{}", index * 10 + nth)
                };
                asked.push_str(&format!("@Q{id} op{index}-{nth} {size}\n{body}"));
                let word = if nth == 2 { "bad" } else { "ok" };
                answered.push_str(&format!("@R{id} {word} {size}\n{body}"));
            }
            if oneway {
                asked.push_str("@O tell 2\nhi");
            }
            said.extend([(Side::Client, asked), (Side::Server, answered)]);
        }
        said
    })
}

/// Feeds it, each piece split again at every `splits`th byte, in turn.
fn calls(said: &[(Side, String)], splits: &[usize]) -> Vec<Call> {
    let mut talk = Talk::new(PATIENT);
    let mut splits = splits.iter().cycle();
    for (at, (side, text)) in said.iter().enumerate() {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let count = splits.next().map_or(rest.len(), |count| rest.len().min(*count));
            let (piece, behind) = rest.split_at(count);
            talk.conversation.data(*side, at as u64, piece, &mut talk.calls);
            rest = behind;
        }
    }
    talk.calls
}

#[derive(Clone, Debug)]
enum Fed {
    Data(bool, Vec<u8>),
    Missing(bool, Option<u64>),
}

/// Bytes by a regex, in which `.` is any of them.
fn bytes(regex: &str) -> impl Strategy<Value = Vec<u8>> {
    bytes_regex(&format!("(?s-u:{regex})")).unwrap()
}

fn fed() -> impl Strategy<Value = Vec<Fed>> {
    let lines = prop_oneof![
        vec(any::<u8>(), 0..200),
        "(@[QROICTUZ][0-9]? [a-z]{1,4} [0-9]{1,3}\n[a-z]{0,20}){1,5}".prop_map(String::into_bytes),
        "(GET|HEAD|POST) /[a-z0-9/]{0,9} HTTP/1.1\r\n(Content-Length: [0-9]\r\n|Transfer-Encoding: chunked\r\n)?\r\n"
            .prop_map(String::into_bytes),
        "HTTP/1.1 (200|204|101|500) OK\r\n(Content-Length: [0-9]\r\n|Transfer-Encoding: chunked\r\n)?\r\n[0-9a-f\r\n]{0,20}"
            .prop_map(String::into_bytes),
        "((PUB|MSG|HPUB|set|get|mg) [a-z]{1,3} ([0-9]{1,2} ){0,4}(noreply|q)?\r\n[a-z]{0,9}(\r\n)?){1,6}".prop_map(String::into_bytes),
        "([*$:+%>-][0-9]{1,3}\r\n[A-Za-z]{0,5}(\r\n)?){1,8}".prop_map(String::into_bytes),
        bytes(r"(PRI \* HTTP/2.0\r\n\r\nSM\r\n\r\n)?(\x00\x00[\x00-\x20][\x00-\x09][\x00\x01\x04\x05]\x00\x00\x00[\x00-\x05](\x82|\x84|\x86|\x88|\xbe|\x44\x02/.|.){0,32}){1,6}"),
        bytes(r"([QPBDECSHXFdcfpRKZT1-3nstAGIN]\x00\x00\x00[\x04-\x14](I|[a-z]\x00|\x00|select 1 from a|.){0,8}){1,8}"),
        bytes(r"(\x00\x00\x00\x08\x04\xd2\x16[\x2e\x2f])?\x00\x00\x00\x10\x00\x03\x00\x00user\x00a\x00\x00|[NSG]"),
        bytes(r"([\x14-\x17]\x03[\x01-\x03]\x00[\x01-\x14]([\x01\x02\x0b]\x00\x00[\x00-\x08])?.{0,16}){1,6}"),
        bytes(r"(\x00[\x0c-\x20]\x00[\x01-\x03][\x01\x81][\x00-\x05]\x00\x01\x00\x00\x00\x00\x00\x00(\x01[a-z]){0,2}\x00\x00\x01\x00\x01.{0,3}){1,4}"),
    ];
    let one = prop_oneof![
        8 => (any::<bool>(), lines).prop_map(|(client, bytes)| Fed::Data(client, bytes)),
        1 => (any::<bool>(), proptest::option::of(0..2000_u64)).prop_map(|(client, count)| Fed::Missing(client, count)),
        1 => any::<bool>().prop_map(|client| Fed::Missing(client, Some(u64::MAX))),
    ];
    vec(one, 0..60)
}

fn feed(kinds: &'static [Kind], fed: &[Fed]) {
    let side = |client: bool| if client { Side::Client } else { Side::Server };
    let mut conversation = Conversation::of(kinds, 6379);
    let mut out = Vec::new();
    for (at, fed) in fed.iter().enumerate() {
        match fed {
            Fed::Data(client, bytes) => conversation.data(side(*client), at as u64, bytes, &mut out),
            Fed::Missing(client, count) => conversation.missing(side(*client), at as u64, *count, &mut out),
        }
        assert!(conversation.held() <= 2 * HEAD_LIMIT);
    }
    conversation.end(fed.len() as u64, End::Closed, &mut out);
    for call in out {
        assert!(
            call.started_ns <= call.ended_ns && call.first_byte_ns.is_none_or(|first| first <= call.ended_ns)
        );
    }
}

proptest! {
    #[test]
    fn the_pieces_in_which_bytes_come_change_nothing(said in talk(), splits in vec(1..30_usize, 1..10)) {
        let whole = calls(&said, &[]);
        prop_assert!(!whole.is_empty());
        prop_assert_eq!(whole, calls(&said, &splits));
    }

    #[test]
    fn any_bytes_are_survived(fed in fed()) {
        feed(EAGER, &fed);
        feed(PATIENT, &fed);
        feed(ALL, &fed);
    }
}

#[test]
fn a_head_that_does_not_end_is_bounded() {
    let mut talk = Talk::new(EAGER);
    talk.client(0, "@Q ");
    for at in 0..200 {
        talk.client(at, &"x".repeat(1000));
        assert!(talk.conversation.held() <= HEAD_LIMIT);
    }
    assert_eq!(talk.conversation.losses().undecodable, 1);
}

#[test]
fn requests_that_are_never_answered_are_bounded() {
    let mut talk = Talk::new(EAGER);
    for at in 0..5000 {
        talk.client(at, &format!("@Q{at} a 0\n"));
    }
    talk.end(5000, End::Reset);
    assert_eq!(talk.calls.len(), 1024);
    assert_eq!(talk.conversation.losses().calls, 5000 - 1024);
}
