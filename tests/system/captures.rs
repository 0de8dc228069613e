//! Captures that the agent keeps, cuts, waits with and filters, judged by the tools that will read them.

mod content;
mod disk;
mod events;
mod places;

use std::{path::Path, process::Child, time::Duration};

use spike_tests::{
    agent::Agent,
    oracle::curl,
    world::{Place, World, finish, kill},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "every_tool_reads_every_kind_of_file",
        content::every_tool_reads_every_kind_of_file,
    ),
    ("agrees_with_tcpdump", content::agrees_with_tcpdump),
    (
        "decrypts_tls_from_the_file_alone",
        content::decrypts_tls_from_the_file_alone,
    ),
    (
        "joins_the_legs_of_an_intercepted_call",
        content::joins_the_legs_of_an_intercepted_call,
    ),
    (
        "takes_one_connection_in_some",
        content::takes_one_connection_in_some,
    ),
    (
        "shows_calls_without_wireshark",
        content::shows_calls_without_wireshark,
    ),
    (
        "has_several_readers_while_it_grows",
        disk::has_several_readers_while_it_grows,
    ),
    ("is_cut_into_files", disk::is_cut_into_files),
    ("outlives_a_killed_agent", disk::outlives_a_killed_agent),
    ("ends_when_the_disk_is_full", disk::ends_when_the_disk_is_full),
    ("ends_at_the_quota", disk::ends_at_the_quota),
    ("has_what_led_to_a_reset", events::has_what_led_to_a_reset),
    ("waits_for_latency", events::waits_for_latency),
    ("waits_for_errors", events::waits_for_errors),
    ("is_triggered_by_hand", events::is_triggered_by_hand),
    ("sees_other_namespaces", places::sees_other_namespaces),
    ("takes_each_packet_once", places::takes_each_packet_once),
];

/// Starts a kept capture and gives its id.
#[track_caller]
fn start(agent: &Agent, options: &[&str]) -> String {
    let done = agent.spike(&[&["capture", "start"], options].concat());
    assert_eq!(done.code(), 0, "spike capture start {options:?}: {}", done.stderr);
    done.stdout.trim().to_owned()
}

/// Stops a kept capture; its file is whole then.
#[track_caller]
fn stop(agent: &Agent, id: &str) {
    // What was sent last is still on its way.
    std::thread::sleep(Duration::from_millis(200));
    agent.spike(&["capture", "stop", id]).ok();
}

#[track_caller]
fn export(agent: &Agent, id: &str, file: &Path, options: &[&str]) {
    let output = file.to_str().expect("a path in UTF-8");
    let args = [&["capture", "export", id, "--output", output], options].concat();
    let done = agent.spike(&args);
    assert_eq!(done.code(), 0, "{args:?}: {}", done.stderr);
}

/// A capture as the API shows it.
#[track_caller]
fn view(agent: &Agent, id: &str) -> serde_json::Value {
    let list = agent.json(&["capture", "list"]);
    let captures = list["captures"].as_array().cloned().unwrap_or_default();
    let found = captures.into_iter().find(|capture| capture["id"] == id);
    found.unwrap_or_else(|| panic!("no capture {id} in {list}"))
}

#[track_caller]
fn number(agent: &Agent, id: &str, key: &str) -> u64 {
    let view = view(agent, id);
    view[key].as_u64().unwrap_or_else(|| panic!("no {key} in {view}"))
}

/// Runs `spike capture run` beside the test until [`end`].
fn run(world: &World, agent: &Agent, file: &Path, options: &[&str]) -> Child {
    let output = file.to_str().expect("a path in UTF-8");
    let args = [&["capture", "run", "--output", output], options].concat();
    let child = agent.start_in(&world.place("capture"), &args);
    spike_tests::wait_for("the capture to start", Duration::from_secs(5), || {
        let list = agent.json(&["capture", "list"]);
        let captures = list["captures"].as_array().cloned().unwrap_or_default();
        let newest = captures.last().is_some_and(|capture| capture["state"] != "ended");
        newest.then_some(())
    });
    std::thread::sleep(Duration::from_millis(100));
    child
}

#[track_caller]
fn end(child: Child) -> String {
    std::thread::sleep(Duration::from_millis(300));
    kill(child.id(), libc::SIGINT);
    let done = finish(child, "spike capture");
    assert_eq!(done.code(), 0, "{}", done.stderr);
    done.stderr
}

#[track_caller]
fn fetch(client: &Place<'_>, port: u16, path: &str) {
    let seen = curl(client, &format!("http://127.0.0.1:{port}/{path}"), &[]);
    assert_eq!(seen.code, 0, "{}", seen.error);
}
