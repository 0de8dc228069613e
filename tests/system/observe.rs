//! The map: who calls whom, how often, how much and how fast, with nothing armed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use spike_tests::{
    agent::Agent,
    oracle::curl,
    wait_for,
    workload::{self, SMALL, free_port, nginx, port_of, redis},
    world::{World, finish, start},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_call_of_curl_is_an_edge", a_call_of_curl_is_an_edge),
    (
        "many_calls_on_one_connection_are_counted",
        many_calls_on_one_connection_are_counted,
    ),
    (
        "the_server_behind_a_port_is_named",
        the_server_behind_a_port_is_named,
    ),
    ("ipv6_is_seen", ipv6_is_seen),
    (
        "a_slow_server_shows_in_the_latency",
        a_slow_server_shows_in_the_latency,
    ),
    (
        "a_connection_older_than_the_agent_is_counted",
        a_connection_older_than_the_agent_is_counted,
    ),
    ("failed_attempts_are_counted", failed_attempts_are_counted),
    ("other_cgroups_are_not_looked_at", other_cgroups_are_not_looked_at),
];

fn a_call_of_curl_is_an_edge() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let seen = curl(&client, &format!("http://127.0.0.1:{port}/small"), &[]);
    assert_eq!((seen.code, seen.size), (0, SMALL as u64), "{}", seen.error);

    agent.wait_for_sum("curl", port, "calls", 1);
    let edges = agent.edges("curl", port);
    assert_eq!(edges.len(), 1, "{edges:#?}");
    let edge = &edges[0];
    assert_eq!(edge["opened"], 1, "{edge:#}");
    assert_eq!(edge["failed"], 0, "{edge:#}");
    let received = edge["bytes_in"].as_u64().unwrap_or(0);
    assert!((1024..2048).contains(&received), "{edge:#}");
    assert!(
        (50..500).contains(&edge["bytes_out"].as_u64().unwrap_or(0)),
        "{edge:#}"
    );
    assert!(edge["latency"]["p50_us"].as_u64().unwrap_or(0) > 0, "{edge:#}");
    assert_eq!(edge["destination"]["address"], "127.0.0.1");
    let executable = edge["caller"]["executable"].as_str().unwrap_or_default();
    // The path is known only of processes that live long enough to be asked.
    assert!(matches!(executable.rsplit('/').next(), Some("curl")), "{edge:#}");
    let cgroup = edge["caller"]["cgroup"].as_str().unwrap_or_default();
    assert_eq!(format!("cgroup={cgroup}"), client.selector());

    let table = agent.spike(&["map"]).ok();
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("curl ") && line.contains(&format!(":{port}"))),
        "{table}"
    );
}

fn many_calls_on_one_connection_are_counted() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = redis(&world, &world.place("db"));
    let client = world.place("client");
    let port_text = port.to_string();
    let mut child = start(
        client
            .command("redis-cli")
            .args(["-p", &port_text])
            .stdin(Stdio::piped()),
    );
    let commands = "SET key value\n".repeat(100);
    let mut stdin = child.stdin.take().expect("redis-cli's input");
    stdin.write_all(commands.as_bytes()).expect("ask redis-cli");
    drop(stdin);
    let answers = finish(child, "redis-cli").ok();
    assert_eq!(answers.matches("OK").count(), 100);

    agent.wait_for_sum("redis-cli", port, "calls", 100);
    assert_eq!(agent.sum("redis-cli", port, "opened"), 1);
    // redis-cli may ask for the commands' documentation once.
    let calls = agent.sum("redis-cli", port, "calls");
    assert!((100..=102).contains(&calls), "{calls} calls");
}

fn the_server_behind_a_port_is_named() {
    let world = World::new();
    let port = nginx(&world, &world.place("web"));
    let agent = Agent::start(&world);
    curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{port}/small"),
        &[],
    );
    wait_for("nginx to be named as the server", Duration::from_secs(3), || {
        let edges = agent.edges("curl", port);
        edges
            .iter()
            .any(|edge| edge["destination"]["process"]["name"] == "nginx")
            .then_some(())
    });
}

