//! Recordings: what is in them, what must not be, and what becomes of them when things go wrong.

mod formats;
mod secrets;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use spike_tests::{
    agent::Agent,
    oracle::curl,
    tools::python,
    workload::nginx,
    world::{Place, World, finish, start},
};

use self::{
    formats::{
        a_har_fits_its_schema, a_har_is_read_by_another_tool, captures_of_others_are_imported,
        commands_of_curl_do_the_same_again, other_files_are_refused, what_is_exported_is_imported,
    },
    secrets::forty_secrets_are_nowhere,
};
use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("keeps_every_byte_of_curls_calls", keeps_every_byte_of_curls_calls),
    (
        "keeps_what_it_cannot_decode_and_nothing_of_others",
        keeps_what_it_cannot_decode_and_nothing_of_others,
    ),
    ("forty_secrets_are_nowhere", forty_secrets_are_nowhere),
    ("survives_kill_9", survives_kill_9),
    (
        "a_large_body_takes_little_memory",
        a_large_body_takes_little_memory,
    ),
    ("other_files_are_refused", other_files_are_refused),
    ("a_har_is_read_by_another_tool", a_har_is_read_by_another_tool),
    ("a_har_fits_its_schema", a_har_fits_its_schema),
    (
        "commands_of_curl_do_the_same_again",
        commands_of_curl_do_the_same_again,
    ),
    ("what_is_exported_is_imported", what_is_exported_is_imported),
    ("captures_of_others_are_imported", captures_of_others_are_imported),
    ("exec_records_its_command_alone", exec_records_its_command_alone),
    ("faults_show_in_what_is_recorded", faults_show_in_what_is_recorded),
];

/// Starts a recording to a file of the world, in the words of the command line.
#[track_caller]
fn record(world: &World, agent: &Agent, words: &str) -> String {
    let file = world
        .path("calls.spike")
        .to_str()
        .expect("a path in UTF-8")
        .to_owned();
    let words = format!("record start {words} -o {file}");
    agent.spike(&words.split_whitespace().collect::<Vec<_>>()).ok();
    file
}

#[track_caller]
fn stop(agent: &Agent) {
    agent.spike(&["record", "stop"]).ok();
}

/// The calls of a recording, as JSON.
#[track_caller]
fn calls(agent: &Agent, file: &str) -> Vec<Value> {
    let text = agent.spike(&["record", "show", file, "--json"]).ok();
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("a JSON object a line")
}

/// What SQL says of a recording: anyone may ask.
#[track_caller]
pub(crate) fn sql(file: &str, query: &str) -> String {
    let code = "import sqlite3, sys; print('\\n'.join('|'.join(map(str, row)) for row in \
                sqlite3.connect(sys.argv[1]).execute(sys.argv[2])))";
    let mut command = python();
    command.args(["-c", code, file, query]);
    finish(start(command.stdin(Stdio::null())), "sqlite")
        .ok()
        .trim()
        .to_owned()
}

