//! What a map of 1,000 services and 10,000 edges costs: run by `cargo xtask bench map`, which says more.
//!
//! With a directory as its argument, it also leaves a history of five minutes there, for an agent to read.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spike_agent::model::Thresholds;
use spike_agent::model::view::{DestinationView, EdgeView, EndView, Group};
use spike_agent::topology::{
    AnalysisInput, Counts, DrawFormat, Flow, Graph, History, Observed, RecentCall, Step, analyze, diff,
    render,
};
use spike_common::edge::EdgeStats;
use spike_common::histogram::bucket;

const SERVICES: u64 = 1_000;
const EDGES: u64 = 10_000;
const CALLS: u64 = 32_768;
const ROUNDS: usize = 7;

fn main() {
    // Without `--bench` it was called as a test, which measures nothing.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let before = resident_kib();
    let observed = Observed {
        from: SystemTime::now() - Duration::from_secs(300),
        to: SystemTime::now(),
        flows: flows(),
        ..Observed::default()
    };
    let recent = recent(&observed.flows);
    println!(
        "{SERVICES} services, {EDGES} edges, {CALLS} calls: {} MiB",
        (resident_kib() - before) / 1024
    );
    let graph = Graph::new(&observed, Group::Service, "here");
    let view = graph.view(&observed, Group::Service, |_| true);
    assert_eq!(
        (graph.net.node_count() as u64, view.edges.len() as u64),
        (SERVICES, EDGES)
    );
    measure("graph of services", || {
        Graph::new(&observed, Group::Service, "here")
    });
    measure("graph to JSON", || {
        let view = graph.view(&observed, Group::Service, |_| true);
        serde_json::to_vec(&view).map_or(0, |json| json.len())
    });
    for format in [
        DrawFormat::Dot,
        DrawFormat::Graphml,
        DrawFormat::Mermaid,
        DrawFormat::Grafana,
    ] {
        measure(&format!("graph to {format:?}"), || {
            render(&view, format).map_or(0, |text| text.len())
        });
    }
    let (thresholds, facts) = (Thresholds::default(), BTreeMap::new());
    let input = AnalysisInput {
        observed: &observed,
        recent: &recent,
        facts: &facts,
        thresholds: &thresholds,
        now: SystemTime::now(),
    };
    measure("analysis", || {
        analyze(&input, Some("service-1")).map_or(0, |view| view.findings.len())
    });
    measure("difference", || {
        diff(&observed, &observed, Group::Service, "here").same
    });
    println!("most memory of this program: {} MiB", peak_kib() / 1024);
    if let Some(dir) = args.iter().find(|arg| !arg.starts_with("--")) {
        history(Path::new(dir), &observed.flows);
    }
}

/// 30 steps of 10 s up to now.
fn history(dir: &Path, flows: &[Flow]) {
    let path = dir.join("map-history.db");
    fs::create_dir_all(dir).expect("make the directory");
    let history = History::open(&path, 1 << 30).expect("open the history");
    let now = UNIX_EPOCH.elapsed().expect("a clock after 1970").as_millis() as i64;
    let mut news: Vec<(u64, EdgeView)> = flows.iter().map(|flow| (flow.id, flow.view.clone())).collect();
    let start = Instant::now();
    for number in 0..30 {
        let from_ms = now - 300_000 + number * 10_000;
        let step = Step {
            from_ms,
            to_ms: from_ms + 10_000,
            edges: flows.iter().map(|flow| (flow.id, flow.counts.clone())).collect(),
        };
        history.add(&step, &news).expect("write a step");
        news.clear();
    }
    let took = start.elapsed() / 30;
    let size = history.tidy(now).expect("tidy");
    println!(
        "history: {took:.1?} and {} KiB a step of 10 s with every edge in use; a day of that is {} MiB",
        size / 30 / 1024,
        size / 30 * 8640 / 1024 / 1024
    );
}

fn measure<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort();
    let (least, middle, most) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
    println!("{what:<20} {middle:>10.2?}  ({least:.2?} to {most:.2?})");
}

/// Services call those after them, some far ahead, with a few rings.
fn flows() -> Vec<Flow> {
    let mut flows = Vec::new();
    for number in 0..EDGES {
        let from = number % SERVICES;
        let turn = number / SERVICES;
        let to = (from + 1 + turn * turn * 7) % SERVICES;
        let calls = 10 + (number * 7919) % 500;
        let mut stats = EdgeStats {
            opened: 2,
            calls,
            bytes_out: calls * 100,
            bytes_in: calls * 1000,
            ..EdgeStats::default()
        };
        for call in 0..calls {
            let nanoseconds = 100_000 + (call * call * 4_111) % 9_000_000;
            stats.latency[bucket(nanoseconds) as usize] += 1;
            stats.latency_sum += nanoseconds;
        }
        let id = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut view = EdgeView {
            id: format!("{id:016x}"),
            caller: Some(end(from)),
            destination: DestinationView {
                address: format!("10.0.{}.{}", to / 250, to % 250 + 1),
                port: 8080,
                name: None,
                process: Some(end(to)),
            },
            protocol: "http".to_owned(),
            ..EdgeView::default()
        };
        let counts = Counts::new(&stats, None);
        counts.fill(&mut view);
        flows.push(Flow {
            id,
            view,
            counts,
            ..Flow::default()
        });
    }
    flows
}

fn end(number: u64) -> EndView {
    EndView {
        pid: 1000 + number as u32,
        executable: "/usr/lib/jvm/bin/java".to_owned(),
        name: "java".to_owned(),
        service: format!("service-{number}"),
        cgroup: format!("/system.slice/service-{number}.service"),
        ..EndView::default()
    }
}

fn recent(flows: &[Flow]) -> Vec<RecentCall> {
    (0..CALLS)
        .map(|number| {
            let flow = &flows[(number * 31 % EDGES) as usize];
            RecentCall {
                edge: flow.id,
                start_ns: number * 100_000,
                end_ns: number * 100_000 + 2_000_000,
                what: format!("GET /items/{}", number % 50).into(),
                failed: number % 40 == 0,
                trace: None,
            }
        })
        .collect()
}

fn resident_kib() -> u64 {
    status("VmRSS:")
}

fn peak_kib() -> u64 {
    status("VmHWM:")
}

fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
