//! The latency fault: who gets it, how exactly, in which direction, and who does not.

use std::time::Duration;

use spike_tests::{
    agent::Agent,
    needs,
    oracle::{curl, median_time},
    workload::{nginx, redis},
    world::{World, finish},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "is_added_within_two_milliseconds",
        is_added_within_two_milliseconds,
    ),
    (
        "does_not_touch_another_curl_at_the_same_time",
        does_not_touch_another_curl_at_the_same_time,
    ),
    ("ends_when_the_fault_is_removed", ends_when_the_fault_is_removed),
    ("holds_for_ipv6", holds_for_ipv6),
    ("has_a_direction", has_a_direction),
    ("shows_on_the_map", shows_on_the_map),
    (
        "selects_by_process_pid_cidr_and_port",
        selects_by_process_pid_cidr_and_port,
    ),
    ("of_two_faults_adds_up", of_two_faults_adds_up),
];

const DELAY: Duration = Duration::from_millis(200);

#[track_caller]
fn assert_delayed(with: Duration, without: Duration, delay: Duration, tolerance: Duration) {
    let added = with.saturating_sub(without);
    assert!(
        added.abs_diff(delay) <= needs::tolerance(tolerance),
        "{with:?} with the fault, {without:?} without: {added:?} added instead of {delay:?}"
    );
}

fn is_added_within_two_milliseconds() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let without = median_time(&client, &url, 5);
    agent.fault(&format!(
        "latency --delay 200ms --name slow --from {}",
        client.selector()
    ));
    let with = median_time(&client, &url, 5);
    assert_delayed(with, without, DELAY, Duration::from_millis(2));
    assert_eq!(agent.fault_count("slow", "affected"), 5);
}

fn does_not_touch_another_curl_at_the_same_time() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let (slow, other) = (world.place("slow"), world.place("other"));
    let url = format!("http://127.0.0.1:{port}/small");
    let before = median_time(&other, &url, 5);
    agent.fault(&format!("latency --delay 1s --from {}", slow.selector()));
    let format = "%{time_total}";
    let child = slow.start("curl", &["-sS", "-o", "/dev/null", "-w", format, &url]);
    let during = median_time(&other, &url, 5);
    assert!(
        during.abs_diff(before) < needs::tolerance(Duration::from_millis(2)),
        "{before:?} before, {during:?} during"
    );
    let seconds: f64 = finish(child, "curl").ok().parse().expect("a time");
    let most = 1.0 + needs::tolerance(Duration::from_millis(100)).as_secs_f64();
    assert!((1.0..most).contains(&seconds), "the slow curl took {seconds} s");
}

fn ends_when_the_fault_is_removed() {
    needs::real_time();
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    agent.fault(&format!("latency --delay 200ms --name slow --to port={port}"));
    assert!(curl(&client, &url, &[]).time >= DELAY);
    let said = agent.spike(&["fault", "remove", "slow"]).ok();
    assert!(said.contains("1 affected"), "{said}");
    assert!(curl(&client, &url, &[]).time < DELAY / 4);
}

fn holds_for_ipv6() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://[::1]:{port}/small");
    let without = median_time(&client, &url, 3);
    agent.fault(&format!(
        "latency --delay 200ms --name slow --to cidr=::1,port={port}"
    ));
    let with = median_time(&client, &url, 3);
    assert_delayed(with, without, DELAY, Duration::from_millis(3));
    // An IPv6 network does not choose IPv4.
    let affected = agent.fault_count("slow", "affected");
    assert_eq!(
        curl(&client, &format!("http://127.0.0.1:{port}/small"), &[]).code,
        0
    );
    assert_eq!(agent.fault_count("slow", "affected"), affected);
}

fn has_a_direction() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let without = median_time(&client, &url, 3);
    for (direction, times) in [("request", 1), ("response", 1), ("both", 2)] {
        agent.fault(&format!(
            "latency --delay 100ms --direction {direction} --to port={port}"
        ));
        let with = median_time(&client, &url, 3);
        assert_delayed(
            with,
            without,
            Duration::from_millis(100) * times,
            Duration::from_millis(4),
        );
        agent.clear();
    }
}

fn shows_on_the_map() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = redis(&world, &world.place("db"));
    let client = world.place("client");
    agent.fault(&format!("latency --delay 200ms --to port={port}"));
    let done = client.run("redis-cli", &["-p", &port.to_string(), "PING"]);
    assert_eq!(done.stdout, "PONG\n", "{}", done.stderr);
    agent.wait_for_sum("redis-cli", port, "calls", 1);
    let edges = agent.edges("redis-cli", port);
    let p50 = edges[0]["latency"]["p50_us"].as_u64().unwrap_or(0);
    // A bucket of the histogram is not exact.
    let most = 200_000 + needs::tolerance(Duration::from_millis(30)).as_micros();
    assert!((180_000..most).contains(&u128::from(p50)), "{edges:#?}");
}

fn selects_by_process_pid_cidr_and_port() {
    needs::real_time();
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let (first, last) = (port.saturating_sub(1), port.saturating_add(1));
    for (words, is_meant) in [
        ("--from process=curl".to_owned(), true),
        ("--from process=cu?l".to_owned(), true),
        ("--from process=**/curl".to_owned(), true),
        ("--from process=wget".to_owned(), false),
        (
            format!("--from pid={} --to port={port}", std::process::id()),
            false,
        ),
        ("--to cidr=127.0.0.0/8".to_owned(), true),
        ("--to cidr=127.0.0.1".to_owned(), true),
        ("--to cidr=10.0.0.0/8".to_owned(), false),
        (format!("--to port={first}-{last}"), true),
        (format!("--to port={last}"), false),
        (
            format!("--from process=curl --to cidr=127.0.0.0/8,port={port}"),
            true,
        ),
        (format!("--from process=wget --to port={port}"), false),
        ("--everything".to_owned(), true),
    ] {
        agent.fault(&format!("latency --delay 100ms {words}"));
        let seen = curl(&client, &url, &[]);
        assert_eq!(seen.code, 0, "{words}: {}", seen.error);
        assert_eq!(
            seen.time >= Duration::from_millis(100),
            is_meant,
            "{words}: {:?}",
            seen.time
        );
        agent.clear();
    }
}

fn of_two_faults_adds_up() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let without = median_time(&client, &url, 3);
    agent.fault(&format!("latency --delay 100ms --to port={port}"));
    agent.fault("latency --delay 50ms --from process=curl");
    let with = median_time(&client, &url, 3);
    assert_delayed(
        with,
        without,
        Duration::from_millis(150),
        Duration::from_millis(4),
    );
}
