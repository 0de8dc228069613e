//! The metrics of edges.

use std::{collections::BTreeMap, sync::Arc};

use spike_common::edge::{EdgeStats, Failure};

use super::{Count, EdgeCounts, EdgeLedger, Key};
use crate::{
    export::{
        buckets::Latency,
        family::{Attribute, Attributes, Family, Metric, Point, Unit, Value},
    },
    model::edge::Decoded,
};

/// What stands for the client, server and protocol of all edges that have no series of their own.
const OTHER: &str = "other";

/// A counter of each edge.
pub(super) struct Counter {
    pub(super) count: Count,
    pub(super) read: fn(&EdgeStats, &Decoded) -> u64,
    metric: &'static Metric,
    /// What tells it from others of the same metric.
    label: Option<(&'static str, &'static str)>,
}

impl Counter {
    const fn new(count: Count, metric: &'static Metric, read: fn(&EdgeStats, &Decoded) -> u64) -> Self {
        Self {
            count,
            read,
            metric,
            label: None,
        }
    }

    const fn failed(count: Count, reason: &'static str, read: fn(&EdgeStats, &Decoded) -> u64) -> Self {
        Self {
            label: Some(("reason", reason)),
            ..Self::new(count, &FAILED, read)
        }
    }
}

/// Rows of the same metric stand together.
pub(super) static COUNTERS: &[Counter] = &[
    Counter::new(Count::Opened, &OPENED, |stats, _| stats.opened),
    Counter::failed(Count::Refused, "refused", |stats, _| of(stats, Failure::Refused)),
    Counter::failed(Count::TimedOut, "timed_out", |stats, _| {
        of(stats, Failure::TimedOut)
    }),
    Counter::failed(Count::Unreachable, "unreachable", |stats, _| {
        of(stats, Failure::Unreachable)
    }),
    Counter::failed(Count::Aborted, "aborted", |stats, _| of(stats, Failure::Aborted)),
    Counter::failed(Count::FailedOtherwise, "other", |stats, _| {
        of(stats, Failure::Other)
    }),
    Counter::new(Count::Reset, &RESET, |stats, _| stats.reset),
    Counter::new(Count::Calls, &ANSWERED, |stats, _| stats.calls),
    Counter::new(Count::BytesSent, &BYTES_SENT, |stats, _| stats.bytes_out),
    Counter::new(Count::BytesReceived, &BYTES_RECEIVED, |stats, _| stats.bytes_in),
    Counter::new(Count::Retransmits, &RETRANSMITS, |stats, _| stats.retransmits),
    Counter::new(Count::RttMicroseconds, &RTT, |stats, _| stats.rtt_sum),
    Counter::new(Count::RttSamples, &RTT_SAMPLES, |stats, _| stats.rtt_count),
    Counter::new(Count::Segments, &SEGMENTS, |stats, _| stats.sampled),
    Counter::new(Count::SegmentsLost, &SEGMENTS_LOST, |stats, _| stats.unsampled),
    Counter::new(Count::Decoded, &DECODED, |_, decoded| decoded.calls),
    Counter::new(Count::DecodedFailed, &DECODED_FAILED, |_, decoded| decoded.failed),
    Counter::new(Count::Undecodable, &UNDECODABLE, |_, decoded| decoded.undecodable),
    Counter::new(Count::Unpaired, &UNPAIRED, |_, decoded| decoded.lost_calls),
];

fn of(stats: &EdgeStats, failure: Failure) -> u64 {
    stats.failed[failure as usize]
}

const CONNECTIONS: Unit = Unit::Of("{connection}");
const CALLS: Unit = Unit::Of("{call}");
const SEGMENT: Unit = Unit::Of("{segment}");

