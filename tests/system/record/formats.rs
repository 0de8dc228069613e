//! Recordings in other formats and made of them, and files that are none.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    tools::{node, python, python_module, script},
    wait_for,
    workload::{free_port, nginx, nginx_http2, redis, wait_for_listener},
    world::{World, finish, start},
};

use super::{calls, record, sql, stop};

pub(super) fn a_har_is_read_by_another_tool() {
    python_module("haralyzer");
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = record(&world, &agent, &format!("--to port={port}"));
    let shell = world.place("shell");
    for path in ["small?a=b%20c", "none"] {
        curl(&shell, &format!("http://127.0.0.1:{port}/{path}"), &[]);
    }
    stop(&agent);
    let har = world.path("calls.har").display().to_string();
    agent
        .spike(&["record", "export", &file, "--har", "-o", &har])
        .ok();
    let mut command = python();
    command.arg(script("har_reader.py")).arg(&har);
    let said = finish(start(command.stdin(Stdio::null())), "haralyzer").ok();
    let read: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&read["version"], &read["creator"]),
        (&"1.2".into(), &"Spike".into())
    );
    let entries = read["entries"].as_array().expect("entries");
    let said: Vec<_> = entries
        .iter()
        .map(|entry| (entry["url"].as_str(), entry["status"].as_u64()))
        .collect();
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");
    let (first, second) = (url("small?a=b%20c"), url("none"));
    assert_eq!(said, [(Some(&*first), Some(200)), (Some(&*second), Some(404))]);
    assert!(
        entries[0]["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("xxxx"))
    );
}

