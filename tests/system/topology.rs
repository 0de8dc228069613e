//! The map against what the processes on it have logged themselves: every edge, no other, and its numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use serde_json::Value;
use spike_tests::{
    agent::{self, Agent},
    needs,
    oracle::Tcpdump,
    topology::{Exchange, SERVICES, Shop},
    wait_for,
    world::World,
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[(
    "the_map_is_what_the_processes_have_logged",
    the_map_is_what_the_processes_have_logged,
)];

const CALLS: usize = 600;
const CONNECTIONS: usize = 6;

/// Caller, callee and port.
type Edge = (String, String, u16);

/// What an edge has to show.
#[derive(Debug, Default)]
struct Wanted {
    protocol: &'static str,
    calls: u64,
    /// Of each way; none where the process cannot tell.
    bytes: Option<(u64, u64)>,
    opened: Option<u64>,
    /// What the caller measured, sorted; none where its clock is not as fine as what it measures.
    latencies: Option<Vec<u64>>,
}

fn the_map_is_what_the_processes_have_logged() {
    needs::real_time();
    let (world, elsewhere) = (World::new(), World::new());
    let shop = Shop::start(&world, &elsewhere);
    let rules = format!(
        "[[service]]\nname = \"cache\"\nexecutable = \"redis-server\"\nport = {}\n\
         [[service]]\nname = \"browser\"\ncgroup = \"**/browser\"\n",
        shop.redis
    );
    let config = world.path("spike.toml");
    fs::write(&config, rules).expect("write spike.toml");
    let mut command = agent::command(&world);
    command.args(["--decode-budget", "100", "--config"]).arg(&config);
    let agent = Agent::start_with(&world, command);

    let mut wires = [
        Tcpdump::start("lo", &[shop.front, shop.postgres], world.path("lo.pcap")),
        Tcpdump::start(&shop.device, &[shop.rates], world.path("rates.pcap")),
    ];
    let browsed = shop.browse(CALLS, CONNECTIONS);
    assert_eq!(browsed.len(), CALLS);
    let wanted = wanted(&shop, &browsed);
    let shown = wait_for("all calls on the map", Duration::from_secs(10), || {
        let shown = edges(&agent);
        let sum = |edges: &mut dyn Iterator<Item = u64>| edges.sum::<u64>();
        let calls = sum(&mut shown.values().filter_map(|edge| edge["calls"].as_u64()));
        (calls >= sum(&mut wanted.values().map(|edge| edge.calls))).then_some(shown)
    });
    let names = |edges: &mut dyn Iterator<Item = Edge>| edges.collect::<BTreeSet<_>>();
    assert_eq!(
        names(&mut shown.keys().cloned()),
        names(&mut wanted.keys().cloned()),
        "every edge, and no other: {shown:#?}"
    );
    println!("edge                                       calls (logged)  p50 us (logged)  p99 us (logged)");
    for (edge, wanted) in &wanted {
        // By another name the other host is the same to tcpdump.
        let wire = match edge.1.as_str() {
            "nginx" | "shop-db" => wires[0].latencies(edge.2),
            "rates.test" => wires[1].latencies(edge.2),
            _ => Vec::new(),
        };
        check(edge, wanted, &wire, &shown[edge]);
    }
    let services: BTreeSet<String> = [
        "browser",
        "nginx",
        "catalog",
        "cart",
        "orders",
        "cache",
        "shop-db",
        "rates.test",
        "tax.test",
        &shop.resolver,
    ]
    .map(str::to_owned)
    .into();
    let named = shown.keys().flat_map(|(from, to, _)| [from.clone(), to.clone()]);
    assert_eq!(named.collect::<BTreeSet<_>>(), services);
    let kinds = |end: &Value| end["kind"].as_str().unwrap_or_default().to_owned();
    let of = |from: &str, to: &str| {
        let found = shown.iter().find(|((a, b, _), _)| a == from && b == to);
        found.map(|(_, edge)| edge).expect("the edge")
    };
    let callee = |from, to| kinds(&of(from, to)["destination"]["process"]);
    assert_eq!(callee("cart", "shop-db"), "unit");
    assert_eq!(callee("catalog", "cache"), "rule");
    assert_eq!(callee("nginx", "orders"), "executable");
}

/// What the processes have logged, by edge.
fn wanted(shop: &Shop<'_>, browsed: &[Exchange]) -> BTreeMap<Edge, Wanted> {
    let mut wanted = BTreeMap::new();
    let mut add = |from: &str, to: &str, port, protocol, logged: &[Exchange]| {
        assert!(!logged.is_empty(), "{from} has not logged {to}");
        let sum = |read: fn(&Exchange) -> u64| logged.iter().map(read).sum();
        let latencies = logged
            .iter()
            .map(|exchange| exchange.ns)
            .collect::<Option<Vec<u64>>>();
        let latencies = latencies.map(|mut latencies| {
            latencies.sort_unstable();
            latencies
        });
        // What a process takes to look at its clock shows in what takes microseconds.
        let slow = latencies.filter(|latencies| latencies[latencies.len() / 2] >= 10_000_000);
        let edge = Wanted {
            protocol,
            calls: logged.len() as u64,
            bytes: Some((sum(|exchange| exchange.out), sum(|exchange| exchange.back))),
            opened: Some(sum(|exchange| exchange.opened)).filter(|opened| *opened > 0),
            latencies: slow,
        };
        wanted.insert((from.to_owned(), to.to_owned(), port), edge);
    };
    let to = |logged: Vec<Exchange>, name: &str| -> Vec<Exchange> {
        logged
            .into_iter()
            .filter(|exchange| exchange.to == name)
            .collect()
    };
    add("browser", "nginx", shop.front, "http", browsed);
    for (service, port) in SERVICES.into_iter().zip(shop.services) {
        add("nginx", service, port, "http", &to(shop.logged("nginx"), service));
    }
    let (catalog, cart) = (shop.logged("catalog"), shop.logged("cart"));
    add(
        "catalog",
        "cache",
        shop.redis,
        "redis",
        &to(catalog.clone(), "redis"),
    );
    add("orders", "cache", shop.redis, "redis", &shop.logged("orders"));
    add(
        "cart",
        "shop-db",
        shop.postgres,
        "postgresql",
        &to(cart.clone(), "postgres"),
    );
    add("catalog", "rates.test", shop.rates, "http", &to(catalog, "rates"));
    add("cart", "tax.test", shop.rates, "http", &to(cart, "tax"));
    for (service, name) in [("catalog", "rates.test"), ("cart", "tax.test")] {
        let edge = Wanted {
            protocol: "dns",
            calls: shop.lookups(name),
            ..Wanted::default()
        };
        assert!(edge.calls > 0, "{name} was not looked up");
        wanted.insert((service.to_owned(), shop.resolver.clone(), 53), edge);
    }
    wanted
}

/// The map by the names of its ends; two edges of one name would be a phantom.
fn edges(agent: &Agent) -> BTreeMap<Edge, Value> {
    let map = agent.json(&["map"]);
    let mut edges = BTreeMap::new();
    for edge in map["edges"].as_array().expect("edges") {
        let destination = &edge["destination"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let callee = text(&destination["process"]["service"])
            .or_else(|| text(&destination["name"]))
            .or_else(|| text(&destination["address"]));
        let caller = text(&edge["caller"]["service"]).or_else(|| text(&edge["peer"]));
        let port = destination["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        let (Some(caller), Some(callee), Some(port)) = (caller, callee, port) else {
            panic!("an edge without ends: {edge:#}");
        };
        let key = (caller, callee, port);
        let twin = edges.insert(key.clone(), edge.clone());
        assert!(twin.is_none(), "{key:?} is there twice: {map:#}");
    }
    edges
}

fn check(edge: &Edge, wanted: &Wanted, wire: &[u64], shown: &Value) {
    let number = |key: &str| {
        shown[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{edge:?}: no {key} in {shown:#}"))
    };
    assert_eq!(shown["protocol"], wanted.protocol, "{edge:?}");
    assert_eq!(number("failed"), 0, "{edge:?}: {shown:#}");
    let off = number("calls").abs_diff(wanted.calls) as f64 / wanted.calls as f64;
    assert!(
        off <= 0.01,
        "{edge:?}: {} calls, logged {}",
        number("calls"),
        wanted.calls
    );
    if let Some((out, back)) = wanted.bytes {
        assert_eq!((number("bytes_out"), number("bytes_in")), (out, back), "{edge:?}");
    }
    if let Some(opened) = wanted.opened {
        assert_eq!(number("opened"), opened, "{edge:?}");
    }
    let name = format!("{} -> {}:{}", edge.0, edge.1, edge.2);
    let mut line = format!("{name:<42} {:>6} ({:>6})", number("calls"), wanted.calls);
    if let Some(logged) = &wanted.latencies {
        for (percent, key) in [(50, "p50_us"), (99, "p99_us")] {
            let shown = shown["latency"][key].as_f64().expect("a quantile");
            let logged = quantile(logged, percent);
            line += &format!("  {shown:>7} ({logged:>7.0})");
            // A process looks at its clock when it gets to run again, the map when the packet is there: among few slow
            // calls a machine that is busy makes the one as late as it likes, and never earlier than the other.
            let is_rare = percent == 99;
            assert!(shown <= logged * 1.05, "{edge:?}: {key} {shown}, logged {logged}");
            assert!(
                is_rare || shown >= logged * 0.95,
                "{edge:?}: {key} {shown}, logged {logged}"
            );
        }
    }
    // The same calls, as the packets tell.
    if !wire.is_empty() {
        for (percent, key) in [(50, "p50_us"), (99, "p99_us")] {
            let shown = shown["latency"][key].as_f64().expect("a quantile");
            let truth = quantile(wire, percent);
            line += &format!("  {key} on the wire {truth:.0}");
            // A packet that tcpdump did not get moves the rank by one, and the slowest calls can lie far apart.
            let rank = (wire.len() * percent).div_ceil(100);
            let near = &wire[rank.saturating_sub(2)..(rank + 1).min(wire.len())];
            let is_near = |truth: &u64| (shown * 1000.0 / *truth as f64 - 1.0).abs() <= 0.05;
            assert!(
                near.iter().any(is_near),
                "{edge:?}: {key} {shown}, on the wire {truth}: {near:?}"
            );
        }
    }
    println!("{line}");
}

/// Of sorted nanoseconds, in microseconds.
fn quantile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted[rank - 1] as f64 / 1000.0
}