fn keeps_every_byte_of_curls_calls() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = record(&world, &agent, &format!("--to port={port}"));
    let mode = fs::metadata(&file).expect("the recording").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let shell = world.place("shell");
    for path in ["small", "none", "mib"] {
        assert_eq!(
            curl(&shell, &format!("http://127.0.0.1:{port}/{path}"), &[]).code,
            0
        );
    }
    stop(&agent);
    let calls = calls(&agent, &file);
    let said: Vec<_> = calls
        .iter()
        .map(|call| {
            (
                call["request"]["target"].as_str(),
                call["status"].as_str(),
                call["complete"].as_bool(),
            )
        })
        .collect();
    let expected = [("/small", "200"), ("/none", "404"), ("/mib", "200")];
    assert_eq!(
        said,
        expected.map(|(target, status)| (Some(target), Some(status), Some(true)))
    );
    for call in &calls {
        assert_eq!(
            (call["protocol"].as_str(), call["caller"].as_str()),
            (Some("http"), Some("curl"))
        );
        assert_eq!(call["server"], format!("127.0.0.1:{port}"));
        assert!(call["first_byte_ns"].as_u64() >= call["started_ns"].as_u64());
    }
    let connections = agent.json(&["record", "show", &file, "--connections"]);
    let lengths: Vec<_> = sql(
        &file,
        "SELECT connection, side, sum(length(bytes)), max(position + length(bytes)) FROM chunk GROUP BY 1, 2",
    )
    .lines()
    .map(str::to_owned)
    .collect();
    for connection in connections.as_array().expect("connections") {
        assert_eq!(connection["ended"], "closed");
        for (side, name) in ["client_bytes", "server_bytes"].iter().enumerate() {
            let (id, sent) = (&connection["id"], &connection[*name]);
            assert!(
                lengths.contains(&format!("{id}|{side}|{sent}|{sent}")),
                "{id} {side} {sent}: {lengths:?}"
            );
        }
    }
    let whole = agent.spike(&["record", "show", &file, "--call", "1"]).ok();
    assert!(
        whole.starts_with("GET /small HTTP/1.1\r\n") && whole.contains("\r\n\r\nxxxx"),
        "{whole}"
    );
    assert_eq!(
        agent
            .spike(&["record", "grep", "GET /no", &file])
            .ok()
            .lines()
            .count(),
        1
    );
    assert_eq!(agent.spike(&["record", "grep", "GET /nowhere", &file]).code(), 1);
    assert_eq!(agent.spike(&["record", "stop"]).code(), 1, "none runs");
}

fn keeps_what_it_cannot_decode_and_nothing_of_others() {
    let world = World::new();
    let agent = Agent::start(&world);
    let server = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = server.local_addr().expect("the port").port();
    let echo = std::thread::spawn(move || {
        for stream in server.incoming().take(2) {
            let mut stream = stream.expect("accept");
            let mut said = Vec::new();
            stream.read_to_end(&mut said).expect("read");
            said.reverse();
            stream.write_all(&said).expect("write");
        }
    });
    let chosen = world.place("chosen");
    let file = record(
        &world,
        &agent,
        &format!("--from {} --to port={port}", chosen.selector()),
    );
    let code = format!(
        "import socket; s = socket.create_connection(('127.0.0.1', {port})); b = bytes(i * 7 % 256 for i in range(100000)); \
         s.sendall(b); s.shutdown(socket.SHUT_WR); r = b''\nwhile d := s.recv(65536): r += d\nassert r == b[::-1]"
    );
    chosen.run("python3", &["-c", &code]).ok();
    world.place("other").run("python3", &["-c", &code]).ok();
    echo.join().expect("the server");
    stop(&agent);
    assert_eq!(
        sql(&file, "SELECT count(*), max(protocol IS NULL) FROM connection"),
        "1|1"
    );
    let bytes: Vec<u8> = (0..100_000_u32).map(|index| (index * 7 % 256) as u8).collect();
    for (side, expected) in [bytes.clone(), bytes.iter().rev().copied().collect::<Vec<u8>>()]
        .iter()
        .enumerate()
    {
        let hex = sql(
            &file,
            &format!(
                "SELECT group_concat(hex(bytes), '') FROM (SELECT * FROM chunk WHERE side = {side} ORDER BY position)"
            ),
        );
        let expected: String = expected.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(
            hex == expected,
            "side {side}: {} digits of {}",
            hex.len(),
            expected.len()
        );
    }
}

fn survives_kill_9() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = record(&world, &agent, &format!("--to port={port}"));
    let shell = world.place("shell");
    for _ in 0..20 {
        assert_eq!(
            curl(&shell, &format!("http://127.0.0.1:{port}/small"), &[]).code,
            0
        );
    }
    std::thread::sleep(Duration::from_secs(1));
    agent.kill9();
    let agent = Agent::start(&world);
    let calls = calls(&agent, &file);
    assert_eq!(calls.len(), 20, "all that was a second old");
    assert_eq!(sql(&file, "PRAGMA integrity_check"), "ok");
    assert!(
        agent
            .spike(&["record", "show", &file])
            .stderr
            .contains("the agent was killed")
    );
}