fn ipv6_is_seen() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let seen = curl(&world.place("client"), &format!("http://[::1]:{port}/small"), &[]);
    assert_eq!(seen.code, 0, "{}", seen.error);
    agent.wait_for_sum("curl", port, "calls", 1);
    let edges = agent.edges("curl", port);
    assert_eq!(edges[0]["destination"]["address"], "::1", "{edges:#?}");
    assert!(edges[0]["bytes_in"].as_u64().unwrap_or(0) >= 1024, "{edges:#?}");
}

fn a_slow_server_shows_in_the_latency() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = redis(&world, &world.place("db"));
    let client = world.place("client");
    let text = port.to_string();
    // redis answers DEBUG SLEEP only after that time.
    let done = client.run("redis-cli", &["-p", &text, "EVAL", SLOW_SCRIPT, "0"]);
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
    agent.wait_for_sum("redis-cli", port, "calls", 1);
    let edges = agent.edges("redis-cli", port);
    let slowest = edges[0]["latency"]["max_us"].as_u64().unwrap_or(0);
    assert!((90_000..200_000).contains(&slowest), "{edges:#?}");
}

/// Keeps the server busy for 0.1 s.
const SLOW_SCRIPT: &str = "local function now() local t = redis.call('TIME') return t[1] * 1e6 + t[2] end \
                           local e = now() + 1e5 while now() < e do end return 1";

fn a_connection_older_than_the_agent_is_counted() {
    let world = World::new();
    let address = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    let mut child = world
        .place("client")
        .helper(&["hold", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the client");
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    world.keep(child);
    let mut said = || {
        let mut line = String::new();
        stdout.read_line(&mut line).expect("read from the client");
        line
    };
    assert_eq!(said(), "open\n");

    let agent = Agent::start(&world);
    let found = || {
        let map = agent.json(&["map"]);
        let edges = map["edges"].as_array().cloned().unwrap_or_default();
        let meant = |edge: &&Value| {
            edge["destination"]["port"] == port_of(&address) && edge["role"] == "client" && edge["open"] == 1
        };
        edges.iter().find(meant).cloned()
    };
    let edge = wait_for("the old connection on the map", Duration::from_secs(3), found);
    assert!(edge["caller"]["pid"].as_u64().unwrap_or(0) > 0, "{edge:#}");
    let executable = edge["caller"]["executable"].as_str().unwrap_or_default();
    assert!(executable.starts_with('/'), "{edge:#}");

    for _ in 0..5 {
        stdin.write_all(b"\n").expect("ask the client");
        assert_eq!(said(), "answer ping\n");
    }
    wait_for("its calls to be counted", Duration::from_secs(3), || {
        found().filter(|edge| edge["calls"].as_u64() == Some(5))
    });
    // Its other end is here, too, and counts for the same edge.
    let map = agent.json(&["map"]);
    assert_eq!(map["edges"].as_array().map(Vec::len), Some(1), "{map:#}");
}

fn failed_attempts_are_counted() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = free_port();
    let client = world.place("client");
    for _ in 0..3 {
        let seen = curl(&client, &format!("http://127.0.0.1:{port}/"), &[]);
        assert_eq!(seen.code, 7, "{}", seen.error);
    }
    agent.wait_for_sum("curl", port, "failed", 3);
    assert_eq!(agent.sum("curl", port, "failed"), 3);
    assert_eq!(agent.sum("curl", port, "opened"), 0);
}

fn other_cgroups_are_not_looked_at() {
    let (world, other) = (World::new(), World::new());
    let agent = Agent::start(&world);
    let port = nginx(&world, &other.place("web"));
    let seen = curl(
        &other.place("client"),
        &format!("http://127.0.0.1:{port}/small"),
        &[],
    );
    assert_eq!(seen.code, 0, "{}", seen.error);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(agent.edges("curl", port).len(), 0);
}
