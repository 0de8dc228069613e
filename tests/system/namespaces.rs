//! Callers in other network namespaces.

use std::{net::SocketAddr, time::Duration};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::{curl, median_time},
    wait_for,
    workload::{self, nginx},
    world::{World, ip},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_caller_in_a_namespace_is_faulted",
        a_caller_in_a_namespace_is_faulted,
    ),
    (
        "the_server_sees_the_callers_own_address",
        the_server_sees_the_callers_own_address,
    ),
    (
        "a_caller_and_server_within_one_namespace",
        a_caller_and_server_within_one_namespace,
    ),
    (
        "two_namespaces_apart_from_the_host",
        two_namespaces_apart_from_the_host,
    ),
    (
        "a_namespace_whose_lo_is_down_is_left_alone",
        a_namespace_whose_lo_is_down_is_left_alone,
    ),
    ("refuse_needs_no_listener", refuse_needs_no_listener),
];

const DELAY: Duration = Duration::from_millis(200);

fn lo_up(netns: &str) {
    ip(&["-n", netns, "link", "set", "lo", "up"]);
}

/// Waits until a fault delays curl: the agent learns of a namespace with its first connection.
fn wait_until_delayed(client: &spike_tests::world::Place<'_>, url: &str) {
    wait_for(
        "the fault to be in force in the namespace",
        Duration::from_secs(5),
        || (curl(client, url, &[]).time >= DELAY).then_some(()),
    );
}

fn a_caller_in_a_namespace_is_faulted() {
    let world = World::new();
    let netns = world.namespace();
    lo_up(&netns);
    let [(host, _), _] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let address = workload::server(&world, &world.place("server"), "echo", &format!("{host}:0"));
    let client = world.place("client").within(&netns);
    let free = client.run_helper(&["ask", &address]);
    assert!(free.stdout.contains("answer ping"), "{}", free.stdout);
    agent.fault(&format!("reset --name cut --from {}", client.selector()));
    wait_for("the reset in the namespace", Duration::from_secs(5), || {
        client
            .run_helper(&["ask", &address])
            .stdout
            .ends_with("ECONNRESET\n")
            .then_some(())
    });
    assert!(agent.fault_count("cut", "affected") >= 1);
}

fn the_server_sees_the_callers_own_address() {
    let world = World::new();
    let netns = world.namespace();
    lo_up(&netns);
    let [(host, _), (own, _)] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let address = workload::server(&world, &world.place("server"), "greet", &format!("{host}:0"));
    let client = world.place("client").within(&netns);
    agent.fault(&format!(
        "latency --delay 200ms --name slow --from {}",
        client.selector()
    ));
    wait_for(
        "the fault to be in force in the namespace",
        Duration::from_secs(5),
        || {
            client.run_helper(&["listen-first", &address]);
            (agent.fault_count("slow", "affected") > 0).then_some(())
        },
    );
    let said = client.run_helper(&["listen-first", &address]).stdout;
    let seen: SocketAddr = said
        .trim()
        .trim_start_matches("hello ")
        .parse()
        .expect("an address");
    assert_eq!(seen.ip().to_string(), own, "{said}");
    assert!(agent.fault_count("slow", "affected") >= 2);
}

fn a_caller_and_server_within_one_namespace() {
    let world = World::new();
    let netns = world.namespace();
    lo_up(&netns);
    let agent = Agent::start(&world);
    let port = nginx_within(&world, &netns);
    let client = world.place("client").within(&netns);
    let url = format!("http://127.0.0.1:{port}/small");
    let without = median_time(&client, &url, 3);
    agent.fault(&format!("latency --delay 200ms --to port={port}"));
    wait_until_delayed(&client, &url);
    let added = median_time(&client, &url, 5).saturating_sub(without);
    assert!(
        added.abs_diff(DELAY) <= needs::tolerance(Duration::from_millis(2)),
        "{added:?} added"
    );
    let status = agent.json(&["status"]);
    let namespaces = status["intercept"]["namespaces"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let ours = namespaces.iter().find(|entry| entry["name"] == netns.as_str());
    assert_eq!(
        ours.map(|entry| &entry["state"]),
        Some(&"ready".into()),
        "{status:#}"
    );
}

/// nginx on `lo` of a namespace, where the test cannot ask whether it listens.
fn nginx_within(world: &World, netns: &str) -> u16 {
    let place = world.place("web").within(netns);
    workload::start_nginx(world, &place, |port| {
        curl(&place, &format!("http://127.0.0.1:{port}/small"), &[]).code == 0
    })
}

fn two_namespaces_apart_from_the_host() {
    let world = World::new();
    let (here, there) = (world.namespace(), world.namespace());
    lo_up(&here);
    lo_up(&there);
    let [(own, _), (address, _)] = world.connect(Some(&here), Some(&there));
    let agent = Agent::start(&world);
    let server = world.place("server").within(&there);
    let address = workload::server(&world, &server, "greet", &format!("{address}:0"));
    let client = world.place("client").within(&here);
    agent.fault(&format!(
        "latency --delay 200ms --name slow --from {}",
        client.selector()
    ));
    wait_for(
        "the fault to be in force in the namespace",
        Duration::from_secs(5),
        || {
            let said = client.run_helper(&["listen-first", &address]).stdout;
            assert!(said.starts_with(&format!("hello {own}:")), "{said}");
            (agent.fault_count("slow", "affected") > 0).then_some(())
        },
    );
}

fn a_namespace_whose_lo_is_down_is_left_alone() {
    let world = World::new();
    let netns = world.namespace();
    let [(host, _), _] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let address = workload::server(&world, &world.place("server"), "echo", &format!("{host}:0"));
    let client = world.place("client").within(&netns);
    agent.fault(&format!("reset --from {}", client.selector()));
    let state = || {
        let answered = client.run_helper(&["ask", &address]);
        assert!(answered.stdout.contains("answer ping"), "{}", answered.stdout);
        let status = agent.json(&["status"]);
        let namespaces = status["intercept"]["namespaces"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ours = namespaces.iter().find(|entry| entry["name"] == netns.as_str());
        ours.filter(|entry| entry["state"] == "lo-down").map(drop)
    };
    wait_for("status to say that lo is down", Duration::from_secs(5), state);
    let text = agent.spike(&["status"]).ok();
    assert!(text.contains("lo is down"), "{text}");
}

fn refuse_needs_no_listener() {
    needs::kernel(5, 18, "refuse where lo is down");
    let world = World::new();
    let netns = world.namespace();
    let [(host, _), _] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client").within(&netns);
    agent.fault(&format!("refuse --from {}", client.selector()));
    let asked = client.run_helper(&["ask", &format!("{host}:{port}")]);
    assert_eq!(asked.stdout, "ECONNREFUSED\n");
    assert_eq!(
        curl(
            &world.place("other"),
            &format!("http://127.0.0.1:{port}/small"),
            &[]
        )
        .code,
        0
    );
}
