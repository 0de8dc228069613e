//! The effects on the bytes of a connection, each as the client saw it: chains, hot changes, what was open before, dry
//! runs, faults that abort, and the audit log.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    wait_for,
    workload::{self, free_port, nginx, port_of, redis},
    world::{Place, World, finish, start},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("slow_close_delays_the_end", slow_close_delays_the_end),
    (
        "slicer_leaves_the_bytes_as_they_are",
        slicer_leaves_the_bytes_as_they_are,
    ),
    ("limit_data_cuts_a_download", limit_data_cuts_a_download),
    ("corrupt_reaches_the_client", corrupt_reaches_the_client),
    ("effects_are_chained", effects_are_chained),
    ("distributions_are_armed", distributions_are_armed),
    ("bytes_survive_hot_changes", bytes_survive_hot_changes),
    ("a_held_call_goes_on_at_once", a_held_call_goes_on_at_once),
    (
        "existing_keep_leaves_connections",
        existing_keep_leaves_connections,
    ),
    (
        "existing_reset_brings_a_pool_back",
        existing_reset_brings_a_pool_back,
    ),
    (
        "existing_reset_reaches_other_namespaces",
        existing_reset_reaches_other_namespaces,
    ),
    (
        "existing_reset_ends_sessions_of_pgbench",
        existing_reset_ends_sessions_of_pgbench,
    ),
    (
        "a_dry_run_counts_and_does_nothing",
        a_dry_run_counts_and_does_nothing,
    ),
    ("a_fault_aborts_when_calls_fail", a_fault_aborts_when_calls_fail),
    ("the_audit_log_tells_the_story", the_audit_log_tells_the_story),
];

fn slow_close_delays_the_end() {
    let world = World::new();
    let agent = Agent::start(&world);
    let server = workload::server(&world, &world.place("server"), "greet", "127.0.0.1:0");
    let client = world.place("client");
    let time = || {
        let start = Instant::now();
        let said = client.run_helper(&["listen-first", &server]).ok();
        assert!(said.starts_with("hello"), "{said}");
        start.elapsed()
    };
    let without = time();
    agent.fault(&format!(
        "slow_close --delay 700ms --to port={}",
        port_of(&server)
    ));
    let with = time();
    assert!(
        with >= Duration::from_millis(700),
        "{with:?} with, {without:?} without"
    );
}

fn slicer_leaves_the_bytes_as_they_are() {
    let world = World::new();
    let agent = Agent::start(&world);
    let server = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    agent.fault(&format!(
        "slicer --size 500B --variation 400B --direction both --to port={}",
        port_of(&server)
    ));
    let said = world
        .place("client")
        .run_helper(&["bounce", &server, "3000000"])
        .ok();
    assert_eq!(said, "3000000 bytes came back\n");
    agent.clear();
    // A pause after each kilobyte: a mebibyte takes at least a second.
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("slicer --size 1KiB --delay 1ms --to port={port}"));
    let seen = curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{port}/mib"),
        &[],
    );
    assert_eq!((seen.code, seen.size), (0, 1 << 20), "{}", seen.error);
    assert!(seen.time >= Duration::from_secs(1), "{:?}", seen.time);
}

fn limit_data_cuts_a_download() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("limit_data --bytes 100KiB --to port={port}"));
    let client = world.place("client");
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");
    let seen = curl(&client, &url("mib"), &[]);
    // 18: closed with bytes missing. The head of the response is part of the limit.
    assert_eq!(seen.code, 18, "{}", seen.error);
    assert!((100_000..102_400).contains(&seen.size), "{}", seen.size);
    let small = curl(&client, &url("small"), &[]);
    assert_eq!((small.code, small.size), (0, 1024), "{}", small.error);
}

fn corrupt_reaches_the_client() {
    let world = World::new();
    let agent = Agent::start(&world);
    let server = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    agent.fault(&format!(
        "corrupt --share 0.1 --seed 3 --to port={}",
        port_of(&server)
    ));
    let client = world.place("client");
    let runs = [(); 2].map(|()| client.run_helper(&["bounce", &server, "200000"]).stdout);
    assert!(runs[0].starts_with("wrong bytes"), "{}", runs[0]);
    agent.clear();
    let clean = client.run_helper(&["bounce", &server, "200000"]).ok();
    assert_eq!(clean, "200000 bytes came back\n");
}

