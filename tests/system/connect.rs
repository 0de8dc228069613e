//! Attempts to connect that fail or take long, as the caller's own kernel told it.

use std::time::Duration;

use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    wait_for,
    workload::{self, free_port, nginx, port_of},
    world::{Place, World, ip},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("unreachable_is_a_routers_word", unreachable_is_a_routers_word),
    ("connect_timeout_is_a_timeout", connect_timeout_is_a_timeout),
    (
        "connect_delay_delays_the_handshake",
        connect_delay_delays_the_handshake,
    ),
    (
        "a_removed_delay_lets_connections_through",
        a_removed_delay_lets_connections_through,
    ),
    ("refuse_by_a_glob_is_exact", refuse_by_a_glob_is_exact),
    (
        "a_server_that_refuses_does_so_to_the_caller",
        a_server_that_refuses_does_so_to_the_caller,
    ),
    (
        "a_server_out_of_reach_is_so_to_the_caller",
        a_server_out_of_reach_is_so_to_the_caller,
    ),
    (
        "a_server_that_says_nothing_times_out_for_the_caller",
        a_server_that_says_nothing_times_out_for_the_caller,
    ),
];

/// The caller's error, or `peer ADDRESS`, and after how long.
fn connect(place: &Place<'_>, address: &str) -> (String, Duration) {
    let done = place.run_helper(&["connect", address]);
    let mut lines = done.stdout.lines();
    let after = lines.next().and_then(|line| line.strip_prefix("after "));
    let after = after
        .and_then(|text| text.parse().ok())
        .map(Duration::from_millis);
    let outcome = lines.next().unwrap_or_default().to_owned();
    (outcome, after.unwrap_or_else(|| panic!("{}", done.stdout)))
}

fn echo(world: &World, address: &str) -> String {
    workload::server(world, &world.place("server"), "echo", address)
}

fn unreachable_is_a_routers_word() {
    let world = World::new();
    let agent = Agent::start(&world);
    let client = world.place("client");
    for address in [echo(&world, "127.0.0.1:0"), echo(&world, "[::1]:0")] {
        agent.fault(&format!(
            "unreachable --name away --to port={}",
            port_of(&address)
        ));
        let (outcome, after) = connect(&client, &address);
        assert_eq!(outcome, "EHOSTUNREACH", "{address}");
        assert!(
            after < Duration::from_millis(900),
            "{after:?}: not at the first try"
        );
        assert_eq!(agent.fault_count("away", "affected"), 1);
        if address.starts_with("127") {
            let done = client.run_helper(&["nonblocking", &address]);
            assert_eq!(done.stdout, "EINPROGRESS\nEHOSTUNREACH\n");
        }
        agent.clear();
        assert_eq!(connect(&client, &address).0, format!("peer {address}"));
    }
}

fn connect_timeout_is_a_timeout() {
    let world = World::new();
    let agent = Agent::start(&world);
    let client = world.place("client");
    for address in [echo(&world, "127.0.0.1:0"), echo(&world, "[::1]:0")] {
        agent.fault(&format!(
            "connect_timeout --after 1500ms --name silent --to port={}",
            port_of(&address)
        ));
        let (outcome, after) = connect(&client, &address);
        assert_eq!(outcome, "ETIMEDOUT", "{address}");
        let range = Duration::from_millis(1490)
            ..Duration::from_millis(1500) + needs::tolerance(Duration::from_millis(500));
        assert!(range.contains(&after), "{after:?}");
        if address.starts_with("127") {
            let done = client.run_helper(&["nonblocking", &address]);
            assert_eq!(done.stdout, "EINPROGRESS\nETIMEDOUT\n");
        }
        agent.clear();
    }
    // Without a time the caller's own patience counts.
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("connect_timeout --to port={port}"));
    let seen = curl(
        &client,
        &format!("http://127.0.0.1:{port}/small"),
        &["--connect-timeout", "2"],
    );
    assert_eq!(seen.code, 28, "{}", seen.error);
}

fn connect_delay_delays_the_handshake() {
    let world = World::new();
    let agent = Agent::start(&world);
    let client = world.place("client");
    for address in [echo(&world, "127.0.0.1:0"), echo(&world, "[::1]:0")] {
        agent.fault(&format!(
            "connect_delay --delay 300ms --name slow --to port={}",
            port_of(&address)
        ));
        let (outcome, after) = connect(&client, &address);
        assert_eq!(outcome, format!("peer {address}"));
        let range = Duration::from_millis(300)
            ..Duration::from_millis(300) + needs::tolerance(Duration::from_millis(500));
        assert!(range.contains(&after), "{after:?}");
        let asked = client.run_helper(&["ask", &address]);
        assert!(asked.stdout.contains("answer ping"), "{}", asked.stdout);
        assert_eq!(agent.fault_count("slow", "affected"), 2);
        agent.clear();
    }
    // Where nobody listens that is found out after the delay, as over a long way.
    let closed = free_port();
    agent.fault(&format!("connect_delay --delay 300ms --to port={closed}"));
    let (outcome, after) = connect(&client, &format!("127.0.0.1:{closed}"));
    assert_eq!(outcome, "ECONNREFUSED");
    assert!(after >= Duration::from_millis(300), "{after:?}");
}

