//! Replays: a recording in the place of servers that are down.

mod drive;
mod names;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use spike_tests::{
    agent::Agent,
    needs,
    tools::{packages, python, python_module, script},
    wait_for,
    workload::{free_port, postgres, postgres_bin, redis, wait_for_listener},
    world::{Done, Place, World, finish, kill},
};

use crate::{Test, record::sql};
use drive::{
    drive_asks_names_again, drive_keeps_the_recorded_spacing, drive_sends_postgres_again,
    faults_apply_to_what_is_driven,
};
use names::names_resolve_with_their_server_stopped;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_suite_passes_with_its_servers_stopped",
        a_suite_passes_with_its_servers_stopped,
    ),
    (
        "grpc_passes_with_its_server_stopped",
        grpc_passes_with_its_server_stopped,
    ),
    (
        "names_resolve_with_their_server_stopped",
        names_resolve_with_their_server_stopped,
    ),
    ("faults_apply_to_what_is_stubbed", faults_apply_to_what_is_stubbed),
    (
        "misses_are_listed_with_the_nearest",
        misses_are_listed_with_the_nearest,
    ),
    (
        "drive_finds_the_one_changed_answer",
        drive_finds_the_one_changed_answer,
    ),
    (
        "drive_sends_redis_and_grpc_again",
        drive_sends_redis_and_grpc_again,
    ),
    ("drive_sends_postgres_again", drive_sends_postgres_again),
    ("drive_asks_names_again", drive_asks_names_again),
    (
        "drive_keeps_the_recorded_spacing",
        drive_keeps_the_recorded_spacing,
    ),
    ("faults_apply_to_what_is_driven", faults_apply_to_what_is_driven),
    (
        "a_service_is_stood_in_for_by_its_name",
        a_service_is_stood_in_for_by_its_name,
    ),
    ("panic_ends_stubs_and_recordings", panic_ends_stubs_and_recordings),
    (
        "nothing_is_left_when_the_agent_is_killed",
        nothing_is_left_when_the_agent_is_killed,
    ),
];

/// A script of the tests' own, in a place, that runs until the world ends or it is stopped.
fn serve(world: &World, place: &Place<'_>, name: &str, args: &[&str]) -> u32 {
    let mut command = place.command("python3");
    command
        .arg(script(name))
        .args(args)
        .env("PYTHONPATH", packages("python"));
    world.keep(command.spawn().expect("start the script"))
}

/// `spike exec` of a script in Python, within a place.
fn exec(agent: &Agent, place: &Place<'_>, options: &[&str], name: &str, args: &[&str]) -> Done {
    let mut command = place.command(spike_tests::agent::spike_bin());
    command
        .arg("exec")
        .args(options)
        .args(["--", "python3"])
        .arg(script(name))
        .args(args)
        .env("SPIKE_SOCKET", agent.socket())
        .env("PYTHONPATH", packages("python"));
    finish(spike_tests::world::start(&mut command), "spike exec")
}

/// Stops a server, and waits until nobody listens there.
fn stop(pid: u32, port: u16) {
    kill(pid, libc::SIGKILL);
    is_down(port);
}

fn is_down(port: u16) {
    wait_for("nobody to listen", Duration::from_secs(10), || {
        std::net::TcpStream::connect(("127.0.0.1", port))
            .is_err()
            .then_some(())
    });
}

