//! `spike exec`: one command with faults and a capture of its own.

use std::time::Duration;

use spike_tests::{
    agent::Agent,
    needs,
    oracle::{attached_programs, curl, tshark},
    workload::nginx,
    world::{World, finish},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "breaks_the_command_and_nothing_else",
        breaks_the_command_and_nothing_else,
    ),
    ("exits_with_the_commands_status", exits_with_the_commands_status),
    ("captures_the_commands_packets", captures_the_commands_packets),
    ("reaches_the_commands_children", reaches_the_commands_children),
    ("leaves_nothing_behind", leaves_nothing_behind),
];

fn breaks_the_command_and_nothing_else() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let url = format!("http://127.0.0.1:{port}/small");
    let shell = world.place("shell");
    let fault = format!("latency --delay 1s --to port={port}");
    let args = [
        "exec",
        "--fault",
        &fault,
        "--",
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{time_total}",
        &url,
    ];
    let child = agent.start_in(&shell, &args);
    std::thread::sleep(Duration::from_millis(400));
    let other = curl(&shell, &url, &[]);
    assert!(
        other.code == 0 && other.time < Duration::from_millis(900),
        "{other:?}"
    );
    let done = finish(child, "spike exec");
    let seconds: f64 = done
        .stdout
        .parse()
        .unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr));
    let most = 1.0 + needs::tolerance(Duration::from_millis(200)).as_secs_f64();
    assert!((1.0..most).contains(&seconds), "curl took {seconds} s");
    assert_eq!(done.code(), 0);
}

fn exits_with_the_commands_status() {
    let world = World::new();
    let agent = Agent::start(&world);
    let shell = world.place("shell");
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15)] {
        let child = agent.start_in(&shell, &["exec", "--", "sh", "-c", script]);
        assert_eq!(finish(child, "spike exec").code(), code, "{script}");
    }
    let child = agent.start_in(&shell, &["exec", "--", "no-such-command"]);
    assert_eq!(finish(child, "spike exec").code(), 127);
    let port = nginx(&world, &world.place("web"));
    let url = format!("http://127.0.0.1:{port}/small");
    let child = agent.start_in(
        &shell,
        &[
            "exec",
            "--fault",
            "refuse --everything",
            "--",
            "curl",
            "-sS",
            &url,
        ],
    );
    assert_eq!(finish(child, "spike exec").code(), 7);
}

fn captures_the_commands_packets() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let url = format!("http://127.0.0.1:{port}/small");
    let file = world.path("a.pcapng");
    let output = file.to_str().expect("UTF-8");
    let args = [
        "exec",
        "--capture",
        output,
        "--",
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        &url,
    ];
    let done = finish(agent.start_in(&world.place("shell"), &args), "spike exec");
    assert_eq!(done.code(), 0, "{}", done.stderr);
    let requests = tshark(&file, "http.request", &["http.request.uri"]);
    assert_eq!(requests, [["/small"]]);
    assert_eq!(tshark(&file, "http.response", &["frame.number"]).len(), 1);
}

fn reaches_the_commands_children() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let script = format!("sh -c 'curl -sS http://127.0.0.1:{port}/small'; exit $?");
    let fault = format!("refuse --to port={port}");
    let child = agent.start_in(
        &world.place("shell"),
        &["exec", "--fault", &fault, "--", "sh", "-c", &script],
    );
    assert_eq!(finish(child, "spike exec").code(), 7);
}

fn leaves_nothing_behind() {
    let world = World::new();
    let agent = Agent::start(&world);
    let before = attached_programs(&world);
    let shell = world.place("shell");
    let child = agent.start_in(&shell, &["exec", "--fault", "refuse --everything", "--", "true"]);
    assert_eq!(finish(child, "spike exec").code(), 0);
    assert_eq!(
        agent.json(&["fault", "list"])["faults"].as_array().map(Vec::len),
        Some(0)
    );
    assert_eq!(attached_programs(&world), before);
    assert_eq!(agent.terminate(), Some(0));
    let (code, said) = Agent::check_leftovers(&world);
    assert_eq!(code, 0, "{said}");
}
