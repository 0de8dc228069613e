//! Metrics as text, for Prometheus and whoever reads OpenMetrics.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    family::{Attribute, Family, Kind, Point, Value, label_name},
    source::Host,
};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that a client prefers, by its `Accept` header; of equals, and without one, Prometheus'.
    pub fn accepted(accept: &str) -> Self {
        let weight = |wanted: &str| {
            let offers = accept.split(',').filter_map(|offer| {
                let mut parts = offer.split(';').map(str::trim);
                let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
                let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
                is_wanted.then_some(quality.unwrap_or(1.0))
            });
            offers.fold(0.0, f32::max)
        };
        if weight("application/openmetrics-text") > weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes metrics, each with the label `agent`.
pub(super) fn write(families: Vec<Family>, host: &Host, format: Format) -> Result<String, fmt::Error> {
    let agent = Cow::Owned(format!("{}/{}", host.name, host.agent));
    let labels = [(Cow::Borrowed("agent"), agent)];
    let mut registry = Registry::with_labels(labels.into_iter());
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => without_openmetrics(&text),
    })
}

/// OpenMetrics as Prometheus' older format has it: counters are described under the name of their values, and there
/// are neither units nor an end.
fn without_openmetrics(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        let described = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match described {
            Some(("HELP", rest)) => help = Some(rest),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let suffix = if kind == "counter" { "_total" } else { "" };
                let told = help.take().and_then(|help: &str| help.split_once(' '));
                if let Some((_, told)) = told {
                    made.extend(["# HELP ", name, suffix, " ", told, "\n"]);
                }
                made.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            Some(_) => {}
            None if line == "# EOF" => {}
            None => made.extend([line, "\n"]),
        }
    }
    made
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let metric = family.metric;
            let name = metric.scraped_name();
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            // The encoder adds the unit to the name.
            let word = metric.unit.word();
            let bare = word.and_then(|word| name.strip_suffix(word)?.strip_suffix('_'));
            let unit = word
                .filter(|_| bare.is_some())
                .map(|word| Unit::Other(word.to_owned()));
            let mut written =
                encoder.encode_descriptor(bare.unwrap_or(&name), metric.help, unit.as_ref(), kind)?;
            for point in &family.points {
                let labels = Labels(point);
                write_value(written.encode_family(&labels)?, metric.kind, &point.value)?;
            }
        }
        Ok(())
    }
}

fn write_value(mut encoder: MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None),
        (Kind::Counter, Value::Float(sum)) => encoder.encode_counter::<NoLabelSet, _, f64>(sum, None),
        (_, Value::Count(count)) => encoder.encode_gauge(count),
        (_, Value::Float(value)) => encoder.encode_gauge(value),
        (_, Value::Histogram(histogram)) => {
            let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
            encoder.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &buckets, None)
        }
    }
}

#[derive(Debug)]
struct Labels<'a>(&'a Point);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        if let Some(service) = &self.0.service {
            ("service_name", &**service).encode(encoder.encode_label())?;
        }
        for (name, value) in &*self.0.attributes {
            let name = label_name(name);
            match value {
                Attribute::Text(text) => (name, text.as_str()).encode(encoder.encode_label())?,
                Attribute::Number(number) => (name, *number).encode(encoder.encode_label())?,
                Attribute::Flag(flag) => (name, *flag).encode(encoder.encode_label())?,
            }
        }
        Ok(())
    }
}
