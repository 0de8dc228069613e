//! Each key that a caller or a destination can be chosen by, as calls that are refused or reset, and others that are not.

use std::{os::unix::fs::symlink, process::Command, time::Duration};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::curl,
    wait_for,
    workload::{free_port, nginx, redis},
    world::{Place, World, ip},
};

use crate::{
    Test,
    calls::{dns, own_address},
};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_name_that_a_program_was_invoked_by",
        a_name_that_a_program_was_invoked_by,
    ),
    ("a_user", a_user),
    ("a_network_namespace", a_network_namespace),
    ("a_source_address_and_port", a_source_address_and_port),
    ("a_unit_and_a_container", a_unit_and_a_container),
    ("a_service_that_starts_later", a_service_that_starts_later),
    ("the_process_that_listens", the_process_that_listens),
    ("a_host_that_is_resolved_later", a_host_that_is_resolved_later),
    ("a_host_of_the_hosts_own", a_host_of_the_hosts_own),
    ("bad_selectors_are_told", bad_selectors_are_told),
];

/// curl's exit code when the attempt to connect fails.
const CANNOT_CONNECT: i32 = 7;

fn is_refused(place: &Place<'_>, url: &str) -> bool {
    let seen = curl(place, url, &[]);
    assert!(
        matches!(seen.code, 0 | CANNOT_CONNECT),
        "{}: {}",
        seen.code,
        seen.error
    );
    seen.code == CANNOT_CONNECT
}

/// curl meets the reset while it waits for the connection, or just after.
fn is_reset(place: &Place<'_>, url: &str) -> bool {
    let seen = curl(place, url, &[]);
    assert!(
        matches!(seen.code, 0 | CANNOT_CONNECT | 56),
        "{}: {}",
        seen.code,
        seen.error
    );
    seen.code != 0
}

/// Whether a command that runs curl is refused.
fn ends_refused(place: &Place<'_>, program: &str, args: &[&str]) -> bool {
    let code = place.run(program, args).code();
    assert!(matches!(code, 0 | CANNOT_CONNECT), "{code}");
    code == CANNOT_CONNECT
}

fn a_name_that_a_program_was_invoked_by() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let link = world.path("fetcher");
    symlink("/usr/bin/curl", &link).expect("make a link to curl");
    let link = link.to_str().expect("UTF-8");
    let args = ["-sS", "-o", "/dev/null", &url];
    agent.fault("refuse --name named --from process=fetcher");
    assert!(ends_refused(&client, link, &args), "invoked by the name");
    assert!(
        !ends_refused(&client, "curl", &args),
        "the same file by its own name"
    );
    assert_eq!(agent.fault_count("named", "affected"), 1);
    agent.clear();
    agent.fault("refuse --from process=curl");
    assert!(
        ends_refused(&client, link, &args),
        "the file's own name holds as well"
    );
    assert!(ends_refused(&client, "curl", &args));
}

fn a_user() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let as_nobody = [
        "--reuid=nobody",
        "--clear-groups",
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        &url,
    ];
    for user in ["nobody", "65534"] {
        agent.fault(&format!("refuse --from user={user}"));
        assert!(ends_refused(&client, "setpriv", &as_nobody), "{user}");
        assert!(!is_refused(&client, &url), "root is not {user}");
        agent.clear();
    }
    agent.fault(&format!("reset --to user=root,port={port}"));
    assert!(is_reset(&client, &url), "nginx runs as root");
}

fn a_network_namespace() {
    needs::kernel(5, 18, "refuse where lo is down");
    let world = World::new();
    let netns = world.namespace();
    let [(host, _), _] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let url = format!("http://{host}:{port}/small");
    let (inside, outside) = (world.place("client").within(&netns), world.place("client"));
    agent.fault(&format!("refuse --from netns={netns}"));
    assert!(is_refused(&inside, &url) && !is_refused(&outside, &url));
    agent.clear();
    agent.fault("refuse --from netns=host,process=curl");
    assert!(!is_refused(&inside, &url) && is_refused(&outside, &url));
    agent.clear();
    // One that is made after the fault.
    let later = format!("{}-later", world.name);
    agent.fault(&format!("refuse --name later --from netns={later}"));
    ip(&["netns", "add", &later]);
    let ask = [
        "netns",
        "exec",
        &later,
        "curl",
        "-sS",
        "-m",
        "2",
        "-o",
        "/dev/null",
        "http://192.0.2.1/",
    ];
    let refused = wait_for_once(|| {
        world.place("client").run("ip", &ask);
        agent.fault_count("later", "affected") > 0
    });
    ip(&["netns", "delete", &later]);
    assert!(refused, "the new namespace was not noticed");
}

fn wait_for_once(mut is_so: impl FnMut() -> bool) -> bool {
    (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        is_so()
    })
}

fn a_source_address_and_port() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    agent.fault(&format!("refuse --from cidr=127.9.0.0/16 --to port={port}"));
    assert_eq!(
        curl(&client, &url, &["--interface", "127.9.8.7"]).code,
        CANNOT_CONNECT
    );
    assert_eq!(curl(&client, &url, &[]).code, 0);
    agent.clear();
    let source = free_port();
    agent.fault(&format!("refuse --from port={source} --to port={port}"));
    let from = |port: u16| curl(&client, &url, &["--local-port", &port.to_string()]).code;
    assert_eq!(from(source), CANNOT_CONNECT);
    assert_eq!(from(free_port()), 0);
}

