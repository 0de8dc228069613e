//! Metrics and spans, as Prometheus itself and OpenTelemetry's own messages read them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use spike_tests::{
    agent::{self, Agent},
    needs,
    oracle::curl,
    tools, wait_for,
    workload::{free_port, nginx, redis},
    world::{World, finish, start},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "promtool_has_nothing_against_the_metrics",
        promtool_has_nothing_against_the_metrics,
    ),
    ("prometheus_scrapes_the_agent", prometheus_scrapes_the_agent),
    (
        "a_collector_gets_metrics_and_spans",
        a_collector_gets_metrics_and_spans,
    ),
    (
        "a_collector_that_is_gone_stops_nothing",
        a_collector_that_is_gone_stops_nothing,
    ),
];

const LIMIT: Duration = Duration::from_secs(15);

fn promtool_has_nothing_against_the_metrics() {
    needs::program("promtool");
    let world = World::new();
    let agent = decoding(&world, &[]);
    let port = nginx(&world, &world.place("web"));
    let redis = redis(&world, &world.place("db")).to_string();
    let client = world.place("client");
    // Decoded calls are counted from the first scrape on.
    scrape(&agent, "text/plain");
    for path in ["small", "users/12345", "\"odd\\path"] {
        curl(&client, &format!("http://127.0.0.1:{port}/{path}"), &["-g"]);
    }
    client
        .run("redis-cli", &["-p", &redis, "SET", "key", "value"])
        .ok();
    let text = wait_for("the calls among the metrics", LIMIT, || {
        let text = scrape(&agent, "text/plain");
        let has = |name: &str| text.lines().any(|line| line.starts_with(name));
        let all = has("http_client_request_duration_seconds_count{")
            && has("http_server_request_duration_seconds_count{")
            && has("db_client_operation_duration_seconds_count{");
        all.then_some(text)
    });
    let mut command = Command::new("promtool");
    let mut child = start(command.args(["check", "metrics"]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("promtool's input");
    stdin
        .write_all(text.as_bytes())
        .expect("give promtool the metrics");
    drop(stdin);
    let done = finish(child, "promtool");
    let said = done.stdout + &done.stderr;
    assert!(
        done.status.success() && said.is_empty(),
        "{}: {said}",
        done.status
    );
}

fn prometheus_scrapes_the_agent() {
    needs::program("prometheus");
    let world = World::new();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut command = agent::command_listening(&world, &listen);
    command.args(["--decode-budget", "100"]);
    let agent = Agent::start_with(&world, command);
    let prometheus = Prometheus::start(&world, &listen);
    wait_for("Prometheus to have scraped", LIMIT, || {
        (prometheus.value("up{job=\"spike\"}")? == 1.0).then_some(())
    });

    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    const CALLS: usize = 25;
    for number in 0..CALLS {
        let path = if number % 5 == 0 { "missing" } else { "small" };
        curl(&client, &format!("http://127.0.0.1:{port}/{path}"), &[]);
    }
    // Nobody listens there.
    let closed = free_port();
    for _ in 0..3 {
        curl(&client, &format!("http://127.0.0.1:{closed}/"), &[]);
    }
    agent.wait_for_sum("curl", port, "calls", CALLS as u64);
    let edge = format!("client=\"curl\",server=\"nginx\",server_port=\"{port}\",seen_at=\"client\"");
    let calls = CALLS as f64;
    let wanted = [
        (format!("spike_calls_total{{{edge}}}"), calls),
        (format!("spike_connections_opened_total{{{edge}}}"), calls),
        (format!("spike_connections_open{{{edge}}}"), 0.0),
        (
            format!("spike_bytes_received_total{{{edge}}}"),
            agent.sum("curl", port, "bytes_in") as f64,
        ),
        (
            format!("spike_bytes_sent_total{{{edge}}}"),
            agent.sum("curl", port, "bytes_out") as f64,
        ),
        (
            format!("spike_connections_failed_total{{server_port=\"{closed}\",reason=\"refused\"}}"),
            3.0,
        ),
        (
            "traces_service_graph_request_total{client=\"curl\",server=\"nginx\"}".to_owned(),
            calls,
        ),
        (
            "traces_service_graph_request_server_seconds_count{client=\"curl\",server=\"nginx\"}".to_owned(),
            calls,
        ),
        (
            "sum(http_client_request_duration_seconds_count{service_name=\"curl\",http_response_status_code=\"404\",\
             url_template=\"/missing\",error_type=\"404\"})"
                .to_owned(),
            calls / 5.0,
        ),
        (
            // A client's mistake is no failure of the server.
            "sum(http_server_request_duration_seconds_count{service_name=\"nginx\",error_type=\"\"})".to_owned(),
            calls,
        ),
        ("count(count by (agent) (spike_build_info))".to_owned(), 1.0),
    ];
    for (query, value) in wanted {
        let mut seen = None;
        let reached = || {
            seen = prometheus.value(&query);
            (seen == Some(value)).then_some(())
        };
        wait_for(&format!("{query} to be {value}"), LIMIT, reached);
    }
    let median = prometheus
        .value("histogram_quantile(0.5, traces_service_graph_request_client_seconds_bucket{client=\"curl\",server=\"nginx\"})")
        .expect("a median");
    assert!(median > 0.0 && median < 5.0, "{median}");
    let stored = prometheus.get("/api/v1/targets/metadata?match_target={job=\"spike\"}&limit=1000");
    let kinds = stored["data"].as_array().expect("a list");
    for (name, kind) in [
        ("spike_calls", "counter"),
        ("spike_connections_open", "gauge"),
        ("traces_service_graph_request_client_seconds", "histogram"),
    ] {
        let found = kinds.iter().find(|metric| {
            let known = metric["metric"].as_str().unwrap_or_default();
            known.strip_suffix("_total").unwrap_or(known) == name
        });
        assert_eq!(found.unwrap_or(&Value::Null)["type"], kind, "{name}");
    }
}

fn a_collector_gets_metrics_and_spans() {
    tools::python_module("opentelemetry.proto");
    let world = World::new();
    // The first push is sent away, and comes again.
    let collector = Collector::start(&world, 1);
    let agent = decoding(
        &world,
        &[
            "--otlp",
            &collector.url,
            "--otlp-interval",
            "1s",
            "--otlp-header",
            "x-tenant=shop",
        ],
    );
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    wait_for("a first push", LIMIT, || {
        (!collector.got("/v1/metrics").is_empty()).then_some(())
    });
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let url = format!("http://127.0.0.1:{port}");
    for _ in 0..5 {
        curl(&client, &format!("{url}/small"), &[]);
    }
    let traced = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    curl(&client, &format!("{url}/users/42"), &["-H", &traced]);
    let untraced = format!("traceparent: 00-{TRACE}-{PARENT}-00");
    curl(&client, &format!("{url}/unsampled"), &["-H", &untraced]);
    let begun = Instant::now();
    let spans = loop {
        let spans = collector.spans();
        if spans.len() >= 12 {
            break spans;
        }
        assert!(
            begun.elapsed() < needs::patience(LIMIT),
            "{} spans of twelve: {spans:#?}\nthe agent: {:#}\nthe map: {:#}",
            spans.len(),
            agent.json(&["status"]),
            agent.json(&["map"])
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    // The call that its caller chose not to record has none.
    assert_eq!(spans.len(), 12, "{spans:#?}");
    check_spans(&spans, TRACE, PARENT);

    agent.wait_for_sum("curl", port, "calls", 7);
    let bytes = agent.sum("curl", port, "bytes_in");
    let status = agent.json(&["status"]);
    assert!(
        status["otlp"]["spans_sent"].as_u64().unwrap_or(0) >= 12,
        "{status:#}"
    );
    assert_eq!(status["otlp"]["spans_dropped"], 0, "{status:#}");
    assert_eq!(agent.terminate(), Some(0));
    let pushes = collector.got("/v1/metrics");
    assert!(
        pushes.iter().all(|push| push["headers"]["x-tenant"] == "shop"),
        "{pushes:#?}"
    );
    // The last push comes with the agent's end.
    let last = &pushes.last().expect("a push")["body"];
    assert_eq!(sum(last, "spike.calls", port), 7.0, "{last:#}");
    assert_eq!(sum(last, "spike.bytes.received", port), bytes as f64);
    let duration = metric(last, "http.server.request.duration");
    assert_eq!(duration.len(), 1, "{last:#}");
    let (resource, metric) = &duration[0];
    assert_eq!(attribute(resource, "service.name"), "nginx");
    assert_eq!(metric["unit"], "s");
    assert_eq!(
        metric["histogram"]["aggregationTemporality"],
        "AGGREGATION_TEMPORALITY_CUMULATIVE"
    );
    let points = metric["histogram"]["dataPoints"].as_array().expect("points");
    let count: f64 = points.iter().map(|point| number(&point["count"])).sum();
    assert_eq!(count, 7.0, "{metric:#}");
}

fn check_spans(spans: &[(Value, Value)], trace: &str, parent: &str) {
    let id = |span: &Value, key: &str| hex(span[key].as_str().unwrap_or_default());
    let mut of_trace = 0;
    for (resource, span) in spans {
        let is_server = span["kind"] == "SPAN_KIND_SERVER";
        let (own, peer) = if is_server {
            ("nginx", "curl")
        } else {
            ("curl", "nginx")
        };
        assert_eq!(attribute(resource, "service.name"), own, "{span:#}");
        assert_eq!(attribute(span, "service.peer.name"), peer, "{span:#}");
        assert_eq!(attribute(span, "http.request.method"), "GET");
        assert!(
            number(&span["startTimeUnixNano"]) < number(&span["endTimeUnixNano"]),
            "{span:#}"
        );
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let age = now.as_secs_f64() - number(&span["endTimeUnixNano"]) / 1e9;
        assert!((0.0..60.0).contains(&age), "ended {age} s ago: {span:#}");
        if is_server {
            let caller = spans
                .iter()
                .find(|(_, other)| other["spanId"] == span["parentSpanId"]);
            let (_, caller) = caller.expect("the server's span is a child of the client's");
            assert_eq!(caller["traceId"], span["traceId"]);
            assert_eq!(caller["kind"], "SPAN_KIND_CLIENT");
        }
        if id(span, "traceId") == trace {
            of_trace += 1;
            assert_eq!(span["name"], "GET /users/{id}");
            assert_eq!(attribute(span, "http.response.status_code"), "404");
            assert!(is_server || id(span, "parentSpanId") == parent, "{span:#}");
            // Whose mistake it was: the client's.
            let code = if is_server {
                &Value::Null
            } else {
                &"STATUS_CODE_ERROR".into()
            };
            assert_eq!(&span["status"]["code"], code, "{span:#}");
        }
    }
    assert_eq!(of_trace, 2, "{spans:#?}");
}

fn a_collector_that_is_gone_stops_nothing() {
    let world = World::new();
    let url = format!("http://127.0.0.1:{}", free_port());
    let agent = decoding(&world, &["--otlp", &url, "--otlp-interval", "1s"]);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    for _ in 0..5 {
        curl(&client, &format!("http://127.0.0.1:{port}/small"), &[]);
    }
    agent.wait_for_sum("curl", port, "calls", 5);
    let status = wait_for("a push that is given up", LIMIT, || {
        let status = agent.json(&["status"]);
        (status["otlp"]["points_dropped"].as_u64()? > 0).then_some(status)
    });
    let error = status["otlp"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("refused"), "{status:#}");
    let begun = Instant::now();
    assert_eq!(agent.terminate(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// An agent that decodes whatever it can.
fn decoding(world: &World, more: &[&str]) -> Agent {
    let mut command = agent::command(world);
    command.args(["--decode-budget", "100"]).args(more);
    Agent::start_with(world, command)
}

fn scrape(agent: &Agent, accept: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-sSf", "--unix-socket", agent.socket(), "-H"]);
    command.args([&format!("Accept: {accept}"), "http://spike/metrics"]);
    finish(start(&mut command), "curl").ok()
}

/// Prometheus, outside of what the agent observes.
struct Prometheus {
    url: String,
}

impl Prometheus {
    fn start(world: &World, target: &str) -> Self {
        let dir = world.path("prometheus");
        fs::create_dir_all(&dir).expect("make Prometheus' directory");
        let config = format!(
            "global: {{ scrape_interval: 1s }}\n\
             scrape_configs: [ {{ job_name: spike, static_configs: [ {{ targets: [\"{target}\"] }} ] }} ]\n"
        );
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).expect("write Prometheus' configuration");
        let address = format!("127.0.0.1:{}", free_port());
        let log = fs::File::create(dir.join("log")).expect("make Prometheus' log");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        world.keep(command.spawn().expect("start Prometheus"));
        let prometheus = Self {
            url: format!("http://{address}"),
        };
        wait_for("Prometheus to answer", Duration::from_secs(30), || {
            let mut command = Command::new("curl");
            command.args(["-sf", "-o", "/dev/null", &format!("{}/-/ready", prometheus.url)]);
            finish(start(&mut command), "curl").status.success().then_some(())
        });
        prometheus
    }

    fn get(&self, path: &str) -> Value {
        let mut command = Command::new("curl");
        command.args(["-sS", "-g", &format!("{}{path}", self.url)]);
        serde_json::from_str(&finish(start(&mut command), "curl").ok()).expect("JSON")
    }

    /// The one number that a query gives.
    fn value(&self, query: &str) -> Option<f64> {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "-G", &format!("{}/api/v1/query", self.url)])
            .args(["--data-urlencode", &format!("query={query}")]);
        let answer: Value = serde_json::from_str(&finish(start(&mut command), "curl").ok()).expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
        let result = answer["data"]["result"].as_array().expect("a list");
        assert!(result.len() <= 1, "{query}: {answer:#}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }
}

/// `programs/otlp_receiver.py`, outside of what the agent observes.
struct Collector {
    url: String,
    log: PathBuf,
}

impl Collector {
    fn start(world: &World, busy: u32) -> Self {
        let log = world.path("otlp.jsonl");
        let said = fs::File::create(world.path("otlp.log")).expect("make the collector's log");
        let mut command = tools::python();
        command
            .arg(tools::script("otlp_receiver.py"))
            .arg(&log)
            .arg(busy.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said);
        let mut child = command.spawn().expect("start the collector");
        let stdout = child.stdout.take().expect("its output");
        world.keep(child);
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("read from the collector");
        let address = line.trim().strip_prefix("listening ").expect("its address");
        Self {
            url: format!("http://{address}"),
            log,
        }
    }

    /// What was pushed to a path; the receiver has checked each.
    fn got(&self, path: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["path"] == path).collect()
    }

    /// All spans, with their resources.
    fn spans(&self) -> Vec<(Value, Value)> {
        let mut spans = Vec::new();
        for push in self.got("/v1/traces") {
            for of in list(&push["body"]["resourceSpans"]) {
                for scope in list(&of["scopeSpans"]) {
                    let own = list(&scope["spans"]).iter();
                    spans.extend(own.map(|span| (of["resource"].clone(), span.clone())));
                }
            }
        }
        spans
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A metric of a push, with each resource that has it.
fn metric<'a>(push: &'a Value, name: &str) -> Vec<(&'a Value, &'a Value)> {
    let mut found = Vec::new();
    for of in list(&push["resourceMetrics"]) {
        for scope in list(&of["scopeMetrics"]) {
            let named = list(&scope["metrics"])
                .iter()
                .filter(|metric| metric["name"] == name);
            found.extend(named.map(|metric| (&of["resource"], metric)));
        }
    }
    found
}

/// Sum of a counter over the edges to a port.
fn sum(push: &Value, name: &str, port: u16) -> f64 {
    let points = metric(push, name)
        .into_iter()
        .flat_map(|(_, metric)| list(&metric["sum"]["dataPoints"]));
    let to_port = points.filter(|point| attribute(point, "server_port") == port.to_string());
    to_port.map(|point| number(&point["asInt"])).sum()
}

/// Numbers of 64 bits are text in protobuf's JSON.
fn number(value: &Value) -> f64 {
    let text = value
        .as_str()
        .map(str::to_owned)
        .unwrap_or_else(|| value.to_string());
    text.parse().unwrap_or_else(|_| panic!("{value} is no number"))
}

/// An attribute of a resource, span or point as text; empty when it is not there.
fn attribute(of: &Value, name: &str) -> String {
    let found = list(&of["attributes"])
        .iter()
        .find(|attribute| attribute["key"] == name);
    let value = found.and_then(|attribute| attribute["value"].as_object()?.values().next());
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Base64, as protobuf's JSON has bytes, in hexadecimal digits.
fn hex(base64: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held) = (0_u32, 0);
    let mut text = String::new();
    for digit in base64.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).expect("base64");
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            text.push_str(&format!("{:02x}", bits >> held & 0xff));
        }
    }
    text
}
