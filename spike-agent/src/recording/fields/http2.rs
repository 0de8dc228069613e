//! HTTP/2 and gRPC: pseudo-fields, headers, trailers, and the body where it is a short text.

use serde_json::{Map, Value, json};

use crate::recording::http2::{self, Fields};

/// Longest body that is shown among the fields.
const BODY_LIMIT: usize = 16 << 10;

/// `method`, `target`, `authority`, `scheme` or `status`; `headers` and `trailers` (pairs, in order); `body`, a short text.
pub(super) fn message(bytes: &[u8], stream: u32) -> Value {
    let message = http2::message(bytes, stream);
    let Some(first) = message.blocks.first() else {
        return Value::Null;
    };
    let mut map = Map::new();
    for (name, value) in first {
        let shown = match &name[..] {
            b":method" => "method",
            b":path" => "target",
            b":authority" => "authority",
            b":scheme" => "scheme",
            b":status" => "status",
            _ => continue,
        };
        let text = String::from_utf8_lossy(value);
        let number = text.parse::<u16>().ok().filter(|_| shown == "status");
        map.insert(
            shown.to_owned(),
            number.map_or_else(|| json!(text), |number| json!(number)),
        );
    }
    map.insert("headers".to_owned(), pairs(first));
    if let Some(trailers) = message.blocks.get(1) {
        map.insert("trailers".to_owned(), pairs(trailers));
    }
    if message.ends
        && !message.body.is_empty()
        && message.body.len() <= BODY_LIMIT
        && let Ok(text) = String::from_utf8(message.body)
        && !text.contains('\0')
    {
        map.insert("body".to_owned(), Value::String(text));
    }
    Value::Object(map)
}

fn pairs(fields: &Fields) -> Value {
    let shown = fields.iter().filter(|(name, _)| !name.starts_with(b":"));
    shown
        .map(|(name, value)| json!([String::from_utf8_lossy(name), String::from_utf8_lossy(value)]))
        .collect()
}