static OPENED: Metric = Metric::counter(
    "spike.connections.opened",
    CONNECTIONS,
    "Connections established; of UDP, sockets that sent there.",
);
static FAILED: Metric = Metric::counter(
    "spike.connections.failed",
    CONNECTIONS,
    "Attempts to connect that failed, by reason.",
);
static RESET: Metric = Metric::counter(
    "spike.connections.reset",
    CONNECTIONS,
    "Connections that ended without FIN in both directions.",
);
static ANSWERED: Metric = Metric::counter(
    "spike.calls",
    CALLS,
    "Requests that were followed by a response, whatever they speak.",
);
static BYTES_SENT: Metric = Metric::counter(
    "spike.bytes.sent",
    Unit::Bytes,
    "Payload from the client to the server, retransmissions not counted.",
);
static BYTES_RECEIVED: Metric = Metric::counter(
    "spike.bytes.received",
    Unit::Bytes,
    "Payload from the server to the client, retransmissions not counted.",
);
static RETRANSMITS: Metric = Metric::counter(
    "spike.retransmits",
    SEGMENT,
    "Segments that were sent again, by either end, SYNs included.",
);
static RTT: Metric = Metric::counter(
    "spike.rtt",
    Unit::Seconds,
    "Sum of the smoothed round-trip times that were looked at.",
);
static RTT_SAMPLES: Metric = Metric::counter(
    "spike.rtt.samples",
    Unit::Of("{sample}"),
    "Round-trip times that were looked at.",
);
static SEGMENTS: Metric = Metric::counter(
    "spike.decoded.segments",
    SEGMENT,
    "Segments of sampled connections that the decoder was given.",
);
static SEGMENTS_LOST: Metric = Metric::counter(
    "spike.decoded.segments.lost",
    SEGMENT,
    "Segments of sampled connections that found the ring buffer full.",
);
static DECODED: Metric = Metric::counter(
    "spike.decoded.calls",
    CALLS,
    "Calls of sampled connections that were decoded.",
);
static DECODED_FAILED: Metric = Metric::counter(
    "spike.decoded.calls.failed",
    CALLS,
    "Decoded calls that the server, or the connection, failed.",
);
static UNDECODABLE: Metric = Metric::counter(
    "spike.decoded.undecodable",
    Unit::Of("{message}"),
    "Messages of sampled connections that are not what their protocol says.",
);
static UNPAIRED: Metric = Metric::counter(
    "spike.decoded.unpaired",
    CALLS,
    "Calls of sampled connections whose response, or times, could not be told.",
);
static OPEN: Metric = Metric::gauge("spike.connections.open", CONNECTIONS, "Connections open now.");
static REQUESTS: Metric = Metric::counter(
    "traces_service_graph_request_total",
    Unit::Of("{request}"),
    "Requests between two services: answered ones and failed attempts to connect.",
);
static FAILED_REQUESTS: Metric = Metric::counter(
    "traces_service_graph_request_failed_total",
    Unit::Of("{request}"),
    "Of these, failed attempts to connect, and failed calls of sampled connections.",
);
static SERVER_SECONDS: Metric = Metric::histogram(
    "traces_service_graph_request_server_seconds",
    Unit::Seconds,
    "From a request's last byte to its response's first, at the end where it was observed.",
);
static CLIENT_SECONDS: Metric = Metric::histogram(
    "traces_service_graph_request_client_seconds",
    Unit::Seconds,
    "From a request's last byte to its response's first, where it was observed at the client.",
);
static SERIES: Metric = Metric::gauge(
    "spike.edges.exported",
    Unit::Of("{edge}"),
    "Edges with series of their own.",
);
static FOLDED: Metric = Metric::counter(
    "spike.edges.folded",
    Unit::Of("{edge}"),
    "Edges that were summed into the one called other, for want of room.",
);

/// What an edge of the service graph is between.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair<'a> {
    client: &'a str,
    server: &'a str,
    connection: &'a str,
}

#[derive(Default)]
struct Requests {
    all: u64,
    failed: u64,
    latency: Latency,
    /// Those that were observed at the client.
    at_client: Option<Latency>,
}

