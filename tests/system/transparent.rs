//! What an application sees of an intercepted connection: nothing but the fault.

use std::net::SocketAddr;

use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    workload::{self, nginx, port_of, wait_for_listener},
    world::{Place, World},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "getpeername_is_what_was_asked_for",
        getpeername_is_what_was_asked_for,
    ),
    ("a_bound_source_address_is_kept", a_bound_source_address_is_kept),
    ("a_server_may_speak_first", a_server_may_speak_first),
    (
        "a_half_closed_connection_still_answers",
        a_half_closed_connection_still_answers,
    ),
    ("a_connect_without_waiting_works", a_connect_without_waiting_works),
    ("large_bodies_arrive_unchanged", large_bodies_arrive_unchanged),
    (
        "thousands_of_open_connections_work",
        thousands_of_open_connections_work,
    ),
    ("a_dead_server_still_refuses", a_dead_server_still_refuses),
];

/// A fault that intercepts without being felt.
const LIGHT: &str = "latency --delay 1ms --name light";

/// A world with one of the own servers, which every caller in `client` reaches through the agent.
fn intercepted(kind: &str, check: impl FnOnce(&World, &Place<'_>, &str)) {
    let world = World::new();
    let agent = Agent::start(&world);
    let address = workload::server(&world, &world.place("server"), kind, "127.0.0.1:0");
    let client = world.place("client");
    agent.fault(&format!("{LIGHT} --to port={}", port_of(&address)));
    check(&world, &client, &address);
    assert!(
        agent.fault_count("light", "affected") > 0,
        "nothing was intercepted"
    );
}

fn getpeername_is_what_was_asked_for() {
    intercepted("echo", |world, client, address| {
        let said = client.run_helper(&["ask", address]);
        assert!(
            said.stdout.contains(&format!("peer {address}\n")),
            "{}",
            said.stdout
        );
        assert!(said.stdout.contains("answer ping"), "{}", said.stdout);
        // The same for a socket of IPv6 to an IPv4 address.
        let v6 = workload::server(world, &world.place("server"), "echo", "[::1]:0");
        assert!(
            client
                .run_helper(&["ask", &v6])
                .stdout
                .contains(&format!("peer {v6}\n"))
        );
        let mapped = format!("[::ffff:127.0.0.1]:{}", port_of(address));
        let said = client.run_helper(&["ask", &mapped]);
        assert!(
            said.stdout.contains(&format!("peer {mapped}\n")),
            "{}",
            said.stdout
        );
    });
}

fn a_bound_source_address_is_kept() {
    let world = World::new();
    let agent = Agent::start(&world);
    let address = workload::server(&world, &world.place("server"), "greet", "127.0.0.1:0");
    let client = world.place("client");
    agent.fault(&format!("{LIGHT} --to port={}", port_of(&address)));
    let url = format!("telnet://{address}");
    for bound in ["127.0.0.5", "127.0.0.1"] {
        let done = client.run("curl", &["-sS", "-m", "5", "--interface", bound, &url]);
        let seen = done
            .stdout
            .trim()
            .trim_start_matches("hello ")
            .parse::<SocketAddr>();
        let seen = seen.unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
        assert_eq!(seen.ip().to_string(), bound);
    }
    assert!(
        agent.fault_count("light", "affected") >= 2,
        "nothing was intercepted"
    );
}

fn a_server_may_speak_first() {
    intercepted("greet", |_, client, address| {
        let said = client.run_helper(&["listen-first", address]);
        assert!(said.stdout.starts_with("hello 127.0.0.1:"), "{}", said.stdout);
    });
}

fn a_half_closed_connection_still_answers() {
    intercepted("count", |_, client, address| {
        assert_eq!(client.run_helper(&["half-close", address]).stdout, "got 100000\n");
    });
}

fn a_connect_without_waiting_works() {
    intercepted("echo", |_, client, address| {
        let said = client.run_helper(&["nonblocking", address]);
        assert_eq!(
            said.stdout,
            format!("EINPROGRESS\npeer {address}\nanswer ping\n"),
            "{}",
            said.stderr
        );
    });
}

/// 512 MiB there and back; `SPIKE_BODY_MIB=10240` makes it 10 GiB.
fn large_bodies_arrive_unchanged() {
    intercepted("echo", |_, client, address| {
        let bytes = from_env("SPIKE_BODY_MIB", 512) << 20;
        let said = client.run_helper(&["bounce", address, &bytes.to_string()]);
        assert_eq!(
            said.stdout,
            format!("{bytes} bytes came back\n"),
            "{}",
            said.stderr
        );
    });
}

/// 2,000 connections, on an emulated processor 300; `SPIKE_CONNECTIONS=10000` needs a limit of 45,000 open files or more:
/// each has four ends.
fn thousands_of_open_connections_work() {
    intercepted("echo", |_, client, address| {
        let usual = if needs::is_emulated() { 300 } else { 2_000 };
        let count = from_env("SPIKE_CONNECTIONS", usual);
        let said = client.run_helper(&["many", address, &count.to_string()]);
        assert_eq!(said.stdout, format!("{count} answered\n"), "{}", said.stderr);
    });
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn a_dead_server_still_refuses() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    wait_for_listener(&format!("127.0.0.1:{port}"));
    let closed = workload::free_port();
    agent.fault(&format!("{LIGHT} --to port={closed}"));
    let seen = curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{closed}/"),
        &[],
    );
    // The agent has accepted by then: the caller gets a reset instead of a refusal, and no answer either way.
    assert!(matches!(seen.code, 7 | 52 | 56), "{}: {}", seen.code, seen.error);
}
