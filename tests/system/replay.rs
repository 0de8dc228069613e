//! Replays: a recording in the place of servers that are down.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use spike_tests::{
    agent::Agent,
    needs,
    tools::{packages, python_module, script},
    wait_for,
    workload::{free_port, postgres, postgres_bin, redis, wait_for_listener},
    world::{Done, Place, World, finish, kill},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_suite_passes_with_its_servers_stopped", a_suite_passes_with_its_servers_stopped),
    ("grpc_passes_with_its_server_stopped", grpc_passes_with_its_server_stopped),
    ("faults_apply_to_what_is_stubbed", faults_apply_to_what_is_stubbed),
    ("misses_are_listed_with_the_nearest", misses_are_listed_with_the_nearest),
    ("nothing_is_left_when_the_agent_is_killed", nothing_is_left_when_the_agent_is_killed),
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
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
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
    let (database, cache, rates) = (postgres(&servers, &place, &bin), redis(&servers, &place), free_port());
    let rates_text = rates.to_string();
    serve(&servers, &place, "json_rates.py", &[&rates_text]);
    wait_for_listener(&format!("127.0.0.1:{rates}"));
    let table = "CREATE TABLE orders (id serial PRIMARY KEY, customer text, item text, cents int)";
    let made = Command::new(bin.join("psql"))
        .args(["-h", "127.0.0.1", "-p", &database.to_string(), "-U", "postgres", "-c", table])
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
        let done = exec(&agent, &shell, &["--stub", &file, "--strict"], "orders_suite.py", &ports);
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
        let done = exec(&agent, &shell, &["--stub", &file, "--strict"], "grpc_shop.py", &args);
        assert_eq!(done.code(), 0, "run {run}: {}{}", done.stdout, done.stderr);
    }
    // What was not recorded is UNAVAILABLE, with the nearest, and a strict run tells.
    let args = ["test", text.as_str(), "coffee"];
    let done = exec(&agent, &shell, &["--stub", &file, "--strict"], "grpc_shop.py", &args);
    assert_eq!(done.code(), 3, "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("nearest: /shop.Shop/Price; message.1: recorded "), "{}", done.stdout);
}

/// A recording of curl's calls to a server that has ended since; gives its port.
fn recorded_rates(world: &World, agent: &Agent, file: &str) -> u16 {
    let port = free_port();
    let server = serve(world, &world.place("rates"), "json_rates.py", &[&port.to_string()]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    agent.spike(&["record", "start", "--to", &format!("port={port}"), "-o", file]).ok();
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
    agent.spike(&["replay", "stub", &file, "--detach", "--name", "rates"]).ok();
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
    agent.spike(&["replay", "stub", &file, "--detach", "--name", "rates"]).ok();
    let told = shell.run("curl", &["-sS", "-w", "%{http_code}", &url(port, "USD")]).ok();
    assert!(told.ends_with("502") && told.contains("query.to: recorded "), "{told}");
    let list = agent.json(&["replay", "misses", "rates"]);
    let miss = &list["misses"][0];
    assert_eq!(miss["request"], "GET /rates?to=USD", "{list}");
    assert_eq!(miss["differences"][0]["part"], "query.to", "{list}");
    assert_eq!(miss["differences"][0]["came"], "USD", "{list}");
    assert_eq!(list["misses"].as_array().map(Vec::len), Some(1), "{list}");
    // With the real one back, a miss may pass and be kept.
    agent.spike(&["replay", "stop", "rates"]).ok();
    agent.spike(&["replay", "stub", &file, "--detach", "--name", "rates", "--miss", "record"]).ok();
    let server = serve(&world, &world.place("rates"), "json_rates.py", &[&port.to_string(), "2.5"]);
    let ready = || {
        let told = shell.run("curl", &["-sS", &url(port, "EUR") .replace("to=EUR", "to=EUR&x=1")]);
        told.stdout.contains("2.5").then_some(())
    };
    wait_for("the real server to answer a miss", Duration::from_secs(10), ready);
    stop(server, port);
    assert!(ready().is_some());
    // What was recorded is still what is answered.
    assert!(shell.run("curl", &["-sS", &url(port, "EUR")]).ok().contains("1.087"));
    let list = agent.json(&["replay", "list"]);
    assert!(list["replays"][0]["passed"].as_u64() >= Some(1), "{list}");
}

fn nothing_is_left_when_the_agent_is_killed() {
    let world = World::new();
    let agent = Agent::start(&world);
    let file = world.path("rates.spike").display().to_string();
    let port = recorded_rates(&world, &agent, &file);
    agent.spike(&["replay", "stub", &file, "--detach"]).ok();
    let shell = world.place("shell");
    assert!(shell.run("curl", &["-sS", &url(port, "EUR")]).ok().contains("1.087"));
    agent.kill9();
    let server = serve(&world, &world.place("rates"), "json_rates.py", &[&port.to_string(), "2.5"]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    assert!(shell.run("curl", &["-sS", &url(port, "EUR")]).ok().contains("2.5"));
    stop(server, port);
    let (code, said) = Agent::check_leftovers(&world);
    assert_eq!(code, 0, "{said}");
}
