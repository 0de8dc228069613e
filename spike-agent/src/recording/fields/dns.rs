//! DNS: the name that is asked for, and the records of the answer.

use hickory_proto::op::Message;
use serde_json::{Value, json};

/// Records that are shown.
const RECORDS_LIMIT: usize = 100;

/// `name` and `type`.
pub(super) fn request(bytes: &[u8]) -> Value {
    let message = message(bytes);
    let query = message.as_ref().and_then(|message| message.queries.first());
    query.map_or(
        Value::Null,
        |query| json!({"name": name(&query.name), "type": query.query_type.to_string()}),
    )
}

/// `status`, and `answers` with `name`, `type`, `ttl` in seconds and `data`.
pub(super) fn response(bytes: &[u8]) -> Value {
    message(bytes).map_or(Value::Null, |message| {
        let answers = message.answers.iter().take(RECORDS_LIMIT).map(|record| {
            json!({
                "name": name(&record.name),
                "type": record.record_type().to_string(),
                "ttl": record.ttl,
                "data": record.data.to_string(),
            })
        });
        json!({
            "status": message.metadata.response_code.to_string(),
            "answers": answers.collect::<Vec<_>>(),
        })
    })
}

/// A datagram, or the same behind its two bytes of length.
fn message(bytes: &[u8]) -> Option<Message> {
    let framed = bytes.split_first_chunk::<2>();
    let framed = framed.filter(|(length, rest)| usize::from(u16::from_be_bytes(**length)) == rest.len());
    framed
        .and_then(|(_, rest)| Message::from_vec(rest).ok())
        .or_else(|| Message::from_vec(bytes).ok())
}

fn name(name: &hickory_proto::rr::Name) -> String {
    let name = name.to_ascii();
    let shown = name.strip_suffix('.').filter(|shown| !shown.is_empty());
    shown.unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use hickory_proto::{
        op::{MessageType, OpCode, Query},
        rr::{Name, RData, Record, RecordType, rdata::A},
    };

    use super::*;

    #[test]
    fn datagrams_and_messages_of_a_connection_are_read() {
        let of = Name::from_str("api.example.").unwrap();
        let mut asked = Message::new(7, MessageType::Query, OpCode::Query);
        asked.add_query(Query::query(of.clone(), RecordType::A));
        let mut told = Message::response(7, OpCode::Query);
        told.add_answer(Record::from_rdata(of, 60, RData::A(A::new(10, 0, 0, 1))));
        for framed in [false, true] {
            let bytes = |message: &Message| {
                let bytes = message.to_vec().unwrap();
                let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
                let head = if framed { &length[..] } else { &[] };
                [head, &bytes].concat()
            };
            let expected = json!({"name": "api.example", "type": "A"});
            assert_eq!(request(&bytes(&asked)), expected);
            let record = json!({"name": "api.example", "type": "A", "ttl": 60, "data": "10.0.0.1"});
            assert_eq!(response(&bytes(&told))["answers"], json!([record]));
        }
        assert_eq!((request(b"\0"), response(b"")), (Value::Null, Value::Null));
    }
}
