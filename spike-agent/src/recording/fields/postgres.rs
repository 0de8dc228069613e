//! PostgreSQL's statements and results.

use serde_json::{Map, Value};

use super::text;

/// More rows and values are not shown.
const SHOWN_LIMIT: usize = 100;

/// `sql`, and `parameters` of a bound statement.
pub(super) fn request(bytes: &[u8]) -> Value {
    let mut map = Map::new();
    each(bytes, |kind, body| match kind {
        b'Q' => {
            map.insert("sql".to_owned(), text(until_zero(body, 0)));
        }
        b'P' => {
            let name = until_zero(body, 0);
            map.insert("sql".to_owned(), text(until_zero(body, name.len() + 1)));
            if !name.is_empty() {
                map.insert("prepares".to_owned(), text(name));
            }
        }
        b'B' => {
            let portal = until_zero(body, 0).len();
            let name = until_zero(body, portal + 1);
            let at = portal + name.len() + 2;
            let formats = short(body, at).unwrap_or(0);
            let values = values(body, at + 2 + 2 * usize::from(formats));
            map.insert("parameters".to_owned(), values);
            if !name.is_empty() {
                map.insert("statement".to_owned(), text(name));
            }
        }
        _ => {}
    });
    if map.is_empty() {
        Value::Null
    } else {
        Value::Object(map)
    }
}

/// `columns`, `rows` (the first hundred, as text), `tags`, `error` with `code` and `message`.
pub(super) fn response(bytes: &[u8]) -> Value {
    let mut map = Map::new();
    let (mut rows, mut tags) = (Vec::new(), Vec::new());
    each(bytes, |kind, body| match kind {
        b'T' => {
            let mut at = 2;
            let names = (0..short(body, 0).unwrap_or(0)).map(|_| {
                let name = until_zero(body, at);
                at += name.len() + 19;
                text(name)
            });
            map.insert("columns".to_owned(), names.collect());
        }
        b'D' if rows.len() < SHOWN_LIMIT => rows.push(values(body, 0)),
        b'C' => tags.push(text(until_zero(body, 0))),
        b'E' => {
            let mut error = Map::new();
            let mut at = 0;
            while let Some(field) = body.get(at).filter(|field| **field != 0) {
                let value = until_zero(body, at + 1);
                at += value.len() + 2;
                let name = match field {
                    b'C' => "code",
                    b'M' => "message",
                    b'D' => "detail",
                    _ => continue,
                };
                error.insert(name.to_owned(), text(value));
            }
            map.insert("error".to_owned(), Value::Object(error));
        }
        _ => {}
    });
    if !rows.is_empty() {
        map.insert("rows".to_owned(), Value::Array(rows));
    }
    if !tags.is_empty() {
        map.insert("tags".to_owned(), Value::Array(tags));
    }
    if map.is_empty() {
        Value::Null
    } else {
        Value::Object(map)
    }
}

/// Each message that is whole.
fn each(mut rest: &[u8], mut each: impl FnMut(u8, &[u8])) {
    while let Some(length) = number(rest, 1) {
        let Some(body) = rest.get(5..1 + length as usize) else {
            return;
        };
        each(rest[0], body);
        rest = &rest[1 + length as usize..];
    }
}

/// Values with their lengths before them, after their number.
fn values(body: &[u8], at: usize) -> Value {
    let count = usize::from(short(body, at).unwrap_or(0)).min(SHOWN_LIMIT);
    let mut at = at + 2;
    let values = (0..count).map_while(|_| {
        let length = number(body, at)?;
        at += 4;
        let Ok(length) = usize::try_from(length.cast_signed()) else {
            return Some(Value::Null);
        };
        let value = body.get(at..at.checked_add(length)?)?;
        at += length;
        Some(text(value))
    });
    values.collect()
}

fn until_zero(bytes: &[u8], from: usize) -> &[u8] {
    let rest = bytes.get(from..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    &rest[..end]
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    #[test]
    fn statements_and_results_are_read() {
        let parse = message(b'P', b"s1\0SELECT $1\0\0\0");
        let bind = message(b'B', b"\0s1\0\0\0\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\0");
        let expected =
            json!({"sql": "SELECT $1", "prepares": "s1", "parameters": ["ab", null], "statement": "s1"});
        assert_eq!(request(&[parse, bind].concat()), expected);
        let described = message(b'T', b"\0\x01id\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let row = message(b'D', b"\0\x01\0\0\0\x017");
        let done = message(b'C', b"SELECT 1\0");
        let expected = json!({"columns": ["id"], "rows": [["7"]], "tags": ["SELECT 1"]});
        assert_eq!(response(&[described, row, done].concat()), expected);
        let error = message(b'E', b"SERROR\0C42601\0Mno\0\0");
        assert_eq!(
            response(&error),
            json!({"error": {"code": "42601", "message": "no"}})
        );
        assert_eq!(response(b"D\0\0\0"), Value::Null);
    }
}
