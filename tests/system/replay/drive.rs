//! Recorded requests, sent to real servers again: what is the same, what is not, and when they come.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use spike_tests::{
    agent::{Agent, spike_bin},
    needs,
    tools::script,
    wait_for,
    workload::{free_port, postgres, postgres_bin, wait_for_listener},
    world::{Place, World, finish, start},
};

use super::{drive, recorded_rates, serve};
use crate::calls::{dns, own_address};

/// Statements in both of PostgreSQL's ways to ask, rows that are copied, and an error.
fn statements(world: &World, shell: &Place<'_>, bin: &Path, port: u16) {
    let port = port.to_string();
    let server = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    let psql = bin.join("psql").display().to_string();
    let say = |statement: &str| {
        let args = [&["-X"], &server[..], &["-c", statement]].concat();
        shell.run(&psql, &args)
    };
    say("CREATE TABLE goods (id int PRIMARY KEY, name text)").ok();
    say("INSERT INTO goods VALUES (1, 'tea'), (2, 'milk')").ok();
    say("SELECT name FROM goods ORDER BY id").ok();
    assert_ne!(say("SELECT nothing FROM goods").code(), 0);
    let copy = format!(
        "printf '3\\tsugar\\n' | {psql} -X {} -c 'COPY goods FROM STDIN'",
        server.join(" ")
    );
    shell.run("sh", &["-c", &copy]).ok();
    let text = world.path("prepared.sql");
    fs::write(&text, "\\set n 2\nSELECT count(*) FROM goods WHERE id <= :n;\n").expect("write a script");
    let text = text.display().to_string();
    let pgbench = bin.join("pgbench").display().to_string();
    let prepared = ["-n", "-M", "prepared", "-t", "3", "-f", &text];
    shell
        .run(&pgbench, &[&prepared, &server[..], &["postgres"]].concat())
        .ok();
}

pub(super) fn drive_sends_postgres_again() {
    let Some(bin) = postgres_bin() else {
        needs::skip("no PostgreSQL here: run scripts/setup.sh --test");
    };
    let (world, other) = (World::new(), World::new());
    let agent = Agent::start(&world);
    let shell = world.place("shell");
    let file = world.path("postgres.spike").display().to_string();
    let port = postgres(&world, &world.place("db"), &bin);
    agent
        .spike(&["record", "start", "--to", &format!("port={port}"), "-o", &file])
        .ok();
    statements(&world, &shell, &bin, port);
    agent.spike(&["record", "stop"]).ok();
    // What is asked of an empty database again has the same answers, and of one that has them, others.
    let place = other.place("db");
    let port = postgres(&other, &place, &bin);
    let target = format!("127.0.0.1:{port}");
    // However fast: what had been answered when a statement was sent is answered again first.
    let (report, code) = drive(&agent, &file, &target, &["--speed", "50x"]);
    assert_eq!((code, &report["same"]), (0, &report["requests"]), "{report}");
    assert!(report["requests"].as_u64() >= Some(8), "{report}");
    let (report, code) = drive(&agent, &file, &target, &["--speed", "4x"]);
    assert_eq!((code, &report["failed"]), (1, &Value::from(0)), "{report}");
    let first = &report["calls"][0];
    assert_eq!(
        first["call"], "CREATE TABLE goods (id int PRIMARY KEY, name text)",
        "{report}"
    );
    let told = first["differences"].to_string();
    assert!(told.contains("error.code: not recorded, came 42P07"), "{told}");
    // The recording has nobody's password: drive logs in by itself, or says why it cannot.
    let psql = |statement: &str| {
        let mut psql = place.command(bin.join("psql"));
        psql.args([
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-U",
            "postgres",
            "-c",
            statement,
        ]);
        finish(start(&mut psql), "psql").ok();
    };
    psql("CREATE ROLE ann LOGIN SUPERUSER PASSWORD 'good'");
    let rules = other.path("postgres/pg_hba.conf");
    let before = fs::read_to_string(&rules).expect("read pg_hba.conf");
    let own = "host all ann 127.0.0.1/32 scram-sha-256\n";
    fs::write(&rules, format!("{own}{before}")).expect("write pg_hba.conf");
    psql("SELECT pg_reload_conf()");
    let log_in = |password: Option<&str>| -> Value {
        let mut command = shell.command(spike_bin());
        command
            .args(["replay", "drive", &file, "--target", &target, "--speed", "20x"])
            .args(["--user", "ann", "--json"])
            .env_remove("PGPASSWORD")
            .envs(password.map(|password| ("PGPASSWORD", password)));
        let done = finish(start(&mut command), "spike replay drive");
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stderr))
    };
    let why = |report: &Value| {
        report["calls"][0]["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    wait_for(
        "PostgreSQL to ask for a password",
        Duration::from_secs(10),
        || {
            why(&log_in(None))
                .contains("log in as `ann`: the server asks for a password: set PGPASSWORD")
                .then_some(())
        },
    );
    let report = log_in(Some("bad"));
    assert_eq!(report["failed"], report["requests"], "{report}");
    assert!(
        why(&report).contains("password authentication failed"),
        "{report}"
    );
    let report = log_in(Some("good"));
    assert_eq!(report["failed"], 0, "{report}");
}