fn a_suite_passes_with_its_servers_stopped() {
    python_module("psycopg2");
    python_module("redis");
    let Some(bin) = postgres_bin() else {
        needs::skip("no PostgreSQL here: run scripts/setup.sh --test");
    };
    let servers = World::new();
    let world = World::new();
    let agent = Agent::start(&world);
    let place = servers.place("servers");
    let (database, cache, rates) = (
        postgres(&servers, &place, &bin),
        redis(&servers, &place),
        free_port(),
    );
    let rates_text = rates.to_string();
    serve(&servers, &place, "json_rates.py", &[&rates_text]);
    wait_for_listener(&format!("127.0.0.1:{rates}"));
    let table = "CREATE TABLE orders (id serial PRIMARY KEY, customer text, item text, cents int)";
    let made = Command::new(bin.join("psql"))
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &database.to_string(),
            "-U",
            "postgres",
            "-c",
            table,
        ])
        .output()
        .expect("run psql");
    assert!(made.status.success(), "{made:?}");
    let ports = [free_port(), database, cache, rates].map(|port| port.to_string());
    let ports = ports.each_ref().map(String::as_str);
    let file = world.path("suite.spike").display().to_string();
    let shell = world.place("shell");
    let recorded = exec(&agent, &shell, &["--record", &file], "orders_suite.py", &ports);
    assert_eq!(recorded.code(), 0, "recording: {}", recorded.stderr);

    drop(servers);
    for port in [database, cache, rates] {
        is_down(port);
    }
    // Without the recording it cannot pass.
    let alone = exec(&agent, &shell, &[], "orders_suite.py", &ports);
    assert_ne!(alone.code(), 0, "{}", alone.stderr);
    for run in 1..=10 {
        let done = exec(
            &agent,
            &shell,
            &["--stub", &file, "--strict"],
            "orders_suite.py",
            &ports,
        );
        assert_eq!(done.code(), 0, "run {run}: {}{}", done.stdout, done.stderr);
    }
    let list = agent.json(&["replay", "list"]);
    assert_eq!(list["replays"].as_array().map(Vec::len), Some(0), "{list}");
}

