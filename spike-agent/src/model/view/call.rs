//! Decoded calls.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::find::{Field, Kind};

/// One request and its response.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct CallView {
    /// When its first byte passed, RFC 3339 in UTC with microseconds.
    pub at: String,
    /// The edge it belongs to, as on the map.
    pub edge: String,
    /// Who asked: the process's name, or the address of another host.
    pub caller: String,
    /// Who answered: the process's name when it is on this host, else the address; then the port.
    pub callee: String,
    /// What it is spoken in, such as `http` or `redis`.
    pub protocol: String,
    /// Method, verb or command, such as `GET` or `SELECT`.
    pub operation: String,
    /// Folded path, table, key pattern or topic; may be empty.
    pub target: String,
    /// The protocol's own word for how it went, such as `200`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Whether the server, or the connection, failed it.
    pub failed: bool,
    /// Whether it came to its end as the protocol has it.
    pub complete: bool,
    /// From the request's first byte to the response's first, in microseconds; none without a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u64>,
    /// From the request's first byte to the last of the call, in microseconds.
    pub total_us: u64,
    /// Bytes of the request, head and body.
    pub request_bytes: u64,
    /// Bytes of the response, head and body.
    pub response_bytes: u64,
    /// The trace that it is part of (W3C trace context), when the request says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// What a condition on calls can ask for.
pub const CALL_FIELDS: &[Field<CallView>] = &[
    text("caller", |call| vec![&call.caller]),
    text("callee", |call| vec![&call.callee, call.callee_service()]),
    text("service", |call| vec![&call.caller, call.callee_service()]),
    text("protocol", |call| vec![&call.protocol]),
    text("operation", |call| vec![&call.operation]),
    text("target", |call| vec![&call.target]),
    text("status", |call| call.status.as_deref().into_iter().collect()),
    text("edge", |call| vec![&call.edge]),
    text("trace", |call| call.trace_id.as_deref().into_iter().collect()),
    Field {
        name: "total",
        kind: Kind::Time(|call| Some(call.total_us)),
    },
    Field {
        name: "first_byte",
        kind: Kind::Time(|call| call.first_byte_us),
    },
    Field {
        name: "request",
        kind: Kind::Size(|call| call.request_bytes),
    },
    Field {
        name: "response",
        kind: Kind::Size(|call| call.response_bytes),
    },
    Field {
        name: "failed",
        kind: Kind::Flag(|call| call.failed),
    },
    Field {
        name: "complete",
        kind: Kind::Flag(|call| call.complete),
    },
];

const fn text(name: &'static str, get: fn(&CallView) -> Vec<&str>) -> Field<CallView> {
    Field {
        name,
        kind: Kind::Text(get),
    }
}

impl CallView {
    /// The callee without its port.
    fn callee_service(&self) -> &str {
        let name = self
            .callee
            .rsplit_once(':')
            .map_or(&*self.callee, |(name, _)| name);
        name.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What a follower of calls gets.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallEvent {
    /// A call that ended.
    Call(Box<CallView>),
    /// So many calls were not told: the follower is too slow.
    Missed(u64),
}

/// How much of the traffic is decoded, and what that takes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct DecodingView {
    /// What decoding may take, in percent of one processor core.
    pub budget_percent: f64,
    /// What it took lately, the kernel side's part included.
    pub used_percent: f64,
    /// Connections that are decoded now, in percent of all.
    pub sampled_percent: f64,
    /// Segments that were looked at since the agent's start.
    pub segments: u64,
    /// Segments of sampled connections that were passed over, since too many connections were followed.
    pub not_followed: u64,
}
