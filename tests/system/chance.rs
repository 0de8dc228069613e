//! Percent, seed, time to live and the limit of active connections.

use std::time::{Duration, Instant};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    wait_for,
    workload::nginx,
    world::{Place, World, finish},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_seed_repeats_the_choices_of_refuse",
        a_seed_repeats_the_choices_of_refuse,
    ),
    (
        "a_seed_repeats_the_choices_of_reset",
        a_seed_repeats_the_choices_of_reset,
    ),
    ("percent_is_about_kept", percent_is_about_kept),
    ("a_fault_expires", a_fault_expires),
    ("max_active_lets_the_others_pass", max_active_lets_the_others_pass),
];

/// Which of some calls one after another failed.
fn failures(client: &Place<'_>, url: &str, calls: usize) -> Vec<bool> {
    (0..calls).map(|_| curl(client, url, &[]).code != 0).collect()
}

fn repeats(effect: &str) {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let mut runs = [7, 7, 8].map(|seed| {
        agent.fault(&format!("{effect} --percent 50 --seed {seed} --to port={port}"));
        let run = failures(&client, &url, 24);
        agent.clear();
        run
    });
    let other = std::mem::take(&mut runs[2]);
    assert_eq!(runs[0], runs[1], "the same seed");
    assert_ne!(runs[0], other, "another seed");
    let share = runs[0].iter().filter(|failed| **failed).count();
    assert!((3..=21).contains(&share), "{share} of 24 at 50 percent");
}

fn a_seed_repeats_the_choices_of_refuse() {
    repeats("refuse");
}

fn a_seed_repeats_the_choices_of_reset() {
    repeats("reset");
}

fn percent_is_about_kept() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    agent.fault(&format!(
        "refuse --name some --percent 20 --seed 1 --to port={port}"
    ));
    let url = format!("http://127.0.0.1:{port}/small");
    // One curl, many connections: it opens a new one for each address here.
    let script = format!("i=0; while [ $i -lt 200 ]; do curl -s -o /dev/null {url}; i=$((i+1)); done");
    client.run("sh", &["-c", &script]);
    let [matched, affected, escaped] =
        ["matched", "affected", "escaped"].map(|key| agent.fault_count("some", key));
    assert_eq!((matched, affected + escaped), (200, 200));
    assert!((20..=60).contains(&affected), "{affected} of 200 at 20 percent");
}

fn a_fault_expires() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let start = Instant::now();
    agent.fault(&format!("refuse --ttl 1s --to port={port}"));
    assert_eq!(curl(&client, &url, &[]).code, 7);
    wait_for("the fault to expire", Duration::from_secs(3), || {
        (curl(&client, &url, &[]).code == 0).then_some(())
    });
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(950)
            && took < Duration::from_secs(1) + needs::tolerance(Duration::from_millis(500)),
        "{took:?}"
    );
    let faults = agent.json(&["fault", "list"]);
    assert_eq!(faults["faults"].as_array().map(Vec::len), Some(0), "{faults:#}");
}

fn max_active_lets_the_others_pass() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    agent.fault(&format!(
        "latency --delay 1s --max-active 1 --name one --to port={port}"
    ));
    let child = client.start("curl", &["-sS", "-o", "/dev/null", "-w", "%{time_total}", &url]);
    wait_for("the first to be held", Duration::from_secs(2), || {
        (agent.fault_count("one", "active") == 1).then_some(())
    });
    assert!(curl(&client, &url, &[]).time < Duration::from_millis(900));
    let seconds: f64 = finish(child, "curl").ok().parse().expect("a time");
    assert!(seconds >= 1.0, "the first took {seconds} s");
    assert_eq!(agent.fault_count("one", "escaped"), 1);
}