fn grpc_passes_with_its_server_stopped() {
    python_module("grpc");
    let world = World::new();
    let agent = Agent::start(&world);
    let port = free_port();
    let text = port.to_string();
    let server = serve(&world, &world.place("server"), "grpc_shop.py", &["serve", &text]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    let file = world.path("grpc.spike").display().to_string();
    let shell = world.place("shell");
    let args = ["test", text.as_str()];
    let recorded = exec(&agent, &shell, &["--record", &file], "grpc_shop.py", &args);
    assert_eq!(recorded.code(), 0, "recording: {}", recorded.stderr);
    stop(server, port);
    for run in 1..=10 {
        let done = exec(
            &agent,
            &shell,
            &["--stub", &file, "--strict"],
            "grpc_shop.py",
            &args,
        );
        assert_eq!(done.code(), 0, "run {run}: {}{}", done.stdout, done.stderr);
    }
    // What was not recorded is UNAVAILABLE, with the nearest, and a strict run tells.
    let args = ["test", text.as_str(), "coffee"];
    let done = exec(
        &agent,
        &shell,
        &["--stub", &file, "--strict"],
        "grpc_shop.py",
        &args,
    );
    assert_eq!(done.code(), 3, "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout
            .contains("nearest: /shop.Shop/Price; message.1: recorded "),
        "{}",
        done.stdout
    );
}

/// A recording of curl's calls to a server that has ended since; gives its port.
fn recorded_rates(world: &World, agent: &Agent, file: &str) -> u16 {
    let port = free_port();
    let server = serve(
        world,
        &world.place("rates"),
        "json_rates.py",
        &[&port.to_string()],
    );
    wait_for_listener(&format!("127.0.0.1:{port}"));
    agent
        .spike(&["record", "start", "--to", &format!("port={port}"), "-o", file])
        .ok();
    let shell = world.place("shell");
    for currency in ["EUR", "CHF"] {
        shell.run("curl", &["-sSf", &url(port, currency)]).ok();
    }
    agent.spike(&["record", "stop"]).ok();
    stop(server, port);
    port
}

fn url(port: u16, currency: &str) -> String {
    format!("http://127.0.0.1:{port}/rates?to={currency}")
}

fn faults_apply_to_what_is_stubbed() {
    let world = World::new();
    let agent = Agent::start(&world);
    let file = world.path("rates.spike").display().to_string();
    let port = recorded_rates(&world, &agent, &file);
    let shell = world.place("shell");
    agent
        .spike(&["replay", "stub", &file, "--detach", "--name", "rates"])
        .ok();
    let timed = || {
        let begun = Instant::now();
        let told = shell.run("curl", &["-sSf", &url(port, "EUR")]).ok();
        assert!(told.contains("\"rate\": 1.087"), "{told}");
        begun.elapsed()
    };
    timed();
    agent.fault(&format!("latency --delay 600ms --to port={port} --name slow"));
    assert!(timed() >= Duration::from_millis(600));
    assert_eq!(agent.fault_count("slow", "affected"), 1);
    agent.clear();
    agent.fault(&format!("reset --to port={port}"));
    let done = shell.run("curl", &["-sS", &url(port, "EUR")]);
    assert_ne!(done.code(), 0);
    agent.clear();
    agent.spike(&["replay", "stop", "rates"]).ok();
    let done = shell.run("curl", &["-sS", &url(port, "EUR")]);
    assert_eq!(done.code(), 7, "the server is down: {}", done.stderr);
}

fn misses_are_listed_with_the_nearest() {
    let world = World::new();
    let agent = Agent::start(&world);
    let file = world.path("rates.spike").display().to_string();
    let port = recorded_rates(&world, &agent, &file);
    let shell = world.place("shell");
    agent
        .spike(&["replay", "stub", &file, "--detach", "--name", "rates"])
        .ok();
    let told = shell
        .run("curl", &["-sS", "-w", "%{http_code}", &url(port, "USD")])
        .ok();
    assert!(
        told.ends_with("502") && told.contains("query.to: recorded "),
        "{told}"
    );
    let list = agent.json(&["replay", "misses", "rates"]);
    let miss = &list["misses"][0];
    assert_eq!(miss["request"], "GET /rates?to=USD", "{list}");
    assert_eq!(miss["differences"][0]["part"], "query.to", "{list}");
    assert_eq!(miss["differences"][0]["came"], "USD", "{list}");
    assert_eq!(list["misses"].as_array().map(Vec::len), Some(1), "{list}");
    // With the real one back, a miss may pass and be kept.
    agent.spike(&["replay", "stop", "rates"]).ok();
    agent
        .spike(&[
            "replay", "stub", &file, "--detach", "--name", "rates", "--miss", "record",
        ])
        .ok();
    let server = serve(
        &world,
        &world.place("rates"),
        "json_rates.py",
        &[&port.to_string(), "2.5"],
    );
    let ready = || {
        let told = shell.run(
            "curl",
            &["-sS", &url(port, "EUR").replace("to=EUR", "to=EUR&x=1")],
        );
        told.stdout.contains("2.5").then_some(())
    };
    wait_for("the real server to answer a miss", Duration::from_secs(10), ready);
    stop(server, port);
    assert!(ready().is_some());
    // What was recorded is still what is answered.
    assert!(
        shell
            .run("curl", &["-sS", &url(port, "EUR")])
            .ok()
            .contains("1.087")
    );
    let list = agent.json(&["replay", "list"]);
    assert!(list["replays"][0]["passed"].as_u64() >= Some(1), "{list}");
    // It is in the recording, too, and the next stub has it.
    agent.spike(&["replay", "stop", "rates"]).ok();
    assert_eq!(sql(&file, "SELECT count(*) FROM call"), "3");
    agent
        .spike(&["replay", "stub", &file, "--detach", "--name", "rates"])
        .ok();
    assert!(ready().is_some());
}

fn a_service_is_stood_in_for_by_its_name() {
    let world = World::new();
    let agent = Agent::start(&world);
    let file = world.path("rates.spike").display().to_string();
    let port = recorded_rates(&world, &agent, &file);
    let service = sql(&file, "SELECT DISTINCT callee FROM connection");
    assert!(!service.is_empty() && !service.contains(':'), "{service}");
    let shell = world.place("shell");
    let ask = |to: &str| {
        let stub = ["replay", "stub", &file, "--detach", "--name", "rates", "--to", to];
        agent.spike(&stub).ok();
        let done = shell.run("curl", &["-sS", &url(port, "EUR")]);
        agent.spike(&["replay", "stop", "rates"]).ok();
        done
    };
    // Nobody listens there now who could be known by this name: it is the recording's.
    assert!(ask(&format!("service={service}")).ok().contains("1.087"));
    assert_eq!(ask("service=another").code(), 7);
    assert_eq!(ask(&format!("service={service},port=1")).code(), 7);
}

fn panic_ends_stubs_and_recordings() {
    let world = World::new();
    let agent = Agent::start(&world);
    let file = world.path("rates.spike").display().to_string();
    let port = recorded_rates(&world, &agent, &file);
    agent.spike(&["replay", "stub", &file, "--detach"]).ok();
    let other = world.path("other.spike").display().to_string();
    agent
        .spike(&["record", "start", "--to", &format!("port={port}"), "-o", &other])
        .ok();
    let told = agent.spike(&["status"]).ok();
    let line = |name: &str| {
        told.lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned)
    };
    assert_eq!(line("recordings").as_deref(), Some("recordings 1"), "{told}");
    assert_eq!(line("stubs").as_deref(), Some("stubs      1"), "{told}");
    let told = agent.spike(&["panic"]).ok();
    assert!(told.contains("1 recordings stopped, 1 stubs ended"), "{told}");
    let status = agent.json(&["status"]);
    assert_eq!(
        (&status["recordings"], &status["stubs"]),
        (&0.into(), &0.into()),
        "{status}"
    );
    let done = world.place("shell").run("curl", &["-sS", &url(port, "EUR")]);
    assert_eq!(done.code(), 7, "the server is down: {}", done.stderr);
}

