//! An agent that stands still, by SIGSTOP: the kernel takes faults out of force by itself.

use std::time::{Duration, Instant};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    workload::{self, nginx},
    world::{World, kill},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_stopped_agent_intercepts_no_more",
        a_stopped_agent_intercepts_no_more,
    ),
    ("a_fault_ends_in_the_kernel_too", a_fault_ends_in_the_kernel_too),
];

/// Goes on when it goes away, so that the agent can be ended in the end.
struct Stopped(u32);

impl Stopped {
    fn new(agent: &Agent) -> Self {
        kill(agent.pid(), libc::SIGSTOP);
        Self(agent.pid())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, libc::SIGCONT);
    }
}

/// How long it takes until a call goes straight that was held by the stopped agent before.
fn until_straight(mut is_straight: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_straight() {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing goes straight");
    }
    start.elapsed()
}

fn a_stopped_agent_intercepts_no_more() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let echo = workload::server(&world, &world.place("server"), "datagram-echo", "127.0.0.1:0");
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    agent.fault(&format!("latency --delay 1ms --name slow --to port={port}"));
    agent.fault(&format!(
        "udp_delay --delay 1ms --name slower --from {}",
        client.selector()
    ));
    agent.fault(&format!(
        "refuse --name no --from {}",
        world.place("refused").selector()
    ));
    assert_eq!(curl(&client, &url, &[]).code, 0);
    assert_eq!(agent.fault_count("slow", "affected"), 1);
    assert!(client.run_helper(&["datagrams", &echo]).stdout.contains(&echo));
    assert_eq!(agent.fault_count("slower", "affected"), 1);
    let stopped = Stopped::new(&agent);
    // Each try that is held is given up soon, so that the time is known that well.
    let took = until_straight(|| curl(&client, &url, &["-m", "0.3"]).code == 0);
    assert!(
        took <= Duration::from_secs(2) + needs::tolerance(Duration::from_secs(1)),
        "{took:?}"
    );
    let seen = curl(&client, &url, &[]);
    assert!(seen.code == 0 && seen.time < Duration::from_secs(1), "{seen:?}");
    assert!(
        client.run_helper(&["datagrams", &echo]).stdout.contains(&echo),
        "datagrams go straight, too"
    );
    drop(stopped);
    // It is back in force by itself.
    let back = until_straight(|| {
        curl(&client, &url, &[]);
        agent.fault_count("slow", "affected") > 1
    });
    assert!(back <= Duration::from_secs(3), "{back:?}");
    let status = agent.json(&["status"]);
    let losses = status["losses"].as_array().cloned().unwrap_or_default();
    let escaped = losses.iter().find(|loss| loss["name"] == "escaped_heartbeat");
    assert!(escaped.is_some(), "{status:#}");
}

fn a_fault_ends_in_the_kernel_too() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let armed = Instant::now();
    agent.fault(&format!("latency --delay 1ms --ttl 1s --to port={port}"));
    // Its heartbeat holds for 2 s, the fault for half that.
    let stopped = Stopped::new(&agent);
    let rest = Duration::from_millis(1100).saturating_sub(armed.elapsed());
    std::thread::sleep(rest);
    let seen = curl(&client, &url, &["-m", "0.5"]);
    drop(stopped);
    assert_eq!(seen.code, 0, "{}", seen.error);
}
