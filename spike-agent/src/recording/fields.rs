//! What requests and responses say, as JSON that a person can query.

mod dns;
mod http1;
mod http2;
mod postgres;
mod redis;

use serde_json::{Value, json};

use crate::protocol::{Call, ProtocolName};

/// The fields of a call from the first bytes of its request and its response; `null` for what is not decoded so far.
pub(super) fn read(call: &Call, request: &[u8], response: &[u8]) -> (Value, Value) {
    match (call.protocol, call.place.id) {
        (ProtocolName::Http1, _) => (
            http1::request(request),
            http1::response(response, &call.operation),
        ),
        (ProtocolName::Http2 | ProtocolName::Grpc, Some(stream)) => {
            let stream = u32::try_from(stream).unwrap_or(0);
            (http2::message(request, stream), http2::message(response, stream))
        }
        (ProtocolName::Redis, _) => (redis::command(request), redis::reply(response)),
        (ProtocolName::Postgres, _) => (postgres::request(request), postgres::response(response)),
        (ProtocolName::Dns, _) => (dns::request(request), dns::response(response)),
        _ => (Value::Null, Value::Null),
    }
}

/// Text as it is, other bytes in hexadecimal digits: `{"hex": "00ff"}`.
fn text(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()}),
    }
}
