//! From a decoded call to the spans of its two sides.

use std::time::SystemTime;

use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::SpanKind, status::StatusCode};
use opentelemetry_semantic_conventions::attribute::SERVICE_PEER_NAME;

use super::messages::{key_values, nanoseconds};
use crate::{
    export::{
        calls::{has_ended, sides},
        conventions::Description,
        own::random,
        source::Ends,
    },
    protocol::{Call, Side},
};

/// `SpanFlags` of OTLP's trace.proto: W3C's sampled flag, and that it is known whether the parent is remote.
const SAMPLED: u32 = 0x1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// A span and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceSpan {
    pub(super) service: String,
    pub(super) span: Span,
}

/// The spans of a call, at most one a side; the server's is a child of the client's.
///
/// A call that carries a trace is part of it; one whose caller chose not to record it has no spans. The agent's own
/// calls have none either: each push would lead to the next.
pub(super) fn of(call: &Call, ends: &Ends, wall_clock: impl Fn(u64) -> SystemTime) -> Vec<ServiceSpan> {
    let unsampled = call.trace.is_some_and(|trace| !trace.sampled);
    if ends.is_own || unsampled || !has_ended(call) {
        return Vec::new();
    }
    let trace_id = call.trace.map_or_else(random_trace, |trace| trace.trace_id);
    let mut parent = call.trace.map(|trace| trace.parent_id);
    let mut spans = Vec::with_capacity(2);
    for (side, _, description) in sides(call, ends) {
        let (service, peer) = match side {
            Side::Client => (&ends.client, &ends.server),
            Side::Server => (&ends.server, &ends.client),
        };
        let span_id = random();
        let kind = kind(side, call, &description);
        let remote = if side == Side::Server { IS_REMOTE } else { 0 };
        let mut attributes = description.attributes;
        attributes.push((SERVICE_PEER_NAME, peer.as_str().into()));
        let code = if description.failed {
            StatusCode::Error
        } else {
            StatusCode::Unset
        };
        let span = Span {
            trace_id: trace_id.to_be_bytes().to_vec(),
            span_id: span_id.to_be_bytes().to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
            flags: SAMPLED | HAS_IS_REMOTE | parent.map_or(0, |_| remote),
            name: description.name,
            kind: kind as i32,
            start_time_unix_nano: nanoseconds(wall_clock(call.started_ns)),
            end_time_unix_nano: nanoseconds(wall_clock(call.ended_ns)),
            attributes: key_values(&attributes),
            status: Some(Status {
                code: code as i32,
                message: String::new(),
            }),
            ..Span::default()
        };
        spans.push(ServiceSpan {
            service: service.clone(),
            span,
        });
        parent = Some(span_id);
    }
    spans
}

fn kind(side: Side, call: &Call, description: &Description) -> SpanKind {
    match (side, description.operation_type) {
        (Side::Server, _) => SpanKind::Server,
        (Side::Client, Some("send")) => SpanKind::Producer,
        // What a broker pushes, its consumer processes.
        (Side::Client, _) if call.from == Side::Server => SpanKind::Consumer,
        (Side::Client, _) => SpanKind::Client,
    }
}

fn random_trace() -> u128 {
    u128::from(random()) << 64 | u128::from(random())
}
