//! Metrics and their values, before any format.

use std::{borrow::Cow, sync::Arc};

/// What a metric is.
#[derive(Debug)]
pub(super) struct Metric {
    /// As OpenTelemetry names it: words with dots.
    pub(super) name: &'static str,
    /// What it counts; without a line break.
    pub(super) help: &'static str,
    pub(super) unit: Unit,
    pub(super) kind: Kind,
    /// The name for Prometheus, without `_total`, where it isn't the one that follows from `name` and `unit`.
    pub(super) scraped_as: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    Gauge,
    Histogram,
}

/// In UCUM for OpenTelemetry, in words for Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Bytes,
    /// A share of one.
    Ratio,
    /// Things, such as `{call}`; Prometheus has no unit for them.
    Of(&'static str),
}

impl Unit {
    /// As UCUM has it.
    pub(super) fn ucum(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Bytes => "By",
            Self::Ratio => "1",
            Self::Of(things) => things,
        }
    }

    /// The word that Prometheus' names end in.
    pub(super) fn word(self) -> Option<&'static str> {
        match self {
            Self::Seconds => Some("seconds"),
            Self::Bytes => Some("bytes"),
            Self::Ratio => Some("ratio"),
            Self::Of(_) => None,
        }
    }
}

impl Metric {
    pub(super) const fn counter(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self::new(name, unit, help, Kind::Counter)
    }

    pub(super) const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self::new(name, unit, help, Kind::Gauge)
    }

    pub(super) const fn histogram(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self::new(name, unit, help, Kind::Histogram)
    }

    const fn new(name: &'static str, unit: Unit, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            unit,
            kind,
            scraped_as: None,
        }
    }

    /// The same, under a name of Prometheus' own.
    pub(super) const fn scraped_as(mut self, name: &'static str) -> Self {
        self.scraped_as = Some(name);
        self
    }

    /// The name for Prometheus, without the `_total` of counters
    /// (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>): underscores, and the unit
    /// unless the name has it, as Prometheus' own translation does it.
    pub(super) fn scraped_name(&self) -> String {
        if let Some(name) = self.scraped_as {
            return name.to_owned();
        }
        let mut name = label_name(self.name).into_owned();
        if let Some(bare) = name.strip_suffix("_total") {
            name.truncate(bare.len());
        }
        if let Some(word) = self.unit.word()
            && !name.split('_').any(|part| part == word)
        {
            name.push('_');
            name.push_str(word);
        }
        name
    }
}

/// An attribute's name as Prometheus' labels have it.
pub(super) fn label_name(attribute: &'static str) -> Cow<'static, str> {
    if attribute.contains('.') {
        Cow::Owned(attribute.replace('.', "_"))
    } else {
        Cow::Borrowed(attribute)
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for Attribute {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

/// Names, those of OpenTelemetry, and values.
pub(super) type Attributes = Vec<(&'static str, Attribute)>;

/// A metric with all its values.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) metric: &'static Metric,
    pub(super) points: Vec<Point>,
}

#[derive(Clone, Debug)]
pub(super) struct Point {
    /// The service that it is told of; none where it is the agent's own.
    pub(super) service: Option<Arc<str>>,
    /// Shared by the metrics of an edge.
    pub(super) attributes: Arc<Attributes>,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Float(f64),
    Histogram(Histogram),
}

/// How many values there were up to each bound.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// In the metric's unit, rising.
    pub(super) bounds: &'static [f64],
    /// Values of each bucket by itself; one more than there are bounds.
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Family {
    pub(super) fn new(metric: &'static Metric) -> Self {
        Self {
            metric,
            points: Vec::new(),
        }
    }

    /// A metric of the agent's own with one value.
    pub(super) fn one(metric: &'static Metric, value: Value) -> Self {
        let mut family = Self::new(metric);
        family.add(Attributes::new(), value);
        family
    }

    pub(super) fn add(&mut self, attributes: Attributes, value: Value) {
        self.points.push(Point {
            service: None,
            attributes: Arc::new(attributes),
            value,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Metric, Unit};

    #[test]
    fn names_follow_the_compatibility_rules() {
        for (name, unit, wanted) in [
            (
                "http.client.request.duration",
                Unit::Seconds,
                "http_client_request_duration_seconds",
            ),
            (
                "traces_service_graph_request_server_seconds",
                Unit::Seconds,
                "traces_service_graph_request_server_seconds",
            ),
            (
                "traces_service_graph_request_total",
                Unit::Of("{request}"),
                "traces_service_graph_request",
            ),
            ("spike.bytes.sent", Unit::Bytes, "spike_bytes_sent"),
            ("spike.decode.budget", Unit::Ratio, "spike_decode_budget_ratio"),
        ] {
            assert_eq!(Metric::counter(name, unit, "").scraped_name(), wanted);
        }
    }
}