fn nothing_is_left_when_the_agent_is_killed() {
    let world = World::new();
    let agent = Agent::start(&world);
    let file = world.path("rates.spike").display().to_string();
    let port = recorded_rates(&world, &agent, &file);
    agent.spike(&["replay", "stub", &file, "--detach"]).ok();
    let shell = world.place("shell");
    assert!(
        shell
            .run("curl", &["-sS", &url(port, "EUR")])
            .ok()
            .contains("1.087")
    );
    agent.kill9();
    let server = serve(
        &world,
        &world.place("rates"),
        "json_rates.py",
        &[&port.to_string(), "2.5"],
    );
    wait_for_listener(&format!("127.0.0.1:{port}"));
    assert!(
        shell
            .run("curl", &["-sS", &url(port, "EUR")])
            .ok()
            .contains("2.5")
    );
    stop(server, port);
    let (code, said) = Agent::check_leftovers(&world);
    assert_eq!(code, 0, "{said}");
}

/// `spike replay drive` with what else is said; the report and the exit code.
fn drive(agent: &Agent, file: &str, target: &str, words: &[&str]) -> (Value, i32) {
    let args = [&["replay", "drive", file, "--target", target, "--json"], words].concat();
    let done = agent.spike(&args);
    let report = serde_json::from_str(&done.stdout);
    (
        report.unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr)),
        done.code(),
    )
}