fn effects_are_chained() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let args = [
        "fault",
        "add",
        "latency",
        "--delay",
        "300ms",
        "--name",
        "chain",
        "--then",
        "bandwidth --rate 1MiB/s --direction response",
        "--then",
        "corrupt --share 1 --percent 0.0001",
        "--to",
    ];
    let to = format!("port={port}");
    agent.spike(&[&args[..], &[&to]].concat()).ok();
    let seen = curl(&client, &format!("http://127.0.0.1:{port}/mib"), &[]);
    assert_eq!((seen.code, seen.size), (0, 1 << 20), "{}", seen.error);
    // A second for the bytes, and the delay once.
    assert!(seen.time >= Duration::from_millis(1290), "{:?}", seen.time);
    let most = Duration::from_millis(1300) + needs::tolerance(Duration::from_millis(700));
    assert!(seen.time < most, "{:?}", seen.time);
    let listed = agent.spike(&["fault", "list"]).ok();
    let wanted = "latency 300ms response, then bandwidth 1MiB/s response, then corrupt 1% of bytes response for 0.0001%";
    assert!(listed.contains(wanted), "{listed}");
    // Effects of other levels stand alone.
    let refused = agent.spike(&["fault", "add", "refuse", "--then", "reset", "--everything"]);
    assert!(
        refused.code() != 0 && refused.stderr.contains("refuse"),
        "{}",
        refused.stderr
    );
}

fn distributions_are_armed() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    for distribution in ["normal", "pareto"] {
        agent.fault(&format!(
            "latency --delay 50ms --jitter 20ms --distribution {distribution} --seed 1 --to port={port}"
        ));
        let times: Vec<Duration> = (0..8).map(|_| curl(&client, &url, &[]).time).collect();
        agent.clear();
        let (least, most) = (times.iter().min(), times.iter().max());
        assert!(
            least
                .zip(most)
                .is_some_and(|(least, most)| *most - *least > Duration::from_millis(5)),
            "{times:?}"
        );
        if distribution == "pareto" {
            assert!(
                times.iter().all(|time| *time >= Duration::from_millis(50)),
                "{times:?}"
            );
        }
    }
}

fn bytes_survive_hot_changes() {
    let world = World::new();
    let agent = Agent::start(&world);
    let server = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    let port = port_of(&server);
    agent.fault(&format!("bandwidth --rate 10MiB/s --name hot --to port={port}"));
    let bouncing = start(
        world
            .place("client")
            .helper(&["bounce", &server, "40000000"])
            .stdin(Stdio::null()),
    );
    wait_for("the connection to be held", Duration::from_secs(5), || {
        (agent.fault_count("hot", "active") == 1).then_some(())
    });
    for effect in [
        "latency --delay 5ms --jitter 5ms --direction both",
        "slicer --size 900B --variation 800B --direction both",
        "timeout",
        "latency --delay 1h --direction both",
        "bandwidth --rate 20MiB/s",
        "slow_close --delay 50ms",
    ] {
        let args: Vec<&str> = ["fault", "change", "hot"]
            .into_iter()
            .chain(effect.split(' '))
            .collect();
        let start = Instant::now();
        agent.spike(&args).ok();
        assert!(
            start.elapsed() < needs::patience(Duration::from_secs(2)),
            "{effect} waited"
        );
        std::thread::sleep(Duration::from_millis(60));
    }
    // Faults that come while it is open leave it alone.
    agent.fault(&format!(
        "latency --delay 1h --direction both --name other --to port={port}"
    ));
    agent.spike(&["fault", "remove", "hot"]).ok();
    assert_eq!(finish(bouncing, "bounce").ok(), "40000000 bytes came back\n");
    assert_eq!(agent.fault_count("other", "matched"), 0);
}

/// A client that keeps one connection and asks when it is told to.
struct Holder {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Holder {
    fn start(place: &Place<'_>, server: &str) -> Self {
        let mut child = start(place.helper(&["hold", server]).stdin(Stdio::piped()));
        let mut said = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("read from hold");
        assert_eq!(line, "open\n");
        Self { child, said }
    }

