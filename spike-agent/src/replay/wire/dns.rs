//! DNS: questions and their answers, over TCP and in datagrams.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType},
};

use super::Recorded;
use crate::replay::{exchange::Talk, parts::Parts};

/// Bytes of a message's length over TCP.
const LENGTH: usize = 2;
/// Seconds for which an answer that was made up of a known address may be kept.
const TTL: u32 = 1;

/// A question without the number that its answer is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Chosen by who asks.
    pub id: u16,
    /// Type and name, as they are shown: `A api.example`.
    pub label: String,
    /// What it says.
    pub parts: Parts,
}

/// Reads a question; none if it is something else.
pub fn question(bytes: &[u8]) -> Option<Question> {
    let message = Message::from_vec(bytes).ok()?;
    let query = message.queries.first()?;
    if message.metadata.message_type != MessageType::Query {
        return None;
    }
    let name = query.name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let mut parts = Parts::default();
    parts.push("type", query.query_type.to_string());
    parts.push("name", name.clone());
    Some(Question {
        id: message.metadata.id,
        label: format!("{} {name}", query.query_type),
        parts,
    })
}

/// What an answer says. Its records may come in any order.
pub fn answer_parts(bytes: &[u8]) -> Parts {
    let mut parts = Parts::default();
    let Ok(message) = Message::from_vec(bytes) else {
        return parts;
    };
    parts.push("status", message.metadata.response_code.to_string());
    let shown = |record: &Record| {
        let (name, kind) = (record.name.to_ascii(), record.record_type());
        format!("{name} {kind} {}", record.data)
    };
    let mut answers: Vec<String> = message.answers.iter().map(shown).collect();
    answers.sort();
    for answer in answers {
        parts.push("answer", answer);
    }
    parts
}

/// The answer to a question that fails with a code.
pub fn failure(question: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    let mut message = Message::error_msg(asked.metadata.id, asked.metadata.op_code, code);
    message.add_queries(asked.queries);
    message.to_vec().ok()
}

/// A recorded answer, for another question that asks the same: with that one's number and spelling, and with EDNS where
/// that one has it. Its options are of the recorded question alone, such as cookies, and are left out.
pub fn answer_to(question: &[u8], answer: &[u8]) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    let Ok(mut told) = Message::from_vec(answer) else {
        // Whatever it is, it was the answer.
        return Some([&asked.metadata.id.to_be_bytes(), answer.get(2..)?].concat());
    };
    told.metadata.id = asked.metadata.id;
    told.queries = asked.queries;
    told.edns = asked.edns.is_some().then(|| plain(told.edns.as_ref()));
    told.to_vec().ok()
}

fn plain(recorded: Option<&Edns>) -> Edns {
    let mut edns = Edns::new();
    if let Some(recorded) = recorded {
        edns.set_max_payload(recorded.max_payload());
        edns.set_rcode_high(recorded.rcode_high());
    }
    edns
}

/// The answer to a question for a name whose addresses are known; none when it asks for something else.
pub fn addresses_to(question: &[u8], addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    let query = asked.queries.first()?.clone();
    let is_ipv4 = match query.query_type {
        RecordType::A => true,
        RecordType::AAAA => false,
        _ => return None,
    };
    let mut message = Message::response(asked.metadata.id, asked.metadata.op_code);
    message.metadata.recursion_desired = asked.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    for address in addresses.iter().filter(|address| address.is_ipv4() == is_ipv4) {
        let data = match address {
            IpAddr::V4(address) => RData::A((*address).into()),
            IpAddr::V6(address) => RData::AAAA((*address).into()),
        };
        message.add_answer(Record::from_rdata(query.name.clone(), TTL, data));
    }
    message.edns = asked.edns.is_some().then(Edns::new);
    message.add_query(query);
    message.to_vec().ok()
}

/// A message with its length before it, as over TCP.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), message].concat()
}

/// The size of the message at the start of `bytes`, behind its two bytes of length.
pub fn framed_size(bytes: &[u8]) -> Option<usize> {
    let length = bytes.first_chunk::<LENGTH>()?;
    Some(usize::from(u16::from_be_bytes(*length)))
}