pub(super) fn a_har_fits_its_schema() {
    let mut check = node("har-schema");
    let world = World::new();
    let agent = Agent::start(&world);
    let (http2, port) = (nginx_http2(&world, &world.place("http2")), free_port());
    let program = script("secrets_service.py").display().to_string();
    let service = world.place("web").serve("python3", &[program, port.to_string()]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    let shell = world.place("shell");
    let file = record(&world, &agent, &format!("--from {}", shell.selector()));
    let url = format!("http://127.0.0.1:{port}/a%20b?c=d&e=%C3%A9&f");
    let calls: [&[&str]; 5] = [
        &["-H", "Cookie: a=b; c", "-H", "X-Answer: ['1','2','3','4']", &url],
        &[
            "-H",
            "Content-Type: application/json",
            "-d",
            "{\"a\": \"\u{e9}\"}",
            &url,
        ],
        &["-F", "a=b", "-F", "file=@/bin/true", &url],
        &["--data-binary", "@/bin/true", &url],
        &[
            "--http2-prior-knowledge",
            &format!("http://127.0.0.1:{http2}/small"),
        ],
    ];
    for args in calls {
        shell
            .run("curl", &[&["-sS", "-o", "/dev/null"], args].concat())
            .ok();
    }
    // One that nobody answers to the end.
    spike_tests::world::kill(service, libc::SIGSTOP);
    let unanswered = shell.run("curl", &["-sS", "-m", "1", &url]);
    assert_ne!(unanswered.code(), 0);
    spike_tests::world::kill(service, libc::SIGKILL);
    wait_for("the call to end", Duration::from_secs(10), || {
        (super::calls(&agent, &file).len() == 6).then_some(())
    });
    stop(&agent);
    let har = world.path("calls.har").display().to_string();
    agent
        .spike(&["record", "export", &file, "--har", "-o", &har])
        .ok();
    check.arg(script("har_schema.cjs"));
    let judged = |check: &mut std::process::Command, har: &str| {
        finish(start(check.arg(har).stdin(Stdio::null())), "the schema")
    };
    let said = judged(&mut check, &har);
    assert_eq!(said.code(), 0, "{}", said.stderr);
    assert_eq!(said.stdout, "6 entries are valid\n");
    // The schema does find what is wrong.
    let bad = world.path("bad.har").display().to_string();
    let text = fs::read_to_string(&har).expect("read the archive");
    fs::write(&bad, text.replacen("\"status\":200", "\"status\":\"200\"", 1)).expect("write");
    let mut check = node("har-schema");
    check.arg(script("har_schema.cjs"));
    let said = judged(&mut check, &bad);
    assert!(
        said.code() == 1 && said.stderr.contains("/response/status: must be integer"),
        "{}",
        said.stderr
    );
}

pub(super) fn commands_of_curl_do_the_same_again() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = free_port();
    let program = script("secrets_service.py").display().to_string();
    world.place("web").serve("python3", &[program, port.to_string()]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    let file = record(&world, &agent, &format!("--to port={port}"));
    let shell = world.place("shell");
    let url = format!("http://127.0.0.1:{port}/a?b='c d'").replace(' ', "%20");
    shell
        .run(
            "curl",
            &["-sS", "-d", "it's \"body\"\n$x", "-H", "X-Own: a'b", &url],
        )
        .ok();
    stop(&agent);
    let commands = agent.spike(&["record", "export", &file, "--curl"]).ok();
    let file = record_again(&world, &agent, port);
    shell.run("bash", &["-c", &commands]).ok();
    stop(&agent);
    let again = agent.spike(&["record", "export", &file, "--curl"]).ok();
    assert_eq!(commands, again);
}

fn record_again(world: &World, agent: &Agent, port: u16) -> String {
    let file = world.path("again.spike").display().to_string();
    agent
        .spike(&["record", "start", "--to", &format!("port={port}"), "-o", &file])
        .ok();
    file
}

/// What is the same in a recording and in one that was made of its export.
fn gist(call: &Value) -> [Value; 5] {
    ["protocol", "operation", "target", "status", "complete"].map(|key| call[key].clone())
}

pub(super) fn what_is_exported_is_imported() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (web, redis) = (
        nginx(&world, &world.place("web")),
        redis(&world, &world.place("redis")),
    );
    let shell = world.place("shell");
    let file = record(&world, &agent, &format!("--from {}", shell.selector()));
    for path in ["small?a=b", "none", "mib"] {
        curl(&shell, &format!("http://127.0.0.1:{web}/{path}"), &[]);
    }
    shell
        .run("redis-cli", &["-p", &redis.to_string(), "SET", "a", "b"])
        .ok();
    stop(&agent);
    let before = calls(&agent, &file);
    for (format, protocol) in [("--pcapng", None), ("--har", Some("http"))] {
        let other = world.path(&format!("export{format}")).display().to_string();
        agent
            .spike(&["record", "export", &file, format, "-o", &other])
            .ok();
        let again = world.path(&format!("again{format}.spike")).display().to_string();
        let said = agent.spike(&["record", "import", &other, "-o", &again]);
        assert_eq!(said.code(), 0, "{}", said.stderr);
        let meant = |call: &&Value| protocol.is_none_or(|protocol| call["protocol"] == protocol);
        let expected: Vec<_> = before.iter().filter(meant).map(gist).collect();
        let after = calls(&agent, &again);
        assert_eq!(after.iter().map(gist).collect::<Vec<_>>(), expected, "{format}");
        assert_eq!(sql(&again, "SELECT count(*) FROM loss"), "0");
        let times = |calls: &[Value]| {
            calls
                .iter()
                .map(|call| call["started_ns"].as_u64().unwrap_or(0))
                .max()
        };
        assert!(times(&after) <= times(&before), "times are since the first");
        let mode = fs::metadata(&again).expect("the recording").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let bad = world.path("bad.har").display().to_string();
    fs::write(&bad, r#"{"log": {"entries": [{"request": 7}]}}"#).expect("write");
    let made = world.path("bad.spike").display().to_string();
    for (input, why) in [
        (&*bad, "no HTTP archive"),
        (&*file, "neither a pcapng nor a pcap"),
    ] {
        let done = agent.spike(&["record", "import", input, "-o", &made]);
        assert!(done.code() == 1 && done.stderr.contains(why), "{}", done.stderr);
        assert!(!Path::new(&made).exists(), "nothing is left");
    }
}

pub(super) fn captures_of_others_are_imported() {
    needs::program("tcpdump");
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = world.path("tcpdump.pcap").display().to_string();
    let filter = format!("tcp port {port}");
    let mut tcpdump = world.place("tcpdump").command("tcpdump");
    tcpdump
        .args(["-i", "lo", "-U", "-B", "65536", "-w", &file, &filter])
        .stderr(Stdio::null());
    let tcpdump = world.keep(tcpdump.spawn().expect("start tcpdump"));
    wait_for("tcpdump's file", Duration::from_secs(5), || {
        fs::metadata(&file).ok().filter(|file| file.len() > 0).map(drop)
    });
    let shell = world.place("shell");
    let secret = format!("http://127.0.0.1:{port}/small?token=S3kr1t");
    for url in [&*secret, &format!("http://127.0.0.1:{port}/mib")] {
        assert_eq!(curl(&shell, url, &[]).code, 0);
    }
    // It may read a second late.
    wait_for("tcpdump to have all", Duration::from_secs(10), || {
        fs::metadata(&file)
            .ok()
            .filter(|file| file.len() > 1 << 20)
            .map(drop)
    });
    std::thread::sleep(Duration::from_millis(1500));
    spike_tests::world::kill(tcpdump, libc::SIGINT);
    std::thread::sleep(Duration::from_millis(500));
    let made = world.path("made.spike").display().to_string();
    let imported = agent.spike(&["record", "import", &file, "-o", &made]);
    assert_eq!(imported.code(), 0, "{}", imported.stderr);
    let calls = calls(&agent, &made);
    let said: Vec<_> = calls
        .iter()
        .map(|call| (call["request"]["target"].as_str(), call["status"].as_str()))
        .collect();
    let expected = [
        (Some("/small?token=******"), Some("200")),
        (Some("/mib"), Some("200")),
    ];
    assert_eq!(said, expected, "{}", imported.stderr);
    assert_eq!(
        sql(
            &made,
            "SELECT sum(length(bytes)) >= 1048576 FROM chunk WHERE connection = 2 AND side = 1"
        ),
        "1"
    );
    // Of a file that is cut within a packet nothing is made.
    let bytes = fs::read(&file).expect("read tcpdump's file");
    fs::write(&file, &bytes[..bytes.len() - 1000]).expect("write");
    let cut = world.path("cut.spike").display().to_string();
    let done = agent.spike(&["record", "import", &file, "-o", &cut]);
    assert!(
        done.code() == 1 && done.stderr.contains("the file is damaged"),
        "{}",
        done.stderr
    );
    assert!(!Path::new(&cut).exists());
}

pub(super) fn other_files_are_refused() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = record(&world, &agent, &format!("--to port={port}"));
    curl(
        &world.place("shell"),
        &format!("http://127.0.0.1:{port}/mib"),
        &[],
    );
    let again = agent.spike(&["record", "start", "--everything", "-o", &file]);
    assert!(
        again.code() == 1 && again.stderr.contains("exists"),
        "{}",
        again.stderr
    );
    stop(&agent);
    let whole = fs::read(&file).expect("read the recording");
    let cut = world.path("cut.spike");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("write");
    let other = world.path("other.har");
    fs::write(&other, r#"{"log": {"version": "1.2", "entries": []}}"#.repeat(10)).expect("write");
    for (path, why) in [
        (cut.to_str().expect("UTF-8"), "shorter than it says"),
        (other.to_str().expect("UTF-8"), "no SQLite file"),
        ("/nowhere.spike", "No such file"),
        ("/dev/null", "no regular file"),
    ] {
        let done = agent.spike(&["record", "show", path]);
        assert!(
            done.code() == 1 && done.stderr.contains(why),
            "{path}: {}",
            done.stderr
        );
    }
    let wrong = |words: &str, why: &str| {
        let done = agent.spike(&words.split_whitespace().collect::<Vec<_>>());
        assert!(
            done.code() == 1 && done.stderr.contains(why),
            "{words}: {}",
            done.stderr
        );
    };
    wrong("record start", "--everything");
    wrong("record start --everything --redact cookies", "header=NAME");
    wrong("record start --everything --redact none,field=a", "none");
    wrong("record start --everything -o /nowhere/a", "No such file");
    wrong("record start --everything --body-limit lots", "body_limit");
    wrong("record stop r77", "no recording `r77`");
}
