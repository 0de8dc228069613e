//! Toxiproxy's own clients, unchanged, against the agent.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use spike_tests::{
    agent::{self, Agent},
    needs,
    world::{Place, World, ip},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("python_client", python_client),
    ("node_client", node_client),
    ("rust_client", rust_client),
    (
        "shows_as_a_fault_and_goes_with_the_agent",
        shows_as_a_fault_and_goes_with_the_agent,
    ),
];

/// Where `scripts/setup.sh --test` puts the clients.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/toxiproxy-clients")
}

fn needs(path: &Path) {
    if path.exists() {
        return;
    }
    let what = format!("no {}: run scripts/setup.sh --test", path.display());
    assert!(std::env::var_os("CI").is_none(), "{what}");
    needs::skip(what);
}

/// An agent with the door at the port that the clients expect, in a namespace where that port is free.
fn agent_in(world: &World) -> (Agent, String) {
    let netns = world.namespace();
    ip(&["-n", &netns, "link", "set", "lo", "up"]);
    let mut command = world.place("agent").within(&netns).command(agent::spike_bin());
    let same = agent::command(world);
    command
        .args(same.get_args())
        .args(["--toxiproxy", "127.0.0.1:8474"]);
    (Agent::start_with(world, command), netns)
}

fn run(place: &Place<'_>, command: &mut Command) -> String {
    let done = spike_tests::world::finish(spike_tests::world::start(command), "the client");
    let said = format!("{}{}", done.stdout, done.stderr);
    assert_eq!(done.code(), 0, "{place:?}: {said}");
    said
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn python_client() {
    let library = clients().join("python");
    needs(&library);
    let world = World::new();
    let (_agent, netns) = agent_in(&world);
    let place = world.place("client").within(&netns);
    let mut command = place.command("python3");
    command
        .arg(script("toxiproxy_client.py"))
        .env("PYTHONPATH", library);
    let said = run(&place, &mut command);
    assert!(said.contains("all passed"), "{said}");
}

fn node_client() {
    let library = clients().join("node/node_modules");
    needs(&library);
    let world = World::new();
    let (_agent, netns) = agent_in(&world);
    let place = world.place("client").within(&netns);
    let mut command = place.command("node");
    command
        .arg(script("toxiproxy_client.cjs"))
        .env("NODE_PATH", library);
    let said = run(&place, &mut command);
    assert!(said.contains("all passed"), "{said}");
}

fn rust_client() {
    // The crate's own tests, as they are.
    let program = clients().join("rust/toxiproxy_rust_tests");
    needs(&program);
    let world = World::new();
    let (_agent, netns) = agent_in(&world);
    let place = world.place("client").within(&netns);
    let mut command = place.command(&program);
    command.args(["--test-threads", "1"]);
    let said = run(&place, &mut command);
    assert!(said.contains("11 passed; 0 failed"), "{said}");
}

fn shows_as_a_fault_and_goes_with_the_agent() {
    let world = World::new();
    let (agent, netns) = agent_in(&world);
    let place = world.place("client").within(&netns);
    let ask = |method: &str, path: &str, body: &str| {
        let url = format!("http://127.0.0.1:8474{path}");
        place.run("curl", &["-sS", "-X", method, "-d", body, &url]).ok()
    };
    let made = ask(
        "POST",
        "/proxies",
        r#"{"name":"a b","listen":"127.0.0.1:0","upstream":"127.0.0.1:8474"}"#,
    );
    let made: serde_json::Value = serde_json::from_str(&made).expect("the proxy");
    let listen = made["listen"].as_str().expect("where it listens").to_owned();
    ask(
        "POST",
        "/proxies/a%20b/toxics",
        r#"{"type":"latency","attributes":{"latency":300}}"#,
    );
    let listed = agent.spike(&["fault", "list"]).ok();
    assert!(
        listed.contains("a-b") && listed.contains("latency 300ms response"),
        "{listed}"
    );
    let through = spike_tests::oracle::curl(&place, &format!("http://{listen}/version"), &[]);
    assert!(
        through.code == 0 && through.time.as_millis() >= 300,
        "{through:?}"
    );
    assert_eq!(agent.fault_count("a-b", "affected"), 1);
    let log = agent.spike(&["fault", "log"]).ok();
    assert!(log.contains("toxiproxy"), "{log}");
    // What is removed as a fault leaves a proxy that does nothing.
    agent.spike(&["panic"]).ok();
    let plain = spike_tests::oracle::curl(&place, &format!("http://{listen}/version"), &[]);
    assert!(plain.code == 0 && plain.time.as_millis() < 300, "{plain:?}");
    agent.kill9();
    assert_ne!(
        spike_tests::oracle::curl(&place, &format!("http://{listen}/version"), &[]).code,
        0
    );
}
