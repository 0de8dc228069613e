//! How long decoded calls took, by what they were: OpenTelemetry's metrics of calls.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use opentelemetry_semantic_conventions::metric::{
    DB_CLIENT_OPERATION_DURATION, DNS_LOOKUP_DURATION, HTTP_CLIENT_REQUEST_DURATION,
    HTTP_SERVER_REQUEST_DURATION, MESSAGING_CLIENT_OPERATION_DURATION, RPC_CLIENT_CALL_DURATION,
    RPC_SERVER_CALL_DURATION,
};

use super::{
    conventions::{self, Convention, Description, describe},
    family::{Attribute, Attributes, Family, Histogram, Metric, Point, Unit, Value},
    source::Ends,
};
use crate::protocol::{Call, Side};

/// The bounds that the conventions advise, in seconds.
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// The same for databases.
const DATABASE_BOUNDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// What stands for all sets of attributes that have no room, as OpenTelemetry's SDKs have it
/// (<https://opentelemetry.io/docs/specs/otel/metrics/sdk/#overflow-attribute>).
const OVERFLOW: &str = "otel.metric.overflow";

/// A metric of calls, at one of their sides.
#[derive(Debug)]
struct Duration {
    metric: Metric,
    bounds: &'static [f64],
}

const fn duration(name: &'static str, bounds: &'static [f64], help: &'static str) -> Duration {
    Duration {
        metric: Metric::histogram(name, Unit::Seconds, help),
        bounds,
    }
}

static DURATIONS: [Duration; 7] = [
    duration(
        HTTP_CLIENT_REQUEST_DURATION,
        &BOUNDS,
        "Duration of HTTP requests of sampled connections, at their client.",
    ),
    duration(
        HTTP_SERVER_REQUEST_DURATION,
        &BOUNDS,
        "Duration of HTTP requests of sampled connections, at their server.",
    ),
    duration(
        RPC_CLIENT_CALL_DURATION,
        &BOUNDS,
        "Duration of remote procedure calls of sampled connections, at their client.",
    ),
    duration(
        RPC_SERVER_CALL_DURATION,
        &BOUNDS,
        "Duration of remote procedure calls of sampled connections, at their server.",
    ),
    duration(
        DB_CLIENT_OPERATION_DURATION,
        &DATABASE_BOUNDS,
        "Duration of database operations of sampled connections.",
    ),
    duration(
        MESSAGING_CLIENT_OPERATION_DURATION,
        &BOUNDS,
        "Duration of messaging operations of sampled connections.",
    ),
    duration(
        DNS_LOOKUP_DURATION,
        &BOUNDS,
        "Duration of DNS lookups of sampled connections.",
    ),
];

static SERIES: Metric = Metric::gauge(
    "spike.calls.series",
    Unit::Of("{series}"),
    "Sets of attributes that decoded calls are counted by.",
);
static FOLDED: Metric = Metric::counter(
    "spike.calls.folded",
    Unit::Of("{call}"),
    "Decoded calls that were counted without their attributes, for want of room.",
);
static MISSED: Metric = Metric::counter(
    "spike.calls.missed",
    Unit::Of("{call}"),
    "Decoded calls that were not exported: too many at once, or of an edge that is gone.",
);

/// Which of [`DURATIONS`] a side of a call is told by.
fn index(convention: Convention, side: Side) -> Option<usize> {
    Some(match (convention, side) {
        (Convention::Http { .. }, Side::Client) => 0,
        (Convention::Http { .. }, Side::Server) => 1,
        (Convention::Rpc { .. }, Side::Client) => 2,
        (Convention::Rpc { .. }, Side::Server) => 3,
        (Convention::Database { .. }, Side::Client) => 4,
        (Convention::Messaging { .. }, Side::Client) => 5,
        (Convention::Dns, Side::Client) => 6,
        // The conventions know these at the client alone.
        (_, Side::Server) => return None,
    })
}

/// What a side of a call on this host sees of it, if its conventions have that.
pub(super) fn sides<'a>(
    call: &'a Call,
    ends: &'a Ends,
) -> impl Iterator<Item = (Side, Convention, Description)> + 'a {
    let convention = conventions::of(call.protocol.as_str());
    // What a server asks of its client is known of messages that are pushed alone.
    let is_usual = call.from == Side::Client || matches!(convention, Some(Convention::Messaging { .. }));
    let here = [
        (Side::Client, ends.client_is_here()),
        (Side::Server, ends.server_is_here),
    ];
    here.into_iter()
        .filter(move |(_, is_here)| *is_here && is_usual)
        .filter_map(move |(side, _)| {
            let convention = convention.filter(|convention| index(*convention, side).is_some())?;
            Some((side, convention, describe(convention, call, ends, side)))
        })
}

/// Whether it is known how long a call took: not when the connection was no longer looked at.
pub(super) fn has_ended(call: &Call) -> bool {
    call.complete || call.failed || call.status.as_deref() == Some("cancelled")
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    index: usize,
    service: Arc<str>,
    attributes: Attributes,
}

/// Durations of decoded calls.
#[derive(Debug)]
pub(super) struct CallMeter {
    /// Bounds what callers can make a scrape cost by what they ask for.
    limit: usize,
    series: HashMap<Key, Histogram>,
    overflow: [Option<Histogram>; DURATIONS.len()],
    folded: u64,
    pub(super) missed: u64,
}

impl CallMeter {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            series: HashMap::new(),
            overflow: [const { None }; DURATIONS.len()],
            folded: 0,
            missed: 0,
        }
    }

    pub(super) fn count(&mut self, call: &Call, ends: &Ends) {
        if !has_ended(call) {
            return;
        }
        let seconds = call.ended_ns.saturating_sub(call.started_ns) as f64 / 1e9;
        for (side, convention, description) in sides(call, ends) {
            let Some(index) = index(convention, side) else {
                continue;
            };
            let service = if side == Side::Client {
                &ends.client
            } else {
                &ends.server
            };
            let key = Key {
                index,
                service: service.as_str().into(),
                attributes: description.attributes,
            };
            let empty = || DURATIONS[index].empty();
            let is_full = self.series.len() >= self.limit;
            let histogram = match self.series.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) if !is_full => entry.insert(empty()),
                Entry::Vacant(_) => {
                    self.folded += 1;
                    self.overflow[index].get_or_insert_with(empty)
                }
            };
            histogram.observe(seconds);
        }
    }

    pub(super) fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = DURATIONS
            .iter()
            .map(|duration| Family::new(&duration.metric))
            .collect();
        for (key, histogram) in &self.series {
            families[key.index].points.push(Point {
                service: Some(Arc::clone(&key.service)),
                attributes: Arc::new(key.attributes.clone()),
                value: Value::Histogram(histogram.clone()),
            });
        }
        for (family, histogram) in families.iter_mut().zip(&self.overflow) {
            if let Some(histogram) = histogram {
                let attributes = vec![(OVERFLOW, Attribute::Flag(true))];
                family.add(attributes, Value::Histogram(histogram.clone()));
            }
        }
        families.retain(|family| !family.points.is_empty());
        families.push(Family::one(&SERIES, Value::Count(self.series.len() as u64)));
        families.push(Family::one(&FOLDED, Value::Count(self.folded)));
        families.push(Family::one(&MISSED, Value::Count(self.missed)));
        families
    }
}

impl Duration {
    fn empty(&self) -> Histogram {
        Histogram {
            bounds: self.bounds,
            counts: vec![0; self.bounds.len() + 1],
            sum: 0.0,
        }
    }
}

impl Histogram {
    /// Counts a value in the first bucket whose bound is not below it.
    fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.sum += value;
        }
    }
}