fn a_removed_delay_lets_connections_through() {
    let world = World::new();
    let agent = Agent::start(&world);
    let address = echo(&world, "127.0.0.1:0");
    for effect in ["connect_delay --delay 1m", "connect_timeout"] {
        agent.fault(&format!("{effect} --name held --to port={}", port_of(&address)));
        let client = world.place("client");
        let child = spike_tests::world::start(&mut client.helper(&["ask", &address]));
        wait_for("the attempt to be held", Duration::from_secs(5), || {
            (agent.fault_count("held", "active") == 1).then_some(())
        });
        agent.clear();
        let done = spike_tests::world::finish(child, "the client");
        assert!(done.stdout.contains("answer ping"), "{effect}: {}", done.stdout);
    }
}

fn refuse_by_a_glob_is_exact() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let address = format!("127.0.0.1:{port}");
    let url = format!("http://{address}/small");
    // The helpers' program is called system and more.
    agent.fault("refuse --from process=system*");
    assert_eq!(connect(&client, &address).0, "ECONNREFUSED");
    let done = client.run_helper(&["nonblocking", &address]);
    assert_eq!(done.stdout, "EINPROGRESS\nECONNREFUSED\n");
    agent.clear();
    agent.fault("refuse --name globbed --from process=cur?");
    let seen = curl(&client, &url, &[]);
    assert_eq!(seen.code, 7, "{}", seen.error);
    assert_eq!(agent.fault_count("globbed", "affected"), 1);
    // What the kernel had to send to the agent as well passes unharmed.
    assert_eq!(connect(&client, &address).0, format!("peer {address}"));
    assert_eq!(agent.fault_count("globbed", "matched"), 1);
    agent.clear();
    agent.fault("refuse --from process=/usr/bin/cur*");
    let seen = curl(&client, &url, &[]);
    assert_eq!(seen.code, 7, "{}", seen.error);
}

fn a_server_that_refuses_does_so_to_the_caller() {
    let world = World::new();
    let agent = Agent::start(&world);
    let client = world.place("client");
    for host in ["127.0.0.1", "[::1]"] {
        let closed = free_port();
        agent.fault(&format!("latency --delay 10ms --name slow --to port={closed}"));
        let address = format!("{host}:{closed}");
        assert_eq!(connect(&client, &address).0, "ECONNREFUSED", "{address}");
        assert_eq!(agent.fault_count("slow", "matched"), 1);
        if host == "127.0.0.1" {
            let done = client.run_helper(&["nonblocking", &address]);
            assert_eq!(done.stdout, "EINPROGRESS\nECONNREFUSED\n");
        }
        agent.clear();
    }
}

/// Two namespaces: the caller's, and one that packets for `203.0.113.0/24` go to.
fn far(world: &World, there_does: &str) -> String {
    let (here, there) = (world.namespace(), world.namespace());
    for netns in [&here, &there] {
        ip(&["-n", netns, "link", "set", "lo", "up"]);
    }
    let [_, (router, _)] = world.connect(Some(&here), Some(&there));
    ip(&["-n", &here, "route", "add", "203.0.113.0/24", "via", &router]);
    ip(&["-n", &there, "route", "add", there_does, "203.0.113.0/24"]);
    let forward = ["netns", "exec", &there, "sysctl", "-qw", "net.ipv4.ip_forward=1"];
    ip(&forward);
    here
}

fn a_server_out_of_reach_is_so_to_the_caller() {
    let world = World::new();
    let here = far(&world, "unreachable");
    let agent = Agent::start(&world);
    let client = world.place("client").within(&here);
    let address = "203.0.113.7:80";
    assert_eq!(connect(&client, address).0, "EHOSTUNREACH", "without a fault");
    agent.fault(&format!(
        "latency --delay 10ms --name slow --from {}",
        client.selector()
    ));
    wait_for("the fault in the namespace", Duration::from_secs(10), || {
        assert_eq!(connect(&client, address).0, "EHOSTUNREACH");
        (agent.fault_count("slow", "matched") > 0).then_some(())
    });
}

fn a_server_that_says_nothing_times_out_for_the_caller() {
    let world = World::new();
    let here = far(&world, "blackhole");
    // Two tries, of 1 and 2 s; the agent's own socket is in the namespace, too.
    ip(&[
        "netns",
        "exec",
        &here,
        "sysctl",
        "-qw",
        "net.ipv4.tcp_syn_retries=1",
    ]);
    let agent = Agent::start(&world);
    let client = world.place("client").within(&here);
    let address = "203.0.113.7:80";
    agent.fault(&format!(
        "latency --delay 10ms --name slow --from {}",
        client.selector()
    ));
    wait_for("the fault in the namespace", Duration::from_secs(20), || {
        let (outcome, after) = connect(&client, address);
        assert_eq!(outcome, "ETIMEDOUT");
        assert!(after > Duration::from_millis(900), "{after:?}");
        (agent.fault_count("slow", "matched") > 0).then_some(())
    });
}
