//! The live service map: drawn, kept over time, compared and judged, on real topologies.

mod formats;
mod top;

use std::{
    collections::BTreeSet,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use spike_tests::{
    agent::{self, Agent},
    needs,
    shop::{EDGES, Shop},
    wait_for,
    workload::free_port,
    world::{World, finish, start},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "the_shop_is_drawn_right_in_every_format",
        formats::the_shop_is_drawn_right_in_every_format,
    ),
    ("edges_are_found_and_hidden", edges_are_found_and_hidden),
    ("the_map_is_watched", the_map_is_watched),
    ("a_clean_shop_has_no_findings", a_clean_shop_has_no_findings),
    (
        "planted_faults_of_design_are_found",
        planted_faults_of_design_are_found,
    ),
    (
        "history_outlives_a_restart_and_a_kill",
        history_outlives_a_restart_and_a_kill,
    ),
    (
        "a_slow_service_shows_in_the_difference",
        a_slow_service_shows_in_the_difference,
    ),
    (
        "top_shows_the_edges_and_breaks_one",
        top::top_shows_the_edges_and_breaks_one,
    ),
];

/// How long the shop may take until all of it has been seen.
const LIMIT: Duration = Duration::from_secs(30);

/// An agent that ends a step of its history each second.
fn agent_with_short_steps(world: &World) -> Agent {
    let mut command = agent::command(world);
    command.args(["--history-step", "1s"]);
    Agent::start_with(world, command)
}

/// The edges of a graph as JSON: who calls whom in what.
fn triples(graph: &Value) -> BTreeSet<(String, String, String)> {
    let edges = graph["edges"].as_array().cloned().unwrap_or_default();
    let text = |edge: &Value, key: &str| edge[key].as_str().unwrap_or_default().to_owned();
    edges
        .iter()
        .map(|edge| (text(edge, "from"), text(edge, "to"), text(edge, "protocol")))
        .collect()
}

/// The shop's edges.
fn expected() -> BTreeSet<(String, String, String)> {
    EDGES
        .iter()
        .map(|(from, to, protocol)| ((*from).to_owned(), (*to).to_owned(), (*protocol).to_owned()))
        .collect()
}

/// A clean shop that is called, an agent, and the map once it is whole.
fn busy_shop(world: &World) -> (Shop<'_>, Agent) {
    let shop = Shop::clean(world);
    let agent = agent_with_short_steps(world);
    shop.load("0.02", "/1", &shop.fronts);
    wait_for("the whole shop on the map", LIMIT, || {
        let graph = agent.json(&["map", "--group", "service"]);
        // Each of the two instances of a service has its own, which begins as plain TCP.
        let edges = graph["edges"].as_array().into_iter().flatten();
        let instances: usize = edges
            .filter_map(|edge| edge["edges"].as_array())
            .map(Vec::len)
            .sum();
        (triples(&graph) == expected() && instances == 2 * EDGES.len()).then_some(())
    });
    (shop, agent)
}