impl EdgeLedger {
    /// All metrics of edges, as of the last update.
    pub(in crate::export) fn families(&self) -> Vec<Family> {
        let mut rows: Vec<(Arc<Attributes>, &EdgeCounts)> = self
            .series
            .iter()
            .map(|(key, series)| (Arc::new(key.attributes()), &series.totals))
            .collect();
        if self.folded > 0 {
            let text = |name| (name, Attribute::from(OTHER));
            let attributes = vec![text("client"), text("server"), text("protocol")];
            rows.push((Arc::new(attributes), &self.other));
        }
        let mut families: Vec<Family> = Vec::new();
        for row in COUNTERS {
            if families
                .last()
                .is_none_or(|last| last.metric.name != row.metric.name)
            {
                families.push(Family::new(row.metric));
            }
            if let Some(family) = families.last_mut() {
                family.points.extend(points(&rows, row));
            }
        }
        let mut open = Family::new(&OPEN);
        open.points.extend(rows.iter().map(|(attributes, counts)| Point {
            service: None,
            attributes: Arc::clone(attributes),
            value: Value::Count(counts.open),
        }));
        families.push(open);
        self.service_graph(&mut families);
        families.push(Family::one(&SERIES, Value::Count(self.series.len() as u64)));
        families.push(Family::one(&FOLDED, Value::Count(self.folded)));
        families
    }

    fn service_graph(&self, families: &mut Vec<Family>) {
        let mut graph: BTreeMap<Pair<'_>, Requests> = BTreeMap::new();
        for (key, series) in &self.series {
            let pair = Pair {
                client: &key.client,
                server: &key.server,
                connection: key.connection,
            };
            let requests = graph.entry(pair).or_default();
            requests.add(&series.totals, key.seen_at_client);
        }
        if self.folded > 0 {
            let pair = Pair {
                client: OTHER,
                server: OTHER,
                connection: "",
            };
            graph.entry(pair).or_default().add(&self.other, false);
        }
        let metrics = [&REQUESTS, &FAILED_REQUESTS, &SERVER_SECONDS, &CLIENT_SECONDS];
        let mut made = metrics.map(Family::new);
        for (pair, requests) in graph {
            let attributes = Arc::new(vec![
                ("client", pair.client.into()),
                ("server", pair.server.into()),
                ("connection_type", pair.connection.into()),
            ]);
            let at_client = requests.at_client.as_ref().map(Latency::histogram);
            let values = [
                Some(Value::Count(requests.all)),
                Some(Value::Count(requests.failed)),
                Some(Value::Histogram(requests.latency.histogram())),
                at_client.map(Value::Histogram),
            ];
            for (family, value) in made.iter_mut().zip(values) {
                family.points.extend(value.map(|value| Point {
                    service: None,
                    attributes: Arc::clone(&attributes),
                    value,
                }));
            }
        }
        families.extend(made);
    }
}

impl Requests {
    fn add(&mut self, totals: &EdgeCounts, at_client: bool) {
        let failed = totals.failed() + totals.get(Count::DecodedFailed);
        self.failed += failed;
        // A call that a reset ended has failed, but no response has counted it.
        self.all += (totals.get(Count::Calls) + totals.failed()).max(failed);
        self.latency.add(&totals.latency);
        if at_client {
            self.at_client.get_or_insert_default().add(&totals.latency);
        }
    }
}

impl Key {
    fn attributes(&self) -> Attributes {
        let side = if self.seen_at_client { "client" } else { "server" };
        vec![
            ("client", self.client.as_str().into()),
            ("server", self.server.as_str().into()),
            ("server_port", self.port.into()),
            ("protocol", self.protocol.as_str().into()),
            ("seen_at", side.into()),
        ]
    }
}

/// What one row of the table says of each edge.
fn points<'a>(
    rows: &'a [(Arc<Attributes>, &EdgeCounts)],
    row: &'a Counter,
) -> impl Iterator<Item = Point> + 'a {
    rows.iter().map(|(attributes, counts)| {
        let count = counts.get(row.count);
        let attributes = row.label.map_or_else(
            || Arc::clone(attributes),
            |(name, value)| {
                let mut labelled = Attributes::clone(attributes);
                labelled.push((name, value.into()));
                Arc::new(labelled)
            },
        );
        let value = match row.count {
            Count::RttMicroseconds => Value::Float(count as f64 / 1e6),
            _ => Value::Count(count),
        };
        Point {
            service: None,
            attributes,
            value,
        }
    })
}
