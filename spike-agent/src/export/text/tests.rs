//! Both formats, read by another implementation.

use std::{collections::HashSet, sync::Arc};

use prometheus_parse::{Scrape, Value as Parsed};

use super::{Format, write};
use crate::{
    calls::EdgeCall,
    export::{
        Exporter, Settings,
        family::{Attribute, Family, Metric, Unit, Value},
        testing::{TestSource, call, edge, host},
    },
    protocol::ProtocolName,
};

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, wanted) in [
        ("", Format::Prometheus),
        ("*/*", Format::Prometheus),
        ("text/plain", Format::Prometheus),
        ("application/json", Format::Prometheus),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("Application/OpenMetrics-Text; version=1.0.0", Format::OpenMetrics),
        (prometheus_2, Format::OpenMetrics),
        (
            "text/plain;q=0.9, application/openmetrics-text;q=0.2",
            Format::Prometheus,
        ),
        ("application/openmetrics-text;q=0", Format::Prometheus),
    ] {
        assert_eq!(Format::accepted(accept), wanted, "{accept}");
    }
}

static ODD: Metric = Metric::counter("odd.things", Unit::Of("{thing}"), "Things.");

#[test]
fn labels_are_escaped() {
    let mut family = Family::new(&ODD);
    let odd = "a\"b\\c\nd";
    family.add(
        vec![
            ("some.name", Attribute::Text(odd.to_owned())),
            ("n", Attribute::Number(-4)),
        ],
        Value::Count(2),
    );
    let text = write(vec![family], &host(), Format::Prometheus).unwrap();
    assert_eq!(
        text,
        "# HELP odd_things_total Things.\n# TYPE odd_things_total counter\n\
         odd_things_total{agent=\"host-1/00000000000000ab\",some_name=\"a\\\"b\\\\c\\nd\",n=\"-4\"} 2\n"
    );
}

/// What an agent that has seen two edges and a call writes.
async fn scrape(format: Format) -> String {
    let source = TestSource::default();
    let edges = vec![edge(1, "shop", "web", 40), edge(2, "shop", "db", 2)];
    *source.edges.lock().unwrap() = edges;
    let get = call(ProtocolName::Http1, "GET", "/users", Some("404"));
    source.calls.lock().unwrap().push(EdgeCall { edge: 1, call: get });
    let settings = Settings {
        edges: 100,
        otlp: None,
    };
    let exporter = Exporter::start(Arc::new(source), settings, Default::default()).unwrap();
    for _ in 0..500 {
        let text = exporter.scrape(format).await.unwrap();
        if text.contains("http_server_request_duration_seconds_count") {
            return text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the call was not counted");
}

#[tokio::test]
async fn another_parser_reads_the_prometheus_text() {
    let text = scrape(Format::Prometheus).await;
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let read = Scrape::parse(lines).unwrap();
    assert!(
        read.samples
            .iter()
            .all(|sample| sample.labels.get("agent").is_some())
    );
    let of = |name: &str| -> Vec<_> {
        read.samples
            .iter()
            .filter(|sample| sample.metric == name)
            .collect()
    };
    let calls = of("spike_calls_total");
    let to_web = calls
        .iter()
        .find(|sample| sample.labels.get("server") == Some("web"));
    assert_eq!(to_web.unwrap().value, Parsed::Counter(40.0));
    let latency = of("traces_service_graph_request_server_seconds");
    assert_eq!(latency.len(), 2);
    let Parsed::Histogram(buckets) = &latency[0].value else {
        panic!("{:?}", latency[0]);
    };
    assert!(buckets.windows(2).all(|two| two[0].less_than < two[1].less_than));
    assert!(buckets.windows(2).all(|two| two[0].count <= two[1].count));
    assert_eq!(buckets.last().unwrap().less_than, f64::INFINITY);
    let request = of("http_server_request_duration_seconds");
    let labels = &request[0].labels;
    let labels =
        ["service_name", "http_request_method", "http_response_status_code"].map(|name| labels.get(name));
    assert_eq!(labels, [Some("web"), Some("GET"), Some("404")]);
}

#[tokio::test]
async fn every_series_is_described_and_stands_once() {
    let text = scrape(Format::OpenMetrics).await;
    assert!(text.ends_with("# EOF\n"));
    let mut described: HashSet<(&str, &str)> = HashSet::new();
    let mut series: HashSet<&str> = HashSet::new();
    let mut name = "";
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, of) = (words.next().unwrap(), words.next().unwrap());
            assert!(described.insert((what, of)), "{line} twice");
            name = of;
            continue;
        }
        assert!(line.starts_with(name), "{line} does not stand below {name}");
        let (key, _) = line.rsplit_once(' ').unwrap();
        assert!(series.insert(key), "{key} twice");
    }
    for unit in [
        "# UNIT traces_service_graph_request_server_seconds seconds",
        "# UNIT process_cpu_seconds seconds",
        "# UNIT process_resident_memory_bytes bytes",
        "# UNIT spike_decode_budget_ratio ratio",
    ] {
        assert!(text.contains(unit), "no {unit}");
    }
}

#[tokio::test]
async fn every_metric_is_in_the_table_of_the_docs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let text = scrape(Format::Prometheus).await;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let row = docs
            .lines()
            .find(|row| row.starts_with(&format!("| `{name}` | {kind} |")));
        assert!(row.is_some(), "no row for {name}, a {kind}, in docs/metrics.md");
    }
}