pub(super) fn drive_asks_names_again() {
    let (world, other) = (World::new(), World::new());
    let agent = Agent::start(&world);
    let shell = world.place("shell");
    let name = "a.shop.test";
    let (resolver, elsewhere) = (own_address(7), own_address(8));
    dns(&world, &resolver, &[(name, "10.0.0.1")]);
    dns(&other, &elsewhere, &[(name, "10.0.0.2")]);
    let file = world.path("dns.spike").display().to_string();
    agent
        .spike(&["record", "start", "--from", &shell.selector(), "-o", &file])
        .ok();
    let ask = format!(
        "import socket, struct\n\
         question = struct.pack('!6H', 7, 256, 1, 0, 0, 0) + b'\\x01a\\x04shop\\x04test\\0' + struct.pack('!2H', 1, 1)\n\
         asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); asker.settimeout(10)\n\
         asker.sendto(question, ('{resolver}', 53)); assert socket.inet_aton('10.0.0.1') in asker.recv(4096)\n\
         asker = socket.create_connection(('{resolver}', 53), 10)\n\
         asker.sendall(struct.pack('!H', len(question)) + question)\n\
         assert socket.inet_aton('10.0.0.1') in asker.recv(4096)\n"
    );
    shell.run("python3", &["-c", &ask]).ok();
    agent.spike(&["record", "stop"]).ok();
    let (report, code) = drive(&agent, &file, &format!("{resolver}:53"), &[]);
    assert_eq!((code, &report["same"]), (0, &Value::from(2)), "{report}");
    let (report, code) = drive(&agent, &file, &format!("{elsewhere}:53"), &[]);
    assert_eq!((code, &report["different"]), (1, &Value::from(2)), "{report}");
    let differences = report["calls"][0]["differences"].to_string();
    assert!(
        differences.contains("answer: recorded a.shop.test. A 10.0.0.1, came a.shop.test. A 10.0.0.2"),
        "{report}"
    );
}

pub(super) fn drive_keeps_the_recorded_spacing() {
    const COUNT: usize = 300;
    let world = World::new();
    let agent = Agent::start(&world);
    let shell = world.place("shell");
    let port = free_port();
    let text = port.to_string();
    serve(&world, &world.place("server"), "arrivals.py", &[&text]);
    let address = format!("127.0.0.1:{port}");
    wait_for_listener(&address);
    let file = world.path("spaced.spike").display().to_string();
    agent
        .spike(&["record", "start", "--from", &shell.selector(), "-o", &file])
        .ok();
    let program = script("spaced_calls.py").display().to_string();
    shell.run("python3", &[&program, &text, &COUNT.to_string()]).ok();
    agent.spike(&["record", "stop"]).ok();
    let url = format!("http://{address}/arrivals");
    let arrivals = || {
        let told = world.place("asker").run("curl", &["-sSf", &url]).ok();
        let all: Vec<(String, i64)> = serde_json::from_str(&told).expect("the arrivals");
        all
    };
    let expected: Vec<String> = (0..COUNT).map(|number| format!("/{number}")).collect();
    assert_eq!(arrivals().len(), COUNT);
    let recorded: Vec<(String, i64)> = agent
        .spike(&["record", "show", &file, "--json"])
        .ok()
        .lines()
        .map(|line| {
            let call: Value = serde_json::from_str(line).expect("a call");
            let target = call["request"]["target"].as_str().expect("its target").to_owned();
            (target, call["started_ns"].as_i64().expect("its time"))
        })
        .collect();
    let (report, code) = drive(&agent, &file, &address, &[]);
    assert_eq!((code, &report["same"]), (0, &Value::from(COUNT)), "{report}");
    let sent = arrivals();
    for calls in [&recorded, &sent] {
        let order: Vec<&String> = calls.iter().map(|(path, _)| path).collect();
        assert_eq!(order, expected.iter().collect::<Vec<_>>());
    }
    let gaps = |calls: &[(String, i64)]| -> Vec<i64> {
        calls.windows(2).map(|pair| pair[1].1 - pair[0].1).collect()
    };
    let gaps = gaps(&recorded).into_iter().zip(gaps(&sent));
    let mut errors: Vec<i64> = gaps.map(|(recorded, sent)| (recorded - sent).abs()).collect();
    errors.sort_unstable();
    let quantile = |share: f64| errors[((errors.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    println!(
        "spacing at the server, error in ms: p50 {:.3}, p90 {:.3}, p99 {:.3}, max {:.3}",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(1.0)
    );
    // The median: a busy machine holds single wake-ups back.
    assert!(quantile(0.5) < 1.0, "{errors:?}");
}

pub(super) fn faults_apply_to_what_is_driven() {
    let world = World::new();
    let agent = Agent::start(&world);
    let file = world.path("rates.spike").display().to_string();
    recorded_rates(&world, &agent, &file);
    let port = free_port();
    serve(
        &world,
        &world.place("rates"),
        "json_rates.py",
        &[&port.to_string()],
    );
    let target = format!("127.0.0.1:{port}");
    wait_for_listener(&target);
    // Within what the agent observes.
    let shell = world.place("shell");
    let drive = || {
        let mut command = shell.command(spike_bin());
        command.args(["replay", "drive", &file, "--target", &target, "--json"]);
        let done = finish(start(&mut command), "spike replay drive");
        let report: Value =
            serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stderr));
        (report, done.code())
    };
    let latency = |report: &Value| report["latency_ms"]["p50"].as_f64().expect("a latency");
    let (report, _) = drive();
    assert_eq!(report["failed"], 0, "{report}");
    agent.fault(&format!("latency --delay 600ms --to port={port} --name slow"));
    let (report, _) = drive();
    assert_eq!(report["failed"], 0, "{report}");
    assert!(latency(&report) >= 600.0, "{report}");
    assert!(agent.fault_count("slow", "affected") >= 1);
    agent.clear();
    agent.fault(&format!("reset --to port={port}"));
    let (report, code) = drive();
    assert_eq!((code, &report["failed"]), (1, &report["requests"]), "{report}");
    agent.clear();
}
