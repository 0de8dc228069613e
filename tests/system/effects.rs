//! Reset, refuse, timeout and bandwidth, each as the client saw it.

use std::time::{Duration, Instant};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    wait_for,
    workload::{self, free_port, nginx, port_of, redis},
    world::World,
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("reset_reaches_redis_cli", reset_reaches_redis_cli),
    ("reset_comes_after_its_time", reset_comes_after_its_time),
    ("refuse_is_connection_refused", refuse_is_connection_refused),
    ("refuse_shows_on_the_map", refuse_shows_on_the_map),
    ("timeout_lets_no_byte_pass", timeout_lets_no_byte_pass),
    ("timeout_closes_after_its_time", timeout_closes_after_its_time),
    ("bandwidth_limits_curl", bandwidth_limits_curl),
    ("bandwidth_limits_iperf3", bandwidth_limits_iperf3),
    ("jitter_stays_in_its_range", jitter_stays_in_its_range),
    ("panic_undoes_everything", panic_undoes_everything),
];

fn reset_reaches_redis_cli() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = redis(&world, &world.place("db"));
    let client = world.place("client");
    let args = ["-p", &port.to_string(), "PING"];
    assert_eq!(client.run("redis-cli", &args).ok(), "PONG\n");
    agent.fault("reset --name cut --from process=redis-cli");
    let done = client.run("redis-cli", &args);
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(
        done.code() != 0 && said.contains("Connection reset by peer"),
        "{}: {said}",
        done.code()
    );
    // redis-cli tries again by itself: every try was hit.
    let tries = agent.fault_count("cut", "matched");
    assert!(tries >= 1 && agent.fault_count("cut", "affected") == tries);
    agent.clear();
    assert_eq!(client.run("redis-cli", &args).ok(), "PONG\n");
}

fn reset_comes_after_its_time() {
    let world = World::new();
    let agent = Agent::start(&world);
    let client = world.place("client");
    let echo = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    let after = Duration::from_millis(300);
    agent.fault(&format!("reset --after 300ms --to port={}", port_of(&echo)));
    let start = Instant::now();
    let done = client.run_helper(&["bounce", &echo, "10000000000"]);
    let took = start.elapsed();
    assert!(
        matches!(done.stdout.trim(), "ECONNRESET" | "EPIPE"),
        "{}",
        done.stdout
    );
    assert!(
        took >= after && took < after + needs::tolerance(Duration::from_millis(300)),
        "{took:?}"
    );
}

fn refuse_is_connection_refused() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    agent.fault(&format!("refuse --name no --to port={port}"));
    for host in ["127.0.0.1", "[::1]"] {
        let seen = curl(&client, &format!("http://{host}:{port}/small"), &[]);
        assert_eq!(seen.code, 7, "{}", seen.error);
        let asked = client.run_helper(&["ask", &format!("{host}:{port}")]);
        assert_eq!(asked.stdout, "ECONNREFUSED\n");
    }
    let verbose = client.run("curl", &["-v", &format!("http://127.0.0.1:{port}/small")]);
    assert!(
        verbose.stderr.contains("Connection refused"),
        "{}",
        verbose.stderr
    );
    let nonblocking = client.run_helper(&["nonblocking", &format!("127.0.0.1:{port}")]);
    assert!(
        nonblocking.stdout.ends_with("ECONNREFUSED\n"),
        "{}",
        nonblocking.stdout
    );
    assert_eq!(agent.fault_count("no", "affected"), 6);
    agent.clear();
    assert_eq!(
        curl(&client, &format!("http://127.0.0.1:{port}/small"), &[]).code,
        0
    );
}

fn refuse_shows_on_the_map() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = free_port();
    agent.fault(&format!("refuse --to port={port}"));
    curl(&world.place("client"), &format!("http://127.0.0.1:{port}/"), &[]);
    agent.wait_for_sum("curl", port, "failed", 1);
    assert_eq!(agent.sum("curl", port, "failed"), 1);
}

fn timeout_lets_no_byte_pass() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    agent.fault(&format!("timeout --to port={port}"));
    let seen = curl(&client, &url, &["-m", "1"]);
    assert_eq!((seen.code, seen.size), (28, 0), "{}", seen.error);
    agent.clear();
    assert_eq!(curl(&client, &url, &[]).code, 0);
}

fn timeout_closes_after_its_time() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("timeout --after 500ms --to port={port}"));
    let seen = curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{port}/small"),
        &[],
    );
    // 52: the server closed without an answer; 56: with a reset.
    assert!(matches!(seen.code, 52 | 56), "{}: {}", seen.code, seen.error);
    let range =
        Duration::from_millis(490)..Duration::from_millis(500) + needs::tolerance(Duration::from_millis(200));
    assert!(range.contains(&seen.time), "{:?}", seen.time);
}

fn bandwidth_limits_curl() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!(
        "bandwidth --rate 512KiB/s --direction response --to port={port}"
    ));
    let seen = curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{port}/mib"),
        &[],
    );
    assert_eq!((seen.code, seen.size), (0, 1 << 20), "{}", seen.error);
    let seconds = seen.time.as_secs_f64();
    assert!(
        (1.7..2.3).contains(&seconds),
        "1 MiB at 512 KiB/s took {seconds} s"
    );
}

fn bandwidth_limits_iperf3() {
    needs::real_time();
    let world = World::new();
    let agent = Agent::start(&world);
    let port = free_port().to_string();
    world
        .place("server")
        .serve("iperf3", &["-s", "-p", &port, "-B", "127.0.0.1"]);
    workload::wait_for_listener(&format!("127.0.0.1:{port}"));
    let client = world.place("client");
    // The first try may meet the server while it still clears up after the look of above.
    agent.fault(&format!(
        "bandwidth --rate 80mbit --direction request --to port={port}"
    ));
    let json = wait_for("iperf3 to be served", Duration::from_secs(20), || {
        let done = client.run("iperf3", &["-c", "127.0.0.1", "-p", &port, "-t", "3", "-J"]);
        (done.code() == 0).then_some(done.stdout)
    });
    let json: serde_json::Value = serde_json::from_str(&json).expect("iperf3's JSON");
    let rate = json["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .unwrap_or(0.0)
        / 1e6;
    assert!((64.0..90.0).contains(&rate), "{rate} Mbit/s arrived at 80");
}

fn jitter_stays_in_its_range() {
    needs::real_time();
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("latency --delay 100ms --jitter 50ms --to port={port}"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let times: Vec<Duration> = (0..15).map(|_| curl(&client, &url, &[]).time).collect();
    let range = Duration::from_millis(50)..Duration::from_millis(165);
    assert!(times.iter().all(|time| range.contains(time)), "{times:?}");
    let (least, most) = (times.iter().min(), times.iter().max());
    let spread = most.zip(least).map(|(most, least)| *most - *least);
    assert!(spread > Some(Duration::from_millis(20)), "no jitter: {times:?}");
}

fn panic_undoes_everything() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("refuse --to port={port}"));
    agent.fault("latency --delay 1s --from process=curl");
    agent.spike(&["panic"]).ok();
    let seen = curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{port}/small"),
        &[],
    );
    assert!(
        seen.code == 0 && seen.time < Duration::from_millis(900),
        "{seen:?}"
    );
    let faults = agent.json(&["fault", "list"]);
    assert_eq!(faults["faults"].as_array().map(Vec::len), Some(0));
}