    fn ask(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("its input");
        stdin.write_all(b"\n").expect("write to hold");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("read from hold");
        line
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn a_held_call_goes_on_at_once() {
    let world = World::new();
    let agent = Agent::start(&world);
    let server = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    let to = format!("--to port={}", port_of(&server));
    agent.fault(&format!("latency --delay 1h --name held {to}"));
    let mut holder = Holder::start(&world.place("client"), &server);
    for free in [
        &["fault", "change", "held", "latency", "--delay", "1ms"][..],
        &["fault", "remove", "held"],
    ] {
        agent
            .spike(&["fault", "change", "held", "latency", "--delay", "1h"])
            .ok();
        holder.ask();
        std::thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        agent.spike(free).ok();
        assert_eq!(holder.answer(), "answer ping\n");
        assert!(start.elapsed() < needs::patience(Duration::from_secs(2)));
    }
}

fn existing_keep_leaves_connections() {
    let world = World::new();
    let agent = Agent::start(&world);
    let server = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    let mut holder = Holder::start(&world.place("client"), &server);
    agent.fault(&format!("timeout --name stall --to port={}", port_of(&server)));
    holder.ask();
    assert_eq!(holder.answer(), "answer ping\n");
    assert_eq!(agent.fault_count("stall", "closed"), 0);
}

fn existing_reset_brings_a_pool_back() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = redis(&world, &world.place("db"));
    let (pool, other) = (world.place("pool"), world.place("other"));
    let server = format!("127.0.0.1:{port}");
    // A connection that is kept, and opened again when it breaks, is what a pool does.
    let mut pools: Vec<Child> = (0..3)
        .map(|_| start(pool.helper(&["steady", &server]).stdin(Stdio::piped())))
        .collect();
    let bystander = start(other.helper(&["steady", &server]).stdin(Stdio::piped()));
    std::thread::sleep(Duration::from_millis(500));
    agent.fault(&format!(
        "latency --delay 300ms --name slow --existing reset --from {}",
        pool.selector()
    ));
    assert!(agent.fault_count("slow", "closed") >= 1);
    wait_for("the pools to come back", Duration::from_secs(10), || {
        (agent.fault_count("slow", "active") >= 3).then_some(())
    });
    std::thread::sleep(Duration::from_millis(1500));
    for child in pools.drain(..) {
        let said = finish(child, "steady").ok();
        let words: Vec<&str> = said.lines().last().unwrap_or_default().split(' ').collect();
        let ["good", good, "bad", bad, "slowest", slowest, "ms"] = words[..] else {
            panic!("steady said {said}");
        };
        let [good, bad, slowest] = [good, bad, slowest].map(|text| text.parse::<u64>().expect("a number"));
        assert!(good >= 1 && (1..=2).contains(&bad) && slowest >= 300, "{said}");
    }
    let said = finish(bystander, "steady").ok();
    assert!(said.contains(" bad 0 "), "{said}");
}

fn existing_reset_reaches_other_namespaces() {
    let world = World::new();
    let agent = Agent::start(&world);
    let netns = world.namespace();
    spike_tests::world::ip(&["-n", &netns, "link", "set", "lo", "up"]);
    let place = world.place("inside").within(&netns);
    let server = workload::server(&world, &place, "echo", "127.0.0.1:0");
    let mut holder = Holder::start(&place, &server);
    holder.ask();
    assert_eq!(holder.answer(), "answer ping\n");
    agent.fault(&format!(
        "latency --delay 1ms --name ns --existing reset --to port={}",
        port_of(&server)
    ));
    assert_eq!(agent.fault_count("ns", "closed"), 1);
    holder.ask();
    let said = holder.answer();
    assert!(!said.starts_with("answer"), "{said}");
}

fn existing_reset_ends_sessions_of_pgbench() {
    let Some(bin) = workload::postgres_bin() else {
        needs::skip("no PostgreSQL server here");
    };
    let world = World::new();
    let agent = Agent::start(&world);
    let port = workload::postgres(&world, &world.place("db"), &bin).to_string();
    let client = world.place("client");
    let pgbench = bin.join("pgbench").display().to_string();
    let base = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "postgres"];
    client.run(&pgbench, &[&["-i", "-q"][..], &base].concat()).ok();
    let bench =
        |seconds: &str| client.start(&pgbench, &[&["-S", "-c", "3", "-T", seconds][..], &base].concat());
    let running = bench("4");
    std::thread::sleep(Duration::from_millis(1000));
    agent.fault(&format!("latency --delay 50ms --name kept --to port={port}"));
    // Sessions that were there go on.
    assert!(
        finish(running, "pgbench")
            .ok()
            .contains("number of failed transactions: 0")
    );
    agent.clear();
    let running = bench("20");
    std::thread::sleep(Duration::from_millis(1000));
    let start = Instant::now();
    agent.fault(&format!(
        "latency --delay 50ms --name moved --existing reset --to port={port}"
    ));
    assert_eq!(agent.fault_count("moved", "closed"), 3);
    let done = finish(running, "pgbench");
    assert!(
        done.code() != 0 && start.elapsed() < Duration::from_secs(15),
        "{}{}",
        done.stdout,
        done.stderr
    );
    // New sessions come through the fault.
    let slow = finish(bench("2"), "pgbench").ok();
    let average = slow
        .lines()
        .find_map(|line| line.strip_prefix("latency average = ")?.strip_suffix(" ms"));
    assert!(
        average
            .and_then(|text| text.parse::<f64>().ok())
            .is_some_and(|ms| ms >= 50.0),
        "{slow}"
    );
}

fn a_dry_run_counts_and_does_nothing() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    for effect in ["reset", "refuse", "timeout"] {
        agent.fault(&format!(
            "{effect} --name {effect} --dry-run --percent 50 --seed 1 --to port={port}"
        ));
    }
    let list = agent.json(&["fault", "list"]);
    assert_eq!(list["faults"][0]["note"], "no matching call seen");
    for _ in 0..10 {
        assert_eq!(curl(&client, &url, &[]).code, 0);
    }
    for name in ["reset", "refuse", "timeout"] {
        wait_for("the calls to be counted", Duration::from_secs(3), || {
            (agent.fault_count(name, "matched") == 10).then_some(())
        });
        let (affected, escaped) = (
            agent.fault_count(name, "affected"),
            agent.fault_count(name, "escaped"),
        );
        assert!(
            affected + escaped == 10 && affected > 0 && escaped > 0,
            "{affected} {escaped}"
        );
    }
    // The same seed then hits the same number.
    let would = agent.fault_count("refuse", "affected");
    agent.clear();
    agent.fault(&format!(
        "refuse --name refuse --percent 50 --seed 1 --to port={port}"
    ));
    let failed = (0..10).filter(|_| curl(&client, &url, &[]).code != 0).count() as u64;
    assert_eq!(failed, would);
}