/// The messages of one side: where each is, without its length.
fn messages(recorded: &Recorded, is_server: bool) -> Vec<std::ops::Range<usize>> {
    let flow = if is_server {
        &recorded.answers
    } else {
        &recorded.client
    };
    if recorded.is_udp {
        return flow.chunks().map(|(start, end, _)| start..end).collect();
    }
    let (mut at, mut found) = (0, Vec::new());
    while let Some(size) = framed_size(&flow.bytes()[at..]) {
        let range = at + LENGTH..at + LENGTH + size;
        if range.end > flow.bytes().len() {
            break;
        }
        at = range.end;
        found.push(range);
    }
    found
}

pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    let mut answers = messages(recorded, true);
    for asked in messages(recorded, false) {
        let bytes = recorded.client.bytes().slice(asked.clone());
        let Some(question) = question(&bytes) else {
            talk.left_out.push("a message that asks for no name".to_owned());
            continue;
        };
        let told = recorded.answers.bytes();
        let place = answers
            .iter()
            .position(|range| told[range.clone()].starts_with(&question.id.to_be_bytes()));
        let Some(range) = place.map(|place| answers.remove(place)) else {
            talk.left_out
                .push(format!("{}: it was not answered", question.label));
            continue;
        };
        let names = [question.label.clone(), question.label];
        let parts = [question.parts, answer_parts(&told[range.clone()])];
        let exchange = recorded.exchange(names, parts, asked, range, false);
        talk.exchanges.push(exchange.into());
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_proto::{
        op::{OpCode, Query},
        rr::{Name, rdata::A},
    };

    use super::*;
    use crate::replay::wire::testing::recorded;

    fn asked(id: u16, name: &str) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn told(id: u16, name: &str, address: [u8; 4]) -> Vec<u8> {
        let name = Name::from_str(name).unwrap();
        let mut message = Message::response(id, OpCode::Query);
        let [a, b, c, d] = address;
        message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(a, b, c, d))));
        message.to_vec().unwrap()
    }

    #[test]
    fn answers_are_found_by_their_number() {
        let client = [framed(&asked(1, "a.example.")), framed(&asked(2, "B.example."))].concat();
        let server = [
            framed(&told(2, "b.example.", [10, 0, 0, 2])),
            framed(&told(1, "a.example.", [10, 0, 0, 1])),
        ];
        let talk = recorded("dns", &client, &server.concat()).split();
        let all: Vec<_> = talk
            .exchanges
            .iter()
            .map(|each| {
                (
                    each.label.as_str(),
                    each.response.get("answer").unwrap_or_default(),
                )
            })
            .collect();
        assert_eq!(
            all,
            [
                ("A a.example", "a.example. A 10.0.0.1"),
                ("A b.example", "b.example. A 10.0.0.2")
            ]
        );
        let again = answer_to(&asked(0x1234, "A.Example."), &talk.exchanges[0].answer.bytes()).unwrap();
        let again = Message::from_vec(&again).unwrap();
        assert_eq!(again.metadata.id, 0x1234);
        assert_eq!(again.queries[0].name.to_ascii(), "A.Example.");
        assert_eq!(again.answers.len(), 1);
    }

    #[test]
    fn known_addresses_answer_for_their_own_family() {
        let known = ["10.0.0.1", "::1"].map(|address| address.parse().unwrap());
        let told = addresses_to(&asked(7, "a.example."), &known).unwrap();
        assert_eq!(answer_parts(&told).get("answer"), Some("a.example. A 10.0.0.1"));
        let none = addresses_to(&asked(7, "a.example."), &known[1..]).unwrap();
        assert_eq!(
            answer_parts(&none).get("status"),
            answer_parts(&told).get("status")
        );
        assert_eq!(answer_parts(&none).get("answer"), None);
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let bytes = failure(&asked(7, "x.example."), ResponseCode::ServFail).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            (message.metadata.id, message.metadata.response_code),
            (7, ResponseCode::ServFail)
        );
        assert_eq!(message.queries.len(), 1);
    }
}
