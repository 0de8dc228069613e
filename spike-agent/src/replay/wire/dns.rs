//! DNS: questions and their answers, over TCP and in datagrams.

use std::time::Duration;

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::Record,
};

use super::Recorded;
use crate::replay::{
    exchange::{Answer, Exchange, Sent, Talk},
    parts::Parts,
};

/// Bytes of a message's length over TCP.
const LENGTH: usize = 2;

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

/// The answer with the number of another question.
pub fn answer_to(id: u16, answer: &[u8]) -> Vec<u8> {
    let mut bytes = answer.to_vec();
    if let Some(first) = bytes.first_chunk_mut() {
        *first = id.to_be_bytes();
    }
    bytes
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
        let ended_at = recorded.client.at(asked.end - 1);
        let waited = recorded.answers.at(range.start).saturating_sub(ended_at);
        talk.exchanges.push(
            Exchange {
                kind: question.label.clone(),
                label: question.label,
                request: question.parts,
                response: answer_parts(&told[range.clone()]),
                sent: Sent::Raw(bytes),
                started_ns: recorded.client.at(asked.start),
                waited: Some(Duration::from_nanos(waited)),
                whole: recorded.client.is_whole(asked) && recorded.answers.is_whole(range.clone()),
                answer: Answer::Raw {
                    pieces: recorded.answers.pieces(range, ended_at),
                    closes: false,
                },
            }
            .into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_proto::{
        op::{OpCode, Query},
        rr::{Name, RData, RecordType, rdata::A},
    };

    use super::*;
    use crate::replay::wire::testing::recorded;

    fn asked(id: u16, name: &str) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
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
        assert!(answer_to(0x1234, &talk.exchanges[0].answer.bytes()).starts_with(&[0x12, 0x34]));
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