fn drive_finds_the_one_changed_answer() {
    let world = World::new();
    let agent = Agent::start(&world);
    let files = ["a", "b"].map(|name| world.path(&format!("{name}.spike")).display().to_string());
    for file in &files {
        recorded_rates(&world, &agent, file);
    }
    let again = |rate: &str| {
        let port = free_port();
        let pid = serve(
            &world,
            &world.place("rates"),
            "json_rates.py",
            &[&port.to_string(), rate],
        );
        wait_for_listener(&format!("127.0.0.1:{port}"));
        (pid, format!("http://127.0.0.1:{port}"))
    };
    let (_, target) = again("1.087");
    // Each answer has an id and a time of its own: noise, as two recordings tell.
    let (report, code) = drive(&agent, &files[0], &target, &[]);
    assert_eq!((code, &report["different"]), (1, &Value::from(2)), "{report}");
    let noise = world.path("noise.toml").display().to_string();
    agent
        .spike(&["replay", "learn", &files[0], &files[1], "-o", &noise])
        .ok();
    let (report, code) = drive(&agent, &files[0], &target, &["--noise", &noise]);
    assert_eq!((code, &report["same"]), (0, &Value::from(2)), "{report}");
    let (_, target) = again("1.1");
    let (junit, html) = (world.path("a.xml"), world.path("a.html"));
    let outputs = [junit.display().to_string(), html.display().to_string()];
    let words = ["--noise", &noise, "--junit", &outputs[0], "--html", &outputs[1]];
    let (report, code) = drive(&agent, &files[0], &target, &words);
    assert_eq!(code, 1);
    let wrong = report["calls"].as_array().expect("the calls").iter();
    let wrong: Vec<_> = wrong.filter(|call| !call["differences"].is_null()).collect();
    assert_eq!(wrong.len(), 1, "{report}");
    assert_eq!(wrong[0]["call"], "GET /rates?to=EUR", "{report}");
    let differences = serde_json::json!(["body.rate: recorded 1.087, came 1.1"]);
    assert_eq!(wrong[0]["differences"], differences, "{report}");
    // Others read what was written.
    let check = "import sys, xml.etree.ElementTree as tree\n\
                 suite = tree.parse(sys.argv[1]).getroot()[0]\n\
                 assert (suite.get('tests'), suite.get('failures')) == ('2', '1')\n\
                 assert len(suite.findall('testcase/failure')) == 1\n\
                 from html.parser import HTMLParser\n\
                 page = open(sys.argv[2]).read(); HTMLParser().feed(page)\n\
                 assert '<svg' in page and 'src=' not in page and '<script' not in page\n";
    let mut command = python();
    command.args(["-c", check]).args(&outputs);
    finish(spike_tests::world::start(&mut command), "python").ok();
}

fn drive_sends_redis_and_grpc_again() {
    python_module("grpc");
    let world = World::new();
    let agent = Agent::start(&world);
    let place = world.place("servers");
    let shell = world.place("shell");
    // Redis: what is asked of an empty server again has the same answers.
    let cache = redis(&world, &place);
    let file = world.path("redis.spike").display().to_string();
    agent
        .spike(&["record", "start", "--to", &format!("port={cache}"), "-o", &file])
        .ok();
    for words in ["SET a 1", "INCR a", "GET a", "LPUSH l x"] {
        let port = cache.to_string();
        let args: Vec<_> = ["-p", &port].into_iter().chain(words.split(' ')).collect();
        shell.run("redis-cli", &args).ok();
    }
    agent.spike(&["record", "stop"]).ok();
    let fresh = redis(&world, &place);
    let target = format!("127.0.0.1:{fresh}");
    let (report, code) = drive(&agent, &file, &target, &["--speed", "20x"]);
    assert_eq!((code, &report["same"]), (0, &report["requests"]), "{report}");
    assert!(report["requests"].as_u64() >= Some(4), "{report}");
    // Once more, the list is longer: that is found.
    let (report, code) = drive(&agent, &file, &target, &["--speed", "20x"]);
    assert_eq!((code, &report["different"]), (1, &Value::from(1)), "{report}");
    // gRPC.
    let port = free_port().to_string();
    let server = format!("127.0.0.1:{port}");
    serve(&world, &place, "grpc_shop.py", &["serve", &port]);
    wait_for_listener(&server);
    let file = world.path("grpc.spike").display().to_string();
    let recorded = exec(
        &agent,
        &shell,
        &["--record", &file],
        "grpc_shop.py",
        &["test", &port],
    );
    assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
    let (report, code) = drive(&agent, &file, &server, &[]);
    assert_eq!((code, &report["same"]), (0, &Value::from(5)), "{report}");
}
