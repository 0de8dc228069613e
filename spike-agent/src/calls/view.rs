//! What a decoded call looks like to an operator, wherever it was seen.

use std::time::SystemTime;

use crate::{model::view::CallView, protocol::Call};

/// A call of an edge, between the ends of these names, that began `at`.
pub fn view(call: &Call, edge: u64, at: SystemTime, caller: String, callee: String) -> CallView {
    let since_start = |ns: u64| ns.saturating_sub(call.started_ns) / 1000;
    CallView {
        at: humantime::format_rfc3339_micros(at).to_string(),
        edge: format!("{edge:016x}"),
        caller,
        callee,
        protocol: call.protocol.as_str().to_owned(),
        operation: call.operation.clone(),
        target: call.target.clone(),
        status: call.status.clone(),
        failed: call.failed,
        complete: call.complete,
        first_byte_us: call.first_byte_ns.map(since_start),
        total_us: since_start(call.ended_ns),
        request_bytes: call.request_bytes,
        response_bytes: call.response_bytes,
        trace_id: call.trace.map(|trace| format!("{:032x}", trace.trace_id)),
    }
}
