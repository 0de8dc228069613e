//! What requests and responses say, as JSON that a person can query.

mod http1;

use serde_json::Value;

use crate::protocol::{Call, ProtocolName};

/// The fields of a call from the first bytes of its request and its response; `null` for what is not decoded so far.
pub(super) fn read(call: &Call, request: &[u8], response: &[u8]) -> (Value, Value) {
    match call.protocol {
        ProtocolName::Http1 => (http1::request(request), http1::response(response, &call.operation)),
        _ => (Value::Null, Value::Null),
    }
}
