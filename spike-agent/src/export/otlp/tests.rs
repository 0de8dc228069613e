//! Pushes to a collector that does what collectors do: take, take a part, ask to wait, refuse, hang.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        },
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value},
    trace::v1::span::SpanKind,
};
use prost::Message;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, Outcome, retry_after},
    counts::Signal,
    spans,
};
use crate::{
    calls::EdgeCall,
    config,
    export::{
        Exporter, Settings,
        testing::{TestSource, call, edge, ends},
    },
    protocol::{ProtocolName, Side, Trace},
};

/// What a collector got, and what it answers next; without an answer it takes all.
#[derive(Default)]
struct Collector {
    got: Mutex<Vec<(&'static str, HeaderMap, Bytes)>>,
    answers: Mutex<VecDeque<Response>>,
}

impl Collector {
    /// Listens; gives its configuration.
    async fn start(answers: Vec<Response>) -> (Arc<Self>, config::Otlp) {
        let collector = Arc::new(Self {
            answers: Mutex::new(answers.into()),
            ..Self::default()
        });
        async fn take(
            collector: &Collector,
            path: &'static str,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response {
            collector.got.lock().unwrap().push((path, headers, body));
            let answer = collector.answers.lock().unwrap().pop_front();
            answer.unwrap_or_else(|| StatusCode::OK.into_response())
        }
        let metrics = async |State(it): State<Arc<Self>>, headers: HeaderMap, body: Bytes| {
            take(&it, "metrics", headers, body).await
        };
        let traces = async |State(it): State<Arc<Self>>, headers: HeaderMap, body: Bytes| {
            take(&it, "traces", headers, body).await
        };
        let router = Router::new()
            .route("/base/v1/metrics", post(metrics))
            .route("/base/v1/traces", post(traces))
            .with_state(Arc::clone(&collector));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, config_for(&format!("http://{address}/base")))
    }

    fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    fn bodies(&self, wanted: &str) -> Vec<Bytes> {
        let got = self.got.lock().unwrap();
        let of = got.iter().filter(|(path, ..)| *path == wanted);
        of.map(|(_, _, body)| body.clone()).collect()
    }
}

fn config_for(url: &str) -> config::Otlp {
    config::Otlp {
        endpoint: url.parse().unwrap(),
        interval: Duration::from_secs(3600),
        headers: vec!["x-tenant=blue".parse().unwrap()],
    }
}

async fn deliver(config: &config::Otlp, limit: Duration) -> Outcome {
    let client = Client::new(config).unwrap();
    let until = Instant::now() + limit;
    let body = Bytes::from_static(b"body");
    client
        .deliver(Signal::Metrics, body, until, &CancellationToken::new())
        .await
}

fn busy(status: u16, retry_after: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(RETRY_AFTER, retry_after)]).into_response()
}

const TAKEN: Outcome = Outcome::Accepted {
    rejected: 0,
    told: String::new(),
};

#[tokio::test]
async fn a_busy_collector_is_tried_again_when_it_says() {
    let answers = vec![busy(503, "0"), busy(429, "1"), busy(502, "0"), busy(504, "0")];
    let (collector, config) = Collector::start(answers).await;
    let start = Instant::now();
    assert_eq!(deliver(&config, Duration::from_secs(20)).await, TAKEN);
    assert!(
        (1.0..5.0).contains(&start.elapsed().as_secs_f64()),
        "{:?}",
        start.elapsed()
    );
    let got = collector.got.lock().unwrap();
    assert_eq!(got.len(), 5);
    for (path, headers, body) in &*got {
        assert_eq!((*path, &body[..]), ("metrics", &b"body"[..]));
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-tenant"], "blue");
    }
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    for status in [400, 401, 404, 413, 500] {
        let (collector, config) = Collector::start(vec![busy(status, "0")]).await;
        let outcome = deliver(&config, Duration::from_secs(20)).await;
        let Outcome::Failed(why) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(why.contains(&status.to_string()), "{why}");
        assert_eq!(collector.count(), 1, "{status}");
    }
}