fn edges_are_found_and_hidden() {
    let world = World::new();
    let (_shop, agent) = busy_shop(&world);
    let with = |args: &[&str]| {
        let args = [&["map", "--group", "service"], args].concat();
        triples(&agent.json(&args))
    };
    let of = |wanted: &dyn Fn(&(String, String, String)) -> bool| -> BTreeSet<_> {
        expected().into_iter().filter(wanted).collect()
    };
    assert_eq!(with(&["--find", "protocol=redis"]), of(&|edge| edge.2 == "redis"));
    assert_eq!(with(&["--hide", "protocol=redis"]), of(&|edge| edge.2 != "redis"));
    assert_eq!(
        with(&["--find", "service=user* and not to=redis*"]),
        of(&|edge| (edge.0 == "users" || edge.1 == "users") && edge.1 != "redis-server")
    );
    assert_eq!(with(&["--find", "errors>1%"]).len(), 0);
    assert_eq!(with(&["--find", "p99>1us and p99<10s"]), expected());
    assert_eq!(with(&["--since", "5m", "--find", "rate>0"]), expected());
    let edges = agent.json(&["map", "--find", "to=stock"]);
    let edges = edges["edges"].as_array().cloned().unwrap_or_default();
    assert_eq!(edges.len(), 2, "one for each of the callers: {edges:#?}");

    let processes = agent.json(&["map", "--group", "process"]);
    assert!(
        processes["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.len() >= 9),
        "{processes:#}"
    );
    let hosts = agent.json(&["map", "--group", "host"]);
    assert_eq!(hosts["nodes"].as_array().map(Vec::len), Some(1), "{hosts:#}");

    for (args, says) in [
        (
            ["--find", "p98>1ms"],
            "there is no field `p98`; fields are from, to",
        ),
        (["--hide", "p99>fast"], "hide: p99: "),
        (["--at", "soon"], "10m-ago"),
        (["--since", "5"], "needs its unit"),
    ] {
        let done = agent.spike(&[&["map"][..], &args].concat());
        assert!(
            done.code() != 0 && done.stderr.contains(says),
            "{args:?}: {}",
            done.stderr
        );
    }
    let table = agent.spike(&["map", "--group", "service"]).ok();
    assert!(table.starts_with("FROM") && table.contains("orders"), "{table}");
}

fn the_map_is_watched() {
    let world = World::new();
    let agent = Agent::start(&world);
    let mut command = world.place("operator").command(agent::spike_bin());
    command
        .args(["map", "--watch", "200ms", "--json"])
        .env("SPIKE_SOCKET", agent.socket())
        .stdin(Stdio::null());
    let child = start(&mut command);
    sleep(needs::patience(Duration::from_millis(1_500)));
    spike_tests::world::kill(child.id(), libc::SIGINT);
    let done = finish(child, "spike map --watch");
    assert_eq!(done.code(), 0, "{}", done.stderr);
    let maps: Vec<Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a map a line"))
        .collect();
    assert!(
        maps.len() >= 2 && maps[0]["at"] != maps[1]["at"],
        "{}",
        done.stdout
    );
}

/// The kinds and services of what is found.
fn findings(agent: &Agent) -> Vec<(String, Vec<String>)> {
    let analysis = agent.json(&["analyze", "--since", "5m"]);
    let findings = analysis["findings"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .map(|finding| {
            let services = finding["services"].as_array().cloned().unwrap_or_default();
            (text(&finding["kind"]), services.iter().map(text).collect())
        })
        .collect()
}

fn a_clean_shop_has_no_findings() {
    let world = World::new();
    let (_shop, agent) = busy_shop(&world);
    // Enough calls that shares are judged.
    wait_for("a thousand calls", LIMIT, || {
        let graph = agent.json(&["map", "--group", "service"]);
        let edges = graph["edges"].as_array().cloned().unwrap_or_default();
        let calls: u64 = edges.iter().filter_map(|edge| edge["calls"].as_u64()).sum();
        (calls > 1_000).then_some(())
    });
    assert_eq!(findings(&agent), []);
    let text = agent.spike(&["analyze"]).ok();
    assert!(text.contains("nothing found"), "{text}");

    let without = agent.json(&["analyze", "--without", "orders"]);
    assert_eq!(without["without"]["cut_off"], json!(["stock"]), "{without:#}");
    let affected = without["without"]["affected"].to_string();
    assert!(
        affected.contains("nginx") && affected.contains("load"),
        "{affected}"
    );
    let done = agent.spike(&["analyze", "--without", "nobody"]);
    assert!(
        done.stderr.contains("there is no service `nobody`"),
        "{}",
        done.stderr
    );
}

fn planted_faults_of_design_are_found() {
    let world = World::new();
    let shop = Shop::new(&world);
    let plain = |name: &str| shop.service(name, &json!({}));
    // A ring of three, a chain of six calls, a gate before two, one that asks five times and more, one that retries.
    let ring_start = free_port();
    let ring_end = shop.service("ring-c", &json!({ "calls": [{ "port": ring_start }] }));
    let ring_middle = shop.service("ring-b", &json!({ "calls": [{ "port": ring_end }] }));
    shop.service_at(
        "ring-a",
        ring_start,
        &json!({ "calls": [{ "port": ring_middle }] }),
    );

    let mut next = plain("chain-f");
    for name in ["chain-e", "chain-d", "chain-c", "chain-b", "chain-a"] {
        next = shop.service(name, &json!({ "calls": [{ "port": next }] }));
    }
    let chain = next;

    let vault = plain("vault");
    let bank = shop.service("bank", &json!({ "calls": [{ "port": vault }] }));
    let gate = shop.service("gate", &json!({ "calls": [{ "port": bank }] }));

    let items = plain("items");
    let basket = shop.service("basket", &json!({ "calls": [{ "port": items, "times": 12 }] }));

    let broken = shop.service("broken", &json!({ "fail": true }));
    let stubborn = shop.service(
        "stubborn",
        &json!({ "calls": [{ "port": broken, "retries": 3 }] }),
    );

    let agent = agent_with_short_steps(&world);
    for port in [ring_start, gate, basket, stubborn] {
        shop.load("0.03", "/4", &[port]);
    }
    shop.load("0.03", "/9", &[chain]);
    let wanted: [(&str, &[&str]); 5] = [
        ("cycle", &["ring-a", "ring-b", "ring-c"]),
        (
            "long_chain",
            &["chain-a", "chain-b", "chain-c", "chain-d", "chain-e", "chain-f"],
        ),
        ("single_point_of_failure", &["gate", "bank", "vault"]),
        ("n_plus_one", &["basket", "items"]),
        ("retry_storm", &["stubborn", "broken"]),
    ];
    let end = Instant::now() + needs::patience(LIMIT);
    loop {
        let found = findings(&agent);
        let is_found = |(kind, services): &(&str, &[&str])| {
            found.iter().any(|(found, at)| {
                found == kind
                    && services
                        .iter()
                        .all(|service| at.iter().any(|name| name == service))
            })
        };
        let missing: Vec<_> = wanted.iter().filter(|wanted| !is_found(wanted)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "not found: {missing:#?}\nbut {found:#?}");
        sleep(Duration::from_millis(500));
    }
    // What is suggested can be done.
    let analysis = agent.json(&["analyze", "--since", "5m"]);
    let found = analysis["findings"].as_array().cloned().unwrap_or_default();
    let slow = found
        .iter()
        .find(|finding| finding["kind"] == "n_plus_one")
        .and_then(|finding| finding["test"].as_str())
        .expect("a command that tests it");
    let words = slow.strip_prefix("spike fault add ").expect("a fault");
    agent.fault(words);
    // No healthy edge is called failing.
    for (kind, services) in findings(&agent) {
        if kind == "failing_edge" || kind == "retry_storm" {
            assert!(
                services.iter().any(|name| name == "broken" || name == "stubborn"),
                "{services:?}"
            );
        }
    }
    let text = agent.spike(&["analyze"]).ok();
    assert!(
        text.contains("why ") && text.contains("spike fault add"),
        "{text}"
    );
}

fn history_outlives_a_restart_and_a_kill() {
    let world = World::new();
    let (shop, agent) = busy_shop(&world);
    // Until the steps of the history alone have all of it.
    let from_history = |agent: &Agent, args: &[&str]| {
        let args = [&["map", "--group", "service"], args].concat();
        agent.json(&args)
    };
    let calls = |graph: &Value| -> u64 {
        let edges = graph["edges"].as_array().cloned().unwrap_or_default();
        edges.iter().filter_map(|edge| edge["calls"].as_u64()).sum()
    };
    wait_for("the shop in the history", LIMIT, || {
        let graph = from_history(&agent, &["--at", "2s-ago", "--since", "1m"]);
        (triples(&graph) == expected()).then_some(())
    });
    let before = calls(&from_history(&agent, &["--at", "2s-ago", "--since", "1m"]));
    let killed_at = humantime_now();
    agent.kill9();

    // A new agent knows what was, to the call, though nothing of it can be seen any more.
    let agent = agent_with_short_steps(&world);
    let at = ["--at", &killed_at, "--since", "2m"];
    let graph = from_history(&agent, &at);
    assert_eq!(triples(&graph), expected());
    assert!(calls(&graph) >= before, "{} of {before}", calls(&graph));
    assert!(
        graph["edges"][0]["latency"]["p99_us"].as_u64().unwrap_or(0) > 0,
        "{graph:#}"
    );
    // Of what came after the kill there is more, which a plain stop keeps to the last.
    wait_for("calls after the kill", LIMIT, || {
        (calls(&from_history(&agent, &["--since", "2s"])) > 20).then_some(())
    });
    let seen = calls(&from_history(&agent, &["--since", "5m"]));
    assert_eq!(agent.terminate(), Some(0));
    let agent = agent_with_short_steps(&world);
    let kept = calls(&from_history(
        &agent,
        &["--at", &humantime_now(), "--since", "5m"],
    ));
    assert!(kept >= seen, "{kept} of {seen} calls were kept");
    assert!(shop.fronts.len() == 2 && Agent::check_leftovers(&world).0 == 0);

    // A history that is damaged is no reason not to start.
    agent.kill9();
    let file = world.path("state/map-history.db");
    for part in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{part}", file.display()));
    }
    std::fs::write(&file, vec![0x5a; 100_000]).expect("damage the history");
    let agent = agent_with_short_steps(&world);
    assert!(agent.log().contains("put aside"), "{}", agent.log());
    wait_for("a new history", LIMIT, || {
        (calls(&from_history(&agent, &["--since", "1m"])) > 0).then_some(())
    });
}

/// Now, as `--at` takes it.
fn humantime_now() -> String {
    let done = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .expect("run date");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn a_slow_service_shows_in_the_difference() {
    let world = World::new();
    let (shop, agent) = busy_shop(&world);
    let mail = shop.service("mail", &json!({}));
    shop.load("0.02", "/0", &[mail]);
    sleep(Duration::from_secs(12));
    let before = humantime_now();
    // The step that `before` is in counts whole.
    sleep(Duration::from_millis(1500));
    // From now on a part of the calls to mail is slow, and a new service is called.
    let slow = shop.service("mail", &json!({ "sleep": 0.5 }));
    for _ in 0..4 {
        shop.load("0", "/0", &[slow]);
    }
    let parcel = shop.service("parcel", &json!({}));
    shop.load("0.02", "/0", &[parcel]);
    let difference = wait_for("the difference", LIMIT, || {
        let diff = agent.json(&["diff", &before, "now", "--length", "8s"]);
        let new = diff["new_services"].to_string();
        let changes = diff["changes"].as_array().cloned().unwrap_or_default();
        let slow = changes.iter().any(|change| {
            change["to"] == "mail" && change["what"] == "p99" && change["after"].as_f64() > Some(450_000.0)
        });
        (new.contains("\"parcel\"") && slow).then_some(diff)
    });
    assert_eq!(difference["gone_services"], json!([]), "{difference:#}");
    let text = agent.spike(&["diff", &before, "now", "--length", "8s"]).ok();
    assert!(
        text.contains("+ service parcel") && text.contains("load -> mail"),
        "{text}"
    );
    let done = agent.spike(&["diff", "tomorrow"]);
    assert!(
        done.code() != 0 && done.stderr.contains("before: "),
        "{}",
        done.stderr
    );
}
