//! Recordings: what is in them, what must not be, and what becomes of them when things go wrong.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    tools::{python, python_module, script},
    wait_for,
    workload::{free_port, nginx, postgres, postgres_bin, redis, wait_for_listener},
    world::{Place, World, finish, start},
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
fn sql(file: &str, query: &str) -> String {
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

/// The how-many-th secret; like no other bytes.
fn secret(number: usize) -> String {
    format!("S3kr1t{number:02}zQ{:x}", number * 7919 + 0x00A1_B2C3)
}

fn forty_secrets_are_nowhere() {
    let Some(bin) = postgres_bin() else {
        needs::skip("no PostgreSQL here")
    };
    needs::program("redis-cli");
    let world = World::new();
    let agent = Agent::start(&world);
    let (redis, postgres) = (
        redis(&world, &world.place("redis")),
        postgres(&world, &world.place("db"), &bin),
    );
    let port = free_port();
    let program = script("secrets_service.py").display().to_string();
    world.place("web").serve("python3", &[program, port.to_string()]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    let shell = world.place("shell");
    let file = record(
        &world,
        &agent,
        &format!("--from {} --redact header=x-answer,field=iban", shell.selector()),
    );
    let s = secret;
    let url = format!("http://127.0.0.1:{port}");
    let run = |program: &str, args: &[&str]| shell.run(program, args).ok();
    run(
        "curl",
        &[
            "-sS",
            "-H",
            &format!("Authorization: Bearer {}", s(1)),
            "-H",
            &format!("Cookie: a={}; b={}", s(2), s(3)),
            "-H",
            &format!("X-Api-Key: {}", s(4)),
            "-H",
            &format!("Proxy-Authorization: Basic {}", s(5)),
            &format!("{url}/q?token={}&user=plain-marker&api_key={}", s(6), s(7)),
        ],
    );
    let answer = format!("X-Answer: ['{}','{}','{}','{}']", s(8), s(9), s(10), s(11));
    run("curl", &["-sS", "-H", &answer, &format!("{url}/plain")]);
    let answer = format!("X-Answer: ['{}','{}','{}','{}']", s(12), s(13), s(14), s(15));
    run("curl", &["-sS", "-H", &answer, &format!("{url}/chunked")]);
    let json = format!(
        r#"{{"user":"ann","password":"{}","nested":{{"secret":["{}",{{"x":"{}"}}]}},"clientSecret":"{}","iban":"{}"}}"#,
        s(16),
        s(17),
        s(18),
        s(19),
        s(20)
    );
    run(
        "curl",
        &["-sS", "-H", "Content-Type: application/json", "-d", &json, &url],
    );
    run(
        "curl",
        &[
            "-sS",
            "-d",
            &format!("user=ann&password={}&refresh_token={}", s(21), s(22)),
            &url,
        ],
    );
    run(
        "curl",
        &["-sS", "-F", "user=ann", "-F", &format!("passwd={}", s(23)), &url],
    );
    let redis = redis.to_string();
    let redis_cli = |args: &[&str]| shell.run("redis-cli", &[&["-p", redis.as_str()], args].concat());
    redis_cli(&[
        "ACL",
        "SETUSER",
        "bob",
        "on",
        &format!(">{}", s(24)),
        "+@all",
        "~*",
    ])
    .ok();
    redis_cli(&["AUTH", "bob", &s(24)]).ok();
    redis_cli(&["AUTH", "bob", &s(25)]);
    redis_cli(&["HSET", "user:1", "name", "ann", "password", &s(26)]).ok();
    redis_cli(&["HGETALL", "user:1"]).ok();
    redis_cli(&["SET", "session:token", &s(27)]).ok();
    redis_cli(&["GET", "session:token"]).ok();
    redis_cli(&[
        "SET",
        "doc",
        &format!(r#"{{"api_key":"{}","plain":"plain-marker"}}"#, s(28)),
    ])
    .ok();
    redis_cli(&["GET", "doc"]).ok();
    redis_cli(&["CONFIG", "SET", "masterauth", &s(29)]).ok();
    redis_cli(&["CONFIG", "GET", "masterauth"]).ok();
    let postgres = postgres.to_string();
    let psql = bin.join("psql").display().to_string();
    let psql = |script: &str| {
        shell.run(
            &psql,
            &[
                "-h",
                "127.0.0.1",
                "-p",
                &postgres,
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-c",
                script,
            ],
        )
    };
    psql("CREATE TABLE users (id int, name text, password text, doc text)").ok();
    psql(&format!("CREATE ROLE ann LOGIN PASSWORD '{}'", s(30))).ok();
    psql(&format!(
        "ALTER ROLE ann WITH ENCRYPTED PASSWORD '{}' VALID UNTIL '2099-01-01'",
        s(31)
    ))
    .ok();
    psql(&format!(
        "INSERT INTO users (id, name, password) VALUES (1, 'plain-marker', '{}'), (2, 'bob', md5('{}'))",
        s(32),
        s(33)
    ))
    .ok();
    psql("SELECT id, name, password FROM users").ok();
    psql(&format!("UPDATE users SET password = '{}' WHERE id = 1", s(34))).ok();
    psql(&format!("SELECT name FROM users WHERE password = '{}'", s(35))).ok();
    psql(&format!(
        "UPDATE users SET doc = '{{\"token\": \"{}\"}}' WHERE id = 2",
        s(36)
    ))
    .ok();
    psql("SELECT doc FROM users").ok();
    psql(&format!("SELECT 'postgresql://h/?user=a&password={}'", s(37))).ok();
    psql(&format!("SELEC password '{}'", s(38)));
    psql(&format!(
        "PREPARE p (text) AS SELECT 1 WHERE $1 = 'password={}'",
        s(39)
    ))
    .ok();
    psql(&format!("CREATE USER carl PASSWORD $x${}$x$", s(40))).ok();

    let places = |path: &Path| fs::read(path).unwrap_or_default();
    let wal = Path::new(&file).with_extension("spike-wal");
    // What passed last is committed by then.
    std::thread::sleep(needs::patience(Duration::from_millis(1000)));
    assert!(!places(&wal).is_empty());
    let mut seen = vec![
        ("the log of the file", places(&wal)),
        ("the file while it grows", places(Path::new(&file))),
    ];
    stop(&agent);
    seen.push(("the file", places(Path::new(&file))));
    for format in ["--har", "--curl", "--jsonl", "--pcapng"] {
        let out = world.path("export");
        agent
            .spike(&[
                "record",
                "export",
                &file,
                format,
                "-o",
                out.to_str().expect("UTF-8"),
            ])
            .ok();
        let bytes = fs::read(&out).expect("read the export");
        assert!(
            bytes.windows(12).any(|window| window == b"plain-marker"),
            "{format} has what is no secret"
        );
        seen.push((format, bytes));
    }
    seen.push((
        "what is shown",
        agent.spike(&["record", "grep", ".", &file]).ok().into_bytes(),
    ));
    seen.push(("the agent's log", agent.log().into_bytes()));
    for number in 1..=40 {
        let secret = secret(number);
        for (place, bytes) in &seen {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "secret {number} is in {place}");
        }
    }
    let protocols = sql(
        &file,
        "SELECT protocol, count(*) > 5 FROM call GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(protocols, "http|1\npostgresql|1\nredis|1");
    assert_eq!(
        sql(&file, "SELECT count(*) FROM call WHERE NOT complete"),
        "0",
        "redacted bytes are decoded as before"
    );
    assert_eq!(sql(&file, "SELECT count(*) FROM loss"), "0");
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
    let file = record(&world, &agent, &format!("--to port={port}"));
    let shell = world.place("shell");
    let url = format!("http://127.0.0.1:{port}/large");
    shell.run("curl", &["-sS", "-o", "/dev/null", &url]).ok();
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
    assert!(
        after < before + 160,
        "the agent's peak went from {before} to {after} MiB"
    );
    println!("{mib} MiB: peak {before} -> {after} MiB, {lost} bytes not kept");
}

fn other_files_are_refused() {
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

fn a_har_is_read_by_another_tool() {
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

fn commands_of_curl_do_the_same_again() {
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

fn what_is_exported_is_imported() {
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

fn captures_of_others_are_imported() {
    needs::program("tcpdump");
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = world.path("tcpdump.pcap").display().to_string();
    let filter = format!("tcp port {port}");
    let mut tcpdump = world.place("tcpdump").command("tcpdump");
    tcpdump
        .args(["-i", "lo", "-U", "-w", &file, &filter])
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