#[tokio::test]
async fn there_is_an_end_to_trying() {
    let (_, config) = Collector::start(vec![busy(503, "3600")]).await;
    let start = Instant::now();
    assert!(matches!(
        deliver(&config, Duration::from_secs(5)).await,
        Outcome::Failed(_)
    ));
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = config_for(&format!("http://{closed}"));
    let outcome = deliver(&gone, Duration::from_millis(100)).await;
    let Outcome::Failed(why) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.contains("refused"), "{why}");
    // Accepts and says nothing.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config_for(&format!("http://{}", hangs.local_addr().unwrap()));
    assert!(matches!(
        deliver(&config, Duration::from_millis(300)).await,
        Outcome::Failed(_)
    ));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_part_that_was_rejected_is_told() {
    let partial = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "too old".to_owned(),
        }),
    };
    let (_, config) = Collector::start(vec![partial.encode_to_vec().into_response()]).await;
    let told = Outcome::Accepted {
        rejected: 3,
        told: "too old".to_owned(),
    };
    assert_eq!(deliver(&config, Duration::from_secs(5)).await, told);
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (text, wanted) in [
        ("7", Some(7)),
        ("99999999999999", Some(24 * 3600)),
        ("Sun, 09 Sep 2001 01:46:50 GMT", Some(10)),
        ("Sun, 09 Sep 2001 01:46:30 GMT", Some(0)),
        ("-1", None),
        ("soon", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
        assert_eq!(
            retry_after(&headers, now),
            wanted.map(Duration::from_secs),
            "{text}"
        );
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|entry| entry.key == key);
    match found.and_then(|entry| entry.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test]
async fn metrics_and_spans_arrive_and_the_last_ones_too() {
    let (collector, config) = Collector::start(Vec::new()).await;
    let source = TestSource::default();
    source.edges.lock().unwrap().push(edge(1, "shop", "web", 40));
    let get = call(ProtocolName::Http1, "GET", "/a", Some("200"));
    source.calls.lock().unwrap().push(EdgeCall { edge: 1, call: get });
    let settings = Settings {
        edges: 10,
        otlp: Some(config),
    };
    let stop = CancellationToken::new();
    let exporter = Exporter::start(Arc::new(source), settings, stop.clone()).unwrap();
    for _ in 0..500 {
        if collector.count() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Spans wait for others for a second; the stop does not.
    stop.cancel();
    exporter.finish(Duration::from_secs(5)).await;
    let traces = collector.bodies("traces");
    let request = ExportTraceServiceRequest::decode(traces[0].clone()).unwrap();
    let mut services = request.resource_spans.iter().map(|spans| {
        let resource = spans.resource.as_ref().unwrap();
        text(&resource.attributes, "service.name").to_owned()
    });
    assert_eq!(services.next().as_deref(), Some("shop"));
    assert_eq!(services.next().as_deref(), Some("web"));

    let metrics = collector.bodies("metrics");
    assert!(metrics.len() >= 2, "at the start and at the end");
    let request = ExportMetricsServiceRequest::decode(metrics.last().unwrap().clone()).unwrap();
    let mut names = Vec::new();
    for metrics in &request.resource_metrics {
        let attributes = &metrics.resource.as_ref().unwrap().attributes;
        assert!(!text(attributes, "host.name").is_empty());
        assert_eq!(text(attributes, "service.instance.id").len(), 16);
        for metric in &metrics.scope_metrics[0].metrics {
            names.push((
                text(attributes, "service.name"),
                metric.name.as_str(),
                metric.unit.as_str(),
            ));
        }
    }
    for wanted in [
        ("spike", "spike.bytes.sent", "By"),
        ("spike", "traces_service_graph_request_total", "{request}"),
        ("shop", "http.client.request.duration", "s"),
        ("web", "http.server.request.duration", "s"),
    ] {
        assert!(names.contains(&wanted), "{wanted:?} in {names:?}");
    }
    let view = exporter.otlp().unwrap();
    assert_eq!((view.spans_sent, view.spans_dropped, &view.error), (2, 0, &None));
    assert!(view.points_sent > 40, "{view:?}");
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config_for(&format!("http://{}", hangs.local_addr().unwrap()));
    let source = TestSource::default();
    source.edges.lock().unwrap().push(edge(1, "shop", "web", 40));
    let get = call(ProtocolName::Http1, "GET", "/a", Some("200"));
    let call = EdgeCall { edge: 1, call: get };
    *source.calls.lock().unwrap() = vec![call; 20_000];
    let settings = Settings {
        edges: 10,
        otlp: Some(config),
    };
    let stop = CancellationToken::new();
    let exporter = Exporter::start(Arc::new(source), settings, stop.clone()).unwrap();
    let mut dropped = 0;
    for _ in 0..1000 {
        dropped = exporter.otlp().unwrap().spans_dropped;
        if dropped > 30_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        (30_000..40_000).contains(&dropped),
        "of 40,000 spans {dropped} were dropped"
    );
    let start = Instant::now();
    let text = exporter.scrape(crate::export::Format::Prometheus).await.unwrap();
    assert!(text.contains("spike_otlp_dropped_total"), "{text}");
    stop.cancel();
    exporter.finish(Duration::from_millis(200)).await;
    assert!(start.elapsed() < Duration::from_secs(3));
}

fn clock(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(5) + Duration::from_nanos(ns)
}

#[test]
fn both_sides_of_a_call_are_in_its_trace() {
    let mut get = call(ProtocolName::Http1, "GET", "/a", Some("500"));
    get.trace = Trace::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let made = spans::of(&get, &ends("shop", "web"), clock);
    let [client, server] = &made[..] else {
        panic!("{made:?}")
    };
    assert_eq!(
        (client.service.as_str(), server.service.as_str()),
        ("shop", "web")
    );
    let (client, server) = (&client.span, &server.span);
    assert_eq!(
        (client.kind, server.kind),
        (SpanKind::Client as i32, SpanKind::Server as i32)
    );
    for span in [client, server] {
        assert_eq!(
            span.trace_id,
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()
        );
        assert_eq!(
            (span.start_time_unix_nano, span.end_time_unix_nano),
            (6_000_000_000, 6_020_000_000)
        );
        assert_eq!(span.status.as_ref().unwrap().code, 2, "an error");
        assert_eq!((span.name.as_str(), span.span_id.len()), ("GET /a", 8));
    }
    assert_eq!(client.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(server.parent_span_id, client.span_id);
    assert_eq!((client.flags, server.flags), (0x101, 0x301));
    assert_eq!(text(&client.attributes, "service.peer.name"), "web");
}

#[test]
fn a_trace_that_is_not_recorded_and_own_pushes_have_no_spans() {
    let mut get = call(ProtocolName::Http1, "GET", "/a", Some("200"));
    let mut own = ends("spike", "collector");
    own.is_own = true;
    assert!(spans::of(&get, &own, clock).is_empty());
    get.trace = Trace::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    assert!(spans::of(&get, &ends("shop", "web"), clock).is_empty());
    // Without a trace each call begins its own.
    get.trace = None;
    let made = [(); 2].map(|()| spans::of(&get, &ends("shop", "web"), clock));
    assert_ne!(made[0][0].span.trace_id, made[1][0].span.trace_id);
    assert!(made[0][0].span.parent_span_id.is_empty());
    let mut remote = ends("10.0.0.9", "web");
    remote.seen_at = Side::Server;
    let made = spans::of(&get, &remote, clock);
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].span.kind, SpanKind::Server as i32);
}