fn a_unit_and_a_container() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let url = format!("http://127.0.0.1:{port}/small");
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let unit = world.place("shop-web.service");
    let container = world.place(&format!("docker-{id}.scope"));
    let other = world.place("other.service");
    for (words, chosen) in [
        ("unit=shop-web", &unit),
        ("unit=shop-*.service", &unit),
        ("service=shop-web", &unit),
        ("container=0123456789ab", &container),
    ] {
        agent.fault(&format!("refuse --from {words} --to port={port}"));
        for place in [&unit, &container, &other] {
            assert_eq!(
                is_refused(place, &url),
                place.selector() == chosen.selector(),
                "{words}"
            );
        }
        agent.clear();
    }
}

fn a_service_that_starts_later() {
    let world = World::new();
    let agent = Agent::start(&world);
    agent.fault("reset --name later --to service=late-web");
    let port = nginx(&world, &world.place("late-web.service"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    wait_for("the service to be known", Duration::from_secs(5), || {
        is_reset(&client, &url).then_some(())
    });
    let other = redis(&world, &world.place("other.service"));
    let pong = client.run("redis-cli", &["-p", &other.to_string(), "PING"]);
    assert_eq!(pong.ok(), "PONG\n", "another service is left alone");
}

fn the_process_that_listens() {
    let world = World::new();
    let agent = Agent::start(&world);
    let client = world.place("client");
    let port = redis(&world, &world.place("db"));
    let web = nginx(&world, &world.place("web"));
    let url = format!("http://127.0.0.1:{web}/small");
    let ping = || {
        let done = client.run("redis-cli", &["-p", &port.to_string(), "PING"]);
        done.stdout == "PONG\n"
    };
    // On Debian redis-server is a link to redis-check-rdb.
    for words in ["process=redis-server", "cgroup=CGROUP"] {
        let words = words.replace("cgroup=CGROUP", &world.place("db").selector());
        agent.fault(&format!("reset --to {words}"));
        assert!(!ping(), "{words}");
        assert!(!is_refused(&client, &url), "{words}");
        agent.clear();
        assert!(ping());
    }
    // Also by a port that says where, without a look at who listens there before.
    agent.fault(&format!("reset --name web --to process=nginx,port={web}"));
    assert!(is_reset(&client, &url));
    agent.clear();
    agent.fault(&format!("reset --to process=apache2,port={web}"));
    assert_eq!(curl(&client, &url, &[]).code, 0);
}

fn a_host_that_is_resolved_later() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (resolver, shared) = (own_address(41), own_address(42));
    let resolv = dns(
        &world,
        &resolver,
        &[("api.late.test", &shared), ("www.late.test", &shared)],
    );
    let port = nginx(&world, &world.place("web"));
    let get = |place: &str, name: &str| {
        let script = format!(
            "mount --bind {resolv} /etc/resolv.conf && exec curl -sS -o /dev/null http://{name}:{port}/small"
        );
        ends_refused(&world.place(place), "unshare", &["--mount", "sh", "-c", &script])
    };
    // Armed before anyone has resolved the name; the very first connection is meant.
    agent.fault("refuse --name exact --to host=api.late.test");
    assert!(get("one", "api.late.test"), "the first connection to the name");
    assert!(!get("two", "www.late.test"), "another name of the same address");
    assert_eq!(agent.fault_count("exact", "affected"), 1);
    agent.clear();
    agent.fault("refuse --name globbed --to host=*.late.test");
    assert!(get("three", "www.late.test") && get("four", "api.late.test"));
    assert!(!is_refused(
        &world.place("five"),
        &format!("http://127.0.0.1:{port}/small")
    ));
}

fn a_host_of_the_hosts_own() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    agent.fault("refuse --from process=curl --to host=localhost");
    assert!(is_refused(&client, &format!("http://127.0.0.1:{port}/small")));
    let elsewhere = own_address(43);
    assert!(!is_refused(&client, &format!("http://{elsewhere}:{port}/small")));
}

fn bad_selectors_are_told() {
    let world = World::new();
    let agent = Agent::start(&world);
    for (words, wanted) in [
        ("refuse", "\"everything\": true"),
        ("refuse --from proces=curl", "did you mean process?"),
        ("refuse --to hosts=db.test", "did you mean host?"),
        ("refuse --from user=no-such-user", "no user"),
        ("refuse --from cgroup=/no/such", "no cgroup"),
        ("refuse --to host=10.0.0.1", "say cidr"),
        ("refuse --to cidr=10.0.0.1/8", "10.0.0.0/8"),
        ("refuse --to port=0", "1 to 65535"),
        ("connect_timeout --after 10ms --to port=1", "from 1s"),
    ] {
        let args: Vec<&str> = ["fault", "add"].into_iter().chain(words.split(' ')).collect();
        let done = agent.spike(&args);
        assert_ne!(done.code(), 0, "{words}");
        assert!(done.stderr.contains(wanted), "{words}: {}", done.stderr);
    }
    let body = r#"{"from":{"proces":"curl"},"effect":{"type":"refuse"}}"#;
    let mut post = Command::new("curl");
    post.args(["-s", "--unix-socket", agent.socket(), "-d", body]);
    let done = spike_tests::world::finish(
        spike_tests::world::start(post.args([
            "-H",
            "content-type: application/json",
            "http://spike/v1/faults",
        ])),
        "curl",
    );
    assert!(
        done.stdout.contains("proces") && done.stdout.contains("expected one of"),
        "{}",
        done.stdout
    );
}