fn a_fault_aborts_when_calls_fail() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    agent.fault(&format!(
        "refuse --name cruel --abort-when errors=20,window=1s --to port={port}"
    ));
    agent.fault(&format!(
        "latency --delay 1ms --name mild --abort-when errors=99,p99=5s,window=1s --to port={}",
        free_port()
    ));
    let start = Instant::now();
    wait_for("the fault to abort", Duration::from_secs(15), || {
        (curl(&client, &url, &[]).code == 0).then_some(())
    });
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "it took more than one look"
    );
    let log = agent.json(&["fault", "log"]);
    let entries = log["entries"].as_array().cloned().unwrap_or_default();
    let aborted = entries.iter().find(|entry| entry["event"] == "aborted");
    let aborted = aborted.unwrap_or_else(|| panic!("no fault aborted: {log:#}"));
    assert_eq!(
        (&aborted["fault"], &aborted["by"]["door"]),
        (&"cruel".into(), &"agent".into())
    );
    let why = aborted["why"].as_str().unwrap_or_default();
    assert!(
        why.contains("connections failed within 1s, more than 20 %"),
        "{why}"
    );
    assert_eq!(agent.fault_count("mild", "affected"), 0);
}

fn the_audit_log_tells_the_story() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    agent.fault(&format!("latency --delay 1ms --name told --to port={port}"));
    curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{port}/small"),
        &[],
    );
    agent.spike(&["fault", "change", "told", "reset"]).ok();
    agent.spike(&["fault", "remove", "told"]).ok();
    agent.fault(&format!("refuse --name brief --ttl 1s --to port={port}"));
    wait_for("the fault to expire", Duration::from_secs(5), || {
        let list = agent.json(&["fault", "list"]);
        (list["faults"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
    agent.fault(&format!("refuse --name last --to port={port}"));
    let log = agent.json(&["fault", "log"]);
    let entries = log["entries"].as_array().cloned().unwrap_or_default();
    let story: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| {
            (
                entry["event"].as_str().unwrap_or(""),
                entry["fault"].as_str().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(
        story,
        [
            ("armed", "told"),
            ("changed", "told"),
            ("removed", "told"),
            ("armed", "brief"),
            ("expired", "brief"),
            ("armed", "last"),
        ]
    );
    assert_eq!(
        (&entries[0]["by"]["door"], &entries[0]["by"]["uid"]),
        (&"unix".into(), &0.into())
    );
    assert_eq!(
        (&entries[2]["matched"], &entries[2]["affected"]),
        (&1.into(), &1.into())
    );
    assert_eq!(entries[0]["spec"]["effect"]["delay"], "1ms");
    let table = agent.spike(&["fault", "log", "--last", "1"]).ok();
    assert!(
        table.contains("armed") && table.contains("last") && !table.contains("brief"),
        "{table}"
    );
    assert_eq!(agent.terminate(), Some(0));
    // It outlives the agent, and tells how the last fault ended.
    let file = world.path("state").join("audit.jsonl");
    let mode = std::fs::metadata(&file)
        .expect("the audit log")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).expect("read the audit log");
    assert!(
        text.lines()
            .last()
            .is_some_and(|line| line.contains("agent_stopped")),
        "{text}"
    );
}