fn a_large_body_takes_little_memory() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    // 512 MiB unless asked for more: 5 GiB take a minute and as much of the disk.
    let mib: u64 = std::env::var("SPIKE_RECORD_MIB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(512);
    let large = File::create(world.path("nginx/www/large")).expect("make the file");
    large.set_len(mib << 20).expect("size the file");
    let peak = || {
        let status =
            fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("read the agent's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("the agent's peak") >> 10
    };
    let before = peak();
    let (shell, url) = (world.place("shell"), format!("http://127.0.0.1:{port}/large"));
    for (how, name) in [("", "lossy.spike"), ("--backpressure", "whole.spike")] {
        let file = world.path(name).display().to_string();
        let words = format!("record start --to port={port} -o {file} {how}");
        agent.spike(&words.split_whitespace().collect::<Vec<_>>()).ok();
        let start = Instant::now();
        shell.run("curl", &["-sS", "-o", "/dev/null", &url]).ok();
        let took = start.elapsed();
        stop(&agent);
        let after = peak();
        let counts: Vec<u64> = sql(
            &file,
            "SELECT server_bytes, (SELECT sum(length(bytes)) FROM chunk WHERE side = 1), \
            (SELECT ifnull(sum(bytes), 0) FROM loss WHERE connection IS NOT NULL) FROM connection",
        )
        .split('|')
        .map(|number| number.parse().expect("a number"))
        .collect();
        let [sent, kept, lost] = counts[..] else {
            panic!("{counts:?}")
        };
        assert!(sent > mib << 20);
        assert_eq!(kept + lost, sent, "what is not there is counted");
        assert!(how.is_empty() || lost == 0, "the connection waits");
        assert!(
            after < before + 160,
            "the agent's peak went from {before} to {after} MiB"
        );
        println!("{mib} MiB {how} in {took:?}: peak {before} -> {after} MiB, {lost} bytes not kept");
        fs::remove_file(&file).expect("remove the recording");
    }
}

fn exec_records_its_command_alone() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");
    let (shell, other): (Place<'_>, Place<'_>) = (world.place("shell"), world.place("other"));
    let file = world.path("exec.spike").display().to_string();
    let script = format!(
        "curl -sS -o /dev/null {}; sleep 1; curl -sS -o /dev/null {}; exit 3",
        url("small"),
        url("none")
    );
    let child = agent.start_in(&shell, &["exec", "--record", &file, "--", "sh", "-c", &script]);
    std::thread::sleep(Duration::from_millis(600));
    curl(&other, &url("mib"), &[]);
    let done = finish(child, "spike exec");
    assert_eq!(done.code(), 3, "{}", done.stderr);
    assert!(
        done.stderr.contains("2 calls in 2 connections"),
        "{}",
        done.stderr
    );
    let targets: Vec<_> = calls(&agent, &file)
        .iter()
        .map(|call| call["target"].clone())
        .collect();
    assert_eq!(targets, ["/small", "/none"]);
    let list = agent.json(&["record", "list"]);
    assert_eq!(list["recordings"][0]["running"], false);
}

fn faults_show_in_what_is_recorded() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("latency --delay 300ms --to port={port}"));
    let file = record(&world, &agent, &format!("--to port={port}"));
    let shell = world.place("shell");
    assert_eq!(
        curl(&shell, &format!("http://127.0.0.1:{port}/small"), &[]).code,
        0
    );
    agent.clear();
    agent.fault(&format!(
        "limit-data --bytes 100B --direction response --to port={port}"
    ));
    curl(&shell, &format!("http://127.0.0.1:{port}/small"), &[]);
    stop(&agent);
    let calls = calls(&agent, &file);
    let took =
        |call: &Value| call["ended_ns"].as_u64().unwrap_or(0) - call["started_ns"].as_u64().unwrap_or(0);
    assert!(
        took(&calls[0]) >= 300_000_000,
        "as the caller saw it: {}",
        calls[0]
    );
    assert_eq!(
        sql(
            &file,
            "SELECT sum(length(bytes)) FROM chunk WHERE connection = 2 AND side = 1"
        ),
        "100"
    );
}
