//! Captures that wait: what led to the event is in the file.

use std::time::Duration;

use spike_tests::{
    agent::Agent,
    oracle::{curl, tshark},
    workload::nginx,
    world::{World, finish},
};

use super::{export, fetch, start, stop, view};

pub(super) fn has_what_led_to_a_reset() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let from = client.selector();
    let options = [
        "-i", "lo", "--from", &from, "--before", "30s", "--on", "reset", "--after", "500ms",
    ];
    let id = start(&agent, &options);
    fetch(&client, port, "small");
    fetch(&client, port, "small");
    std::thread::sleep(Duration::from_millis(300));
    let waiting = view(&agent, &id);
    assert_eq!(
        (&waiting["state"], waiting["packets"].as_u64()),
        (&"waiting".into(), Some(0))
    );
    agent.fault(&format!("reset --to port={port}"));
    let failed = curl(&client, &format!("http://127.0.0.1:{port}/small"), &[]);
    assert_ne!(failed.code, 0, "the reset was planted");
    spike_tests::wait_for("the capture to end", Duration::from_secs(10), || {
        (view(&agent, &id)["state"] == "ended").then_some(())
    });
    assert_eq!(view(&agent, &id)["triggered"], "reset");
    let file = world.path("a.pcapng");
    export(&agent, &id, &file, &[]);
    let before = tshark(&file, "http.response", &["frame.number"]);
    assert_eq!(before.len(), 2, "the calls before it");
    let resets = tshark(&file, "tcp.flags.reset == 1", &["frame.number", "frame.comment"]);
    let marked = resets.iter().find(|row| row[1].contains("(triggered: reset)"));
    let marked = marked.unwrap_or_else(|| panic!("no mark on the reset: {resets:#?}"));
    let last = before[1][0].parse::<u32>().expect("a number");
    assert!(marked[0].parse::<u32>().expect("a number") > last);
}

pub(super) fn waits_for_latency() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let to = format!("port={port}");
    let options = [
        "-i",
        "lo",
        "--to",
        &to,
        "--before",
        "30s",
        "--on",
        "p50>150ms",
        "--after",
        "300ms",
    ];
    let id = start(&agent, &options);
    fetch(&client, port, "small");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(view(&agent, &id)["state"], "waiting", "fast calls are none");
    agent.fault(&format!("latency --delay 400ms --to port={port}"));
    for _ in 0..3 {
        fetch(&client, port, "small");
    }
    spike_tests::wait_for("the capture to end", Duration::from_secs(10), || {
        (view(&agent, &id)["state"] == "ended").then_some(())
    });
    assert_eq!(view(&agent, &id)["triggered"], "p50>150ms");
    let file = world.path("a.pcapng");
    export(&agent, &id, &file, &[]);
    assert!(tshark(&file, "http.response", &["frame.number"]).len() >= 2);
}

pub(super) fn waits_for_errors() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let to = format!("port={port}");
    let options = [
        "-i",
        "lo",
        "--to",
        &to,
        "--before",
        "30s",
        "--on",
        "errors>1%",
        "--after",
        "300ms",
    ];
    let id = start(&agent, &options);
    fetch(&client, port, "small");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(
        view(&agent, &id)["state"],
        "waiting",
        "a call that went well is no error"
    );
    agent.fault(&format!("refuse --to port={port}"));
    curl(&client, &format!("http://127.0.0.1:{port}/small"), &[]);
    spike_tests::wait_for("the capture to end", Duration::from_secs(10), || {
        (view(&agent, &id)["state"] == "ended").then_some(())
    });
    assert_eq!(view(&agent, &id)["triggered"], "errors>1%");
    let file = world.path("a.pcapng");
    export(&agent, &id, &file, &[]);
    assert_eq!(
        tshark(&file, "http.response", &["frame.number"]).len(),
        1,
        "the call before it"
    );
}

pub(super) fn is_triggered_by_hand() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let to = format!("port={port}");
    let file = world.path("a.pcapng");
    let options = ["-i", "lo", "--to", &to, "--before", "30s", "--after", "300ms"];
    let capture = super::run(&world, &agent, &file, &options);
    fetch(&client, port, "small");
    std::thread::sleep(Duration::from_millis(200));
    let list = agent.json(&["capture", "list"]);
    let id = list["captures"][0]["id"].as_str().expect("an id").to_owned();
    agent.spike(&["capture", "trigger", &id]).ok();
    let done = finish(capture, "spike capture");
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert_eq!(tshark(&file, "http.request", &["frame.number"]).len(), 1);
    assert_eq!(view(&agent, &id)["triggered"], "by hand");

    let plain = start(&agent, &["-i", "lo"]);
    let refused = agent.spike(&["capture", "trigger", &plain]);
    assert!(
        refused.code() == 1 && refused.stderr.contains("does not wait"),
        "{}",
        refused.stderr
    );
    stop(&agent, &plain);
}
