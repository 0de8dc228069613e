//! HTTP/1.x: the head, and the body where it is a short text.

use serde_json::{Map, Value, json};

use crate::recording::body;

/// Longest body that is shown among the fields.
const BODY_LIMIT: usize = 16 << 10;
/// More fields are not read.
const FIELDS_LIMIT: usize = 128;

/// `method`, `target`, `version`, `headers` (pairs, in order), `body` (a short text, without its transfer coding).
pub(super) fn request(bytes: &[u8]) -> Value {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
    let mut head = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(size)) = head.parse(bytes) else {
        return Value::Null;
    };
    let mut map = Map::new();
    map.insert("method".to_owned(), json!(head.method));
    map.insert("target".to_owned(), json!(head.path));
    map.insert("version".to_owned(), json!(version(head.version)));
    map.insert("headers".to_owned(), headers(head.headers));
    add_body(&mut map, head.headers, &bytes[size..], false);
    Value::Object(map)
}

/// `status`, `reason`, `version`, `headers`, `body`. `operation` is the request's method.
pub(super) fn response(mut bytes: &[u8], operation: &str) -> Value {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(size)) = head.parse(bytes) else {
            return Value::Null;
        };
        // An interim one: the final one follows.
        if head
            .code
            .is_some_and(|code| (100..200).contains(&code) && code != 101)
            && size < bytes.len()
        {
            bytes = &bytes[size..];
            continue;
        }
        let mut map = Map::new();
        map.insert("status".to_owned(), json!(head.code));
        map.insert("reason".to_owned(), json!(head.reason));
        map.insert("version".to_owned(), json!(version(head.version)));
        map.insert("headers".to_owned(), headers(head.headers));
        if operation != "HEAD" {
            add_body(&mut map, head.headers, &bytes[size..], true);
        }
        return Value::Object(map);
    }
}

fn version(minor: Option<u8>) -> String {
    format!("HTTP/1.{}", minor.unwrap_or(1))
}

fn headers(fields: &[httparse::Header<'_>]) -> Value {
    let pair = |field: &httparse::Header<'_>| json!([field.name, String::from_utf8_lossy(field.value)]);
    fields.iter().map(pair).collect()
}

fn add_body(map: &mut Map<String, Value>, fields: &[httparse::Header<'_>], rest: &[u8], is_response: bool) {
    let framing = body::Framing::of(fields.iter().map(|field| (field.name, field.value)), is_response);
    if let Some(content) = framing.content(rest)
        && !content.is_empty()
        && content.len() <= BODY_LIMIT
        && let Ok(text) = String::from_utf8(content)
    {
        map.insert("body".to_owned(), Value::String(text));
    }
}
