//! From metrics and spans to OTLP's messages.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use opentelemetry_semantic_conventions::{
    SCHEMA_URL,
    attribute::{HOST_NAME, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION},
};

use super::spans::ServiceSpan;
use crate::export::{
    family::{Attribute, Attributes, Family, Kind, Point, Value},
    source::Host,
};

/// The name of what tells of itself.
const OWN: &str = "spike";

/// A request with all metrics, each service's under its own resource, and how many points it has.
pub(super) fn metrics(
    families: Vec<Family>,
    host: &Host,
    since: SystemTime,
    now: SystemTime,
) -> (ExportMetricsServiceRequest, u64) {
    let times = (nanoseconds(since), nanoseconds(now));
    let mut resources: BTreeMap<Option<Arc<str>>, Vec<Metric>> = BTreeMap::new();
    let mut count = 0;
    for family in families {
        let mut by_service: BTreeMap<Option<Arc<str>>, Vec<Point>> = BTreeMap::new();
        count += family.points.len() as u64;
        for point in family.points {
            by_service.entry(point.service.clone()).or_default().push(point);
        }
        for (service, points) in by_service {
            let made = Metric {
                name: family.metric.name.to_owned(),
                description: family.metric.help.to_owned(),
                unit: family.metric.unit.ucum().to_owned(),
                metadata: Vec::new(),
                data: Some(data(family.metric.kind, points, times)),
            };
            resources.entry(service).or_default().push(made);
        }
    }
    let resource_metrics = resources.into_iter().map(|(service, metrics)| ResourceMetrics {
        resource: Some(resource(service.as_deref(), host)),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(scope()),
            metrics,
            schema_url: String::new(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    });
    let request = ExportMetricsServiceRequest {
        resource_metrics: resource_metrics.collect(),
    };
    (request, count)
}

/// A request with spans, each service's under its own resource.
pub(super) fn spans(spans: impl Iterator<Item = ServiceSpan>, host: &Host) -> ExportTraceServiceRequest {
    let mut resources: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for ServiceSpan { service, span } in spans {
        resources.entry(service).or_default().push(span);
    }
    let resource_spans = resources.into_iter().map(|(service, spans)| ResourceSpans {
        resource: Some(resource(Some(&service), host)),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope()),
            spans,
            schema_url: String::new(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    });
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
}

/// A service of this host, as this agent sees it; without a name the agent itself.
fn resource(service: Option<&str>, host: &Host) -> Resource {
    let mut attributes: Attributes = vec![
        (SERVICE_NAME, service.unwrap_or(OWN).into()),
        (SERVICE_INSTANCE_ID, host.agent.as_str().into()),
        (HOST_NAME, host.name.as_str().into()),
    ];
    if service.is_none() {
        attributes.push((SERVICE_VERSION, env!("CARGO_PKG_VERSION").into()));
    }
    Resource {
        attributes: key_values(&attributes),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: OWN.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn data(kind: Kind, points: Vec<Point>, times: (u64, u64)) -> metric::Data {
    let cumulative = AggregationTemporality::Cumulative as i32;
    match kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: points.iter().filter_map(|point| number(point, times)).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: points
                .iter()
                .filter_map(|point| number(point, (0, times.1)))
                .collect(),
        }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: points
                .into_iter()
                .filter_map(|point| histogram(point, times))
                .collect(),
            aggregation_temporality: cumulative,
        }),
    }
}

fn number(point: &Point, (since, now): (u64, u64)) -> Option<NumberDataPoint> {
    let value = match point.value {
        Value::Count(count) => number_data_point::Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX)),
        Value::Float(value) => number_data_point::Value::AsDouble(value),
        Value::Histogram(_) => return None,
    };
    Some(NumberDataPoint {
        attributes: key_values(&point.attributes),
        start_time_unix_nano: since,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(point: Point, (since, now): (u64, u64)) -> Option<HistogramDataPoint> {
    let Value::Histogram(histogram) = point.value else {
        return None;
    };
    Some(HistogramDataPoint {
        attributes: key_values(&point.attributes),
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: histogram.count(),
        sum: Some(histogram.sum),
        bucket_counts: histogram.counts,
        explicit_bounds: histogram.bounds.to_vec(),
        ..HistogramDataPoint::default()
    })
}

/// Attributes as OTLP has them.
pub(super) fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    let key_value = |(name, value): &(&'static str, Attribute)| {
        let value = match value {
            Attribute::Text(text) => any_value::Value::StringValue(text.clone()),
            Attribute::Number(number) => any_value::Value::IntValue(*number),
            Attribute::Flag(flag) => any_value::Value::BoolValue(*flag),
        };
        KeyValue {
            key: (*name).to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        }
    };
    attributes.iter().map(key_value).collect()
}

/// Since 1970; what does not fit is 0, which OTLP takes for unknown.
pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}
