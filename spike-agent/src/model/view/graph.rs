//! The service map as a graph: who, and what passes between them in a stretch of time.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BucketView, CounterView, LatencyView};
use crate::model::{
    ServiceKind,
    find::{Field, Kind},
};

/// What the nodes of the graph are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Processes: those of one program in one cgroup.
    Process,
    /// Services.
    #[default]
    Service,
    /// This host, and the others.
    Host,
}

/// The service map as a graph.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct GraphView {
    /// Start of the stretch of time that is looked at, RFC 3339 in UTC.
    pub from: String,
    /// Its end.
    pub to: String,
    /// How long it is; all rates are over this.
    pub seconds: f64,
    /// What the nodes are.
    pub group: Group,
    /// By name.
    pub nodes: Vec<NodeView>,
    /// Those with most calls first.
    pub edges: Vec<LinkView>,
    /// What is not on the map, and why; only what was seen to be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<CounterView>,
}

/// A node of the graph.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct NodeView {
    /// Its name, with more where two have the same: edges name it by this.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What the name is from.
    pub kind: ServiceKind,
    /// At how many places it answers: processes on this host that listen, else addresses and ports.
    pub instances: u64,
    /// Calls per second that it makes.
    pub rate_out: f64,
    /// Calls per second that it gets.
    pub rate_in: f64,
    /// The share of what it was asked for that came to nothing, in percent.
    pub error_percent: f64,
    /// Time in which 99 percent of the calls to it were answered, in microseconds; none without a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
}

/// What passes from one node to another in one protocol.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct LinkView {
    /// Id of the node that calls.
    pub from: String,
    /// Id of the node that is called.
    pub to: String,
    /// What is spoken, such as `http`; `tcp` or `udp` while that is not known.
    pub protocol: String,
    /// The ports that are called.
    pub ports: Vec<u16>,
    /// Ids of the edges that it is made of.
    pub edges: Vec<String>,
    /// Calls: requests that were followed by a response.
    pub calls: u64,
    /// Calls per second.
    pub rate: f64,
    /// Connections opened.
    pub opened: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Connections torn down with a reset.
    pub reset: u64,
    /// Connections open at the end.
    pub open: u64,
    /// Calls that were decoded, and how many of them failed.
    pub decoded: u64,
    /// Of the decoded calls, the failed ones.
    pub decoded_failed: u64,
    /// The share of attempts that came to nothing, in percent: connections that could not be opened, and of the decoded
    /// calls those that failed, or else connections that were reset.
    pub error_percent: f64,
    /// Bytes from the caller.
    pub bytes_out: u64,
    /// Bytes to the caller.
    pub bytes_in: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Mean round-trip time in microseconds; none when it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// From a request's last byte to its response's first; none without a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyView>,
}

/// The steps of one edge over time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct EdgeHistoryView {
    /// The edge's id.
    pub id: String,
    /// The oldest first; those in which nothing happened are left out.
    pub steps: Vec<StepView>,
}

/// What happened on an edge in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct StepView {
    /// Its start, RFC 3339 in UTC.
    pub from: String,
    /// How long it is.
    pub seconds: f64,
    /// Requests that were followed by a response.
    pub calls: u64,
    /// The share of attempts that came to nothing, in percent.
    pub error_percent: f64,
    /// Latencies: the buckets that are not empty, in order.
    pub histogram: Vec<BucketView>,
}

/// What a condition on the edges of the map can ask for.
pub const LINK_FIELDS: &[Field<LinkView>] = &[
    text("from", |link| vec![&link.from]),
    text("to", |link| vec![&link.to]),
    text("service", |link| vec![&link.from, &link.to]),
    text("protocol", |link| vec![&link.protocol]),
    text("edge", |link| link.edges.iter().map(String::as_str).collect()),
    time("p50", |link| Some(link.latency?.p50_us)),
    time("p90", |link| Some(link.latency?.p90_us)),
    time("p99", |link| Some(link.latency?.p99_us)),
    time("max", |link| Some(link.latency?.max_us)),
    time("mean", |link| Some(link.latency?.mean_us)),
    time("rtt", |link| link.rtt_us),
    Field {
        name: "errors",
        kind: Kind::Percent(|link| Some(link.error_percent)),
    },
    Field {
        name: "rate",
        kind: Kind::Number(|link| link.rate),
    },
    count("calls", |link| link.calls),
    count("opened", |link| link.opened),
    count("open", |link| link.open),
    count("failed", |link| link.failed),
    count("reset", |link| link.reset),
    count("retransmits", |link| link.retransmits),
    Field {
        name: "port",
        kind: Kind::Counts(|link| link.ports.iter().map(|port| u64::from(*port)).collect()),
    },
    Field {
        name: "bytes_out",
        kind: Kind::Size(|link| link.bytes_out),
    },
    Field {
        name: "bytes_in",
        kind: Kind::Size(|link| link.bytes_in),
    },
];

const fn text(name: &'static str, get: fn(&LinkView) -> Vec<&str>) -> Field<LinkView> {
    Field {
        name,
        kind: Kind::Text(get),
    }
}

const fn time(name: &'static str, get: fn(&LinkView) -> Option<u64>) -> Field<LinkView> {
    Field {
        name,
        kind: Kind::Time(get),
    }
}

const fn count(name: &'static str, get: fn(&LinkView) -> u64) -> Field<LinkView> {
    Field {
        name,
        kind: Kind::Count(get),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Find;

    #[test]
    fn edges_are_found_by_what_they_are_and_do() {
        let link = LinkView {
            from: "checkout".to_owned(),
            to: "payments".to_owned(),
            protocol: "redis".to_owned(),
            ports: vec![6379, 6380],
            rate: 2.5,
            error_percent: 1.5,
            latency: Some(LatencyView {
                p99_us: 150_000,
                ..LatencyView::default()
            }),
            ..LinkView::default()
        };
        let finds = |text: &str| Find::parse(text, LINK_FIELDS).unwrap().matches(&link);
        for text in [
            "p99>100ms",
            "errors>1%",
            "protocol=redis",
            "service=pay*",
            "service=check* and to=payments",
            "port=6380",
            "port=6379 and not port=80",
            "rate>2.4 and rate<2.6",
            "not from=payments",
        ] {
            assert!(finds(text), "{text}");
        }
        assert!(!finds("rtt<1s") && !finds("port=80") && !finds("from=pay*"));
    }
}
