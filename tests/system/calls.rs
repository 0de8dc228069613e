//! Decoded calls: what was said, how it went, under which names; and what TCP had to say.

use std::{fs, process::Child, time::Duration};

use serde_json::Value;
use spike_tests::{
    agent::{self, Agent},
    needs,
    oracle::curl,
    wait_for,
    workload::{self, SMALL, free_port, nginx, redis},
    world::{World, finish, ip, kill, start},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_call_of_curl_is_told", a_call_of_curl_is_told),
    (
        "a_condition_chooses_and_a_wrong_one_says_why",
        a_condition_chooses_and_a_wrong_one_says_why,
    ),
    (
        "pipelined_redis_is_matched_call_by_call",
        pipelined_redis_is_matched_call_by_call,
    ),
    (
        "a_hundred_streams_are_told_apart",
        a_hundred_streams_are_told_apart,
    ),
    ("names_of_one_address_stay_apart", names_of_one_address_stay_apart),
    ("dns_is_decoded", dns_is_decoded),
    ("failures_have_their_reasons", failures_have_their_reasons),
    (
        "retransmissions_show_on_the_edge",
        retransmissions_show_on_the_edge,
    ),
    (
        "services_and_edges_can_be_asked_for",
        services_and_edges_can_be_asked_for,
    ),
];

/// An agent that decodes whatever it can.
fn decoding_all(world: &World) -> Agent {
    let mut command = agent::command(world);
    command.args(["--decode-budget", "100"]);
    Agent::start_with(world, command)
}

/// What `spike calls` tells while something runs.
struct Follower {
    child: Child,
}

impl Follower {
    fn start(world: &World, agent: &Agent, more: &[&str]) -> Self {
        let place = world.place("follower");
        let args = [&["calls", "--follow", "--json"], more].concat();
        let child = agent.start_in(&place, &args);
        // The agent tells from when it is asked.
        std::thread::sleep(needs::patience(Duration::from_millis(300)));
        Self { child }
    }

    fn stop(self) -> Vec<Value> {
        // Samples are read every 20 ms.
        std::thread::sleep(needs::patience(Duration::from_millis(400)));
        kill(self.child.id(), libc::SIGINT);
        let done = finish(self.child, "spike calls");
        let lines = done.stdout.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("a JSON object a line")
    }
}

fn number(call: &Value, key: &str) -> u64 {
    call[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {call:#}"))
}

fn a_call_of_curl_is_told() {
    let world = World::new();
    let agent = decoding_all(&world);
    let port = nginx(&world, &world.place("web"));
    let follower = Follower::start(&world, &agent, &[]);
    let client = world.place("client");
    curl(&client, &format!("http://127.0.0.1:{port}/small?key=1"), &[]);
    curl(&client, &format!("http://127.0.0.1:{port}/users/12345"), &[]);
    let calls = follower.stop();
    assert_eq!(calls.len(), 2, "{calls:#?}");
    let [found, missing] = [&calls[0], &calls[1]];
    for call in [found, missing] {
        assert_eq!(call["caller"], "curl");
        assert_eq!(call["callee"], format!("nginx:{port}"));
        assert_eq!(call["protocol"], "http");
        assert_eq!(call["operation"], "GET");
        assert_eq!(
            (&call["complete"], &call["failed"]),
            (&true.into(), &false.into())
        );
        assert!(
            number(call, "first_byte_us") <= number(call, "total_us"),
            "{call:#}"
        );
        assert!((50..500).contains(&number(call, "request_bytes")), "{call:#}");
    }
    assert_eq!(
        (&found["target"], &found["status"]),
        (&"/small".into(), &"200".into())
    );
    let body = number(found, "response_bytes");
    assert!((SMALL as u64..SMALL as u64 + 1024).contains(&body), "{found:#}");
    assert_eq!(missing["target"], "/users/{id}");
    assert_eq!(missing["status"], "404");

    let edges = agent.edges("curl", port);
    assert_eq!(edges.len(), 1, "{edges:#?}");
    assert_eq!(edges[0]["protocol"], "http");
    assert_eq!(edges[0]["decoding"]["calls"], 2);
    assert_eq!(edges[0]["decoding"]["confidence_percent"], 100.0);
    assert!(number(&edges[0], "rtt_us") > 0);
}

fn a_condition_chooses_and_a_wrong_one_says_why() {
    let world = World::new();
    let agent = decoding_all(&world);
    let port = nginx(&world, &world.place("web"));
    let condition = "service=nginx and (status=404 or total>1h)";
    let follower = Follower::start(&world, &agent, &["--find", condition]);
    let client = world.place("client");
    for path in ["small", "missing", "small"] {
        curl(&client, &format!("http://127.0.0.1:{port}/{path}"), &[]);
    }
    let calls = follower.stop();
    assert_eq!(calls.len(), 1, "{calls:#?}");
    assert_eq!(calls[0]["target"], "/missing");

    let wrong = agent.spike(&["calls", "--find", "stats=404"]);
    assert_ne!(wrong.code(), 0);
    assert!(
        wrong
            .stderr
            .contains("there is no field `stats`; fields are caller"),
        "{}",
        wrong.stderr
    );
}

fn pipelined_redis_is_matched_call_by_call() {
    needs::program("redis-benchmark");
    let world = World::new();
    let agent = decoding_all(&world);
    let server = world.place("redis");
    let port = redis(&world, &server);
    let port_text = port.to_string();
    let client = world.place("client");
    let benchmark = [
        "-p", &port_text, "-n", "4000", "-P", "16", "-c", "4", "-q", "-t", "set,get",
    ];
    client.run("redis-benchmark", &benchmark).ok();
    let stats = client
        .run("redis-cli", &["-p", &port_text, "info", "commandstats"])
        .ok();
    let served = |command: &str| -> u64 {
        let start = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        let count = line.and_then(|line| line.split(',').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("no {command} in {stats}"))
    };
    let served = served("set") + served("get");
    assert_eq!(served, 8000);
    let edge = wait_for(
        "the calls to be decoded",
        needs::patience(Duration::from_secs(5)),
        || {
            let edges = agent.edges("redis-benchmark", port);
            let edge = edges.into_iter().next()?;
            let decoding = &edge["decoding"];
            let told = decoding["calls"].as_u64()? + decoding["lost_calls"].as_u64()?;
            (told >= served).then_some(edge)
        },
    );
    assert_eq!(edge["protocol"], "redis");
    let decoding = &edge["decoding"];
    let decoded = number(decoding, "calls");
    // What could not be read in time is declared lost, never made up. The benchmark asks CONFIG first.
    assert!(decoded <= served + 16, "{edge:#}");
    if number(decoding, "lost_segments") == 0 {
        assert!(decoded.abs_diff(served) * 100 <= served, "{edge:#}");
    }
}

fn a_hundred_streams_are_told_apart() {
    needs::program("h2load");
    let world = World::new();
    let agent = decoding_all(&world);
    let server = world.place("web");
    let port = workload::nginx_http2(&world, &server);
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    let load = client
        .run("h2load", &["-n", "3000", "-c", "2", "-m", "100", &url])
        .ok();
    assert!(load.contains("3000 succeeded"), "{load}");
    let edge = wait_for(
        "the calls to be decoded",
        needs::patience(Duration::from_secs(5)),
        || {
            let edge = agent.edges("h2load", port).into_iter().next()?;
            let decoding = &edge["decoding"];
            let told = decoding["calls"].as_u64()? + decoding["lost_calls"].as_u64()?;
            (told >= 3000).then_some(edge)
        },
    );
    assert_eq!(edge["protocol"], "http2", "{edge:#}");
    let decoding = &edge["decoding"];
    assert!(number(decoding, "calls") <= 3000, "{edge:#}");
    if number(decoding, "lost_segments") == 0 {
        assert_eq!(number(decoding, "calls"), 3000, "{edge:#}");
    }
}

/// Starts dnsmasq, which tells the given names, and gives the file that is to be `/etc/resolv.conf`.
pub(crate) fn dns(world: &World, address: &str, names: &[(&str, &str)]) -> String {
    needs::program("dnsmasq");
    let records = names
        .iter()
        .map(|(name, address)| format!("--address=/{name}/{address}"));
    let mut args: Vec<String> = [
        "--no-daemon",
        "--port=53",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--user=root",
    ]
    .map(str::to_owned)
    .into();
    args.push(format!("--listen-address={address}"));
    args.extend(records);
    world.place("dns").serve("dnsmasq", &args);
    workload::wait_for_listener(&format!("{address}:53"));
    let file = world.path("resolv.conf");
    fs::write(&file, format!("nameserver {address}\n")).expect("write resolv.conf");
    file.display().to_string()
}

/// Runs a shell's line where the file is `/etc/resolv.conf`.
fn resolving(world: &World, resolv: &str, line: &str) {
    let script = format!("mount --bind {resolv} /etc/resolv.conf && {line}");
    let client = world.place("client");
    client.run("unshare", &["--mount", "sh", "-c", &script]).ok();
}

/// A loopback address that no other test listens on.
pub(crate) fn own_address(last: u8) -> String {
    format!("127.{}.{}.{last}", std::process::id() % 250 + 1, 77)
}

fn names_of_one_address_stay_apart() {
    let world = World::new();
    let agent = decoding_all(&world);
    let (resolver, shared) = (own_address(1), own_address(2));
    let resolv = dns(
        &world,
        &resolver,
        &[("api.shop.test", &shared), ("www.shop.test", &shared)],
    );
    let port = nginx(&world, &world.place("web"));
    let get = |name: &str| format!("curl -s -o /dev/null http://{name}:{port}/small");
    let (api, www) = (get("api.shop.test"), get("www.shop.test"));
    resolving(
        &world,
        &resolv,
        &format!("{api} && {api} && {www} && {api} && {}", get(&shared)),
    );
    wait_for("all calls to be counted", Duration::from_secs(3), || {
        (agent.sum("curl", port, "calls") >= 5).then_some(())
    });
    let mut edges: Vec<(String, u64)> = agent
        .edges("curl", port)
        .iter()
        .map(|edge| {
            let destination = &edge["destination"];
            assert_eq!(destination["address"], shared.as_str());
            let name = destination["name"].as_str().unwrap_or("-").to_owned();
            (name, number(edge, "calls"))
        })
        .collect();
    edges.sort();
    // By address it is called what its caller last knew it by: a program that stays in the same cgroup may have resolved
    // it for the other.
    assert_eq!(
        edges,
        [("api.shop.test".to_owned(), 4), ("www.shop.test".to_owned(), 1)],
        "{edges:#?}"
    );
}

fn dns_is_decoded() {
    let world = World::new();
    let agent = decoding_all(&world);
    let resolver = own_address(3);
    let resolv = dns(&world, &resolver, &[("db.shop.test", "127.0.0.1")]);
    let follower = Follower::start(&world, &agent, &["--find", "protocol=dns"]);
    resolving(
        &world,
        &resolv,
        "getent hosts db.shop.test && ! getent hosts no.invalid",
    );
    let calls = follower.stop();
    let told = |target: &str, status: &str| {
        calls
            .iter()
            .any(|call| call["target"] == target && call["operation"] == "A" && call["status"] == status)
    };
    assert!(told("db.shop.test", "NOERROR"), "{calls:#?}");
    assert!(
        told("no.invalid", "NXDOMAIN") || told("no.invalid", "REFUSED"),
        "{calls:#?}"
    );
    let edges = agent.edges("getent", 53);
    assert!(
        !edges.is_empty() && edges.iter().all(|edge| edge["protocol"] == "dns"),
        "{edges:#?}"
    );
}

fn failures_have_their_reasons() {
    let world = World::new();
    let agent = Agent::start(&world);
    let netns = world.namespace();
    let [(_, device), (address, _)] = world.connect(None, Some(&netns));
    let closed = free_port();
    let client = world.place("client");
    curl(&client, &format!("http://127.0.0.1:{closed}/"), &[]);
    agent.wait_for_sum("curl", closed, "failed", 1);
    // Nobody answers: the frames go to another station than the one that is there.
    ip(&[
        "neighbour",
        "replace",
        &address,
        "lladdr",
        "02:00:00:00:00:01",
        "dev",
        &device,
        "nud",
        "permanent",
    ]);
    curl(
        &client,
        &format!("http://{address}:{closed}/"),
        &["--max-time", "1"],
    );
    let reason = |address: &str, reason: &str| {
        wait_for("the failure to be counted", Duration::from_secs(5), || {
            let edges = agent.edges("curl", closed);
            let edge = edges
                .into_iter()
                .find(|edge| edge["destination"]["address"] == address)?;
            (number(&edge, "failed") > 0).then_some(number(&edge["failures"], reason))
        })
    };
    if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        assert_eq!(reason("127.0.0.1", "refused"), 1);
        assert_eq!(reason(&address, "aborted"), 1);
    } else {
        assert_eq!(reason("127.0.0.1", "other"), 1);
    }
}

fn retransmissions_show_on_the_edge() {
    needs::real_time();
    let world = World::new();
    let agent = Agent::start(&world);
    let netns = world.namespace();
    let [(_, device), (address, server_device)] = world.connect(None, Some(&netns));
    ip(&["-n", &netns, "link", "set", "lo", "up"]);
    // The link is what is slow, 4 s for the file: segments are on their way at any time, and some are lost. With a slow
    // reader there may be none, and then all that is lost is news of the window, which nobody sends again.
    let slow_link = "rate 2mbit burst 16k limit 128k";
    let mut tc = std::process::Command::new("tc");
    tc.args(["-n", &netns, "qdisc", "add", "dev", &server_device, "root", "tbf"]);
    finish(start(tc.args(slow_link.split(' '))), "tc").ok();
    let web = world.place("web").within(&netns);
    let port = workload::start_nginx(&world, &web, |port| {
        std::net::TcpStream::connect((address.as_str(), port)).is_ok()
    });
    let url = format!("http://{address}:{port}/mib");
    let slow = world
        .place("client")
        .start("curl", &["-s", "-o", "/dev/null", &url]);
    agent.wait_for_sum("curl", port, "bytes_in", 100_000);
    // The queue may have overflowed.
    let before = agent.sum("curl", port, "retransmits");
    // Long enough for two time-outs, of 200 and 400 ms.
    ip(&["link", "set", "dev", &device, "down"]);
    std::thread::sleep(Duration::from_millis(900));
    ip(&["link", "set", "dev", &device, "up"]);
    assert_eq!(finish(slow, "curl").code(), 0);
    let edges = agent.edges("curl", port);
    assert!(
        number(&edges[0], "retransmits") >= before + 2,
        "{before} before: {edges:#?}"
    );
    assert!(number(&edges[0], "bytes_in") >= 1 << 20, "{edges:#?}");
    assert!(
        number(&edges[0], "bytes_in") < (1 << 20) + 4096,
        "sent again is not counted again: {edges:#?}"
    );
}

fn services_and_edges_can_be_asked_for() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    for _ in 0..3 {
        curl(
            &world.place("client"),
            &format!("http://127.0.0.1:{port}/small"),
            &[],
        );
    }
    agent.wait_for_sum("curl", port, "calls", 3);
    let get = |path: &str| -> Value {
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "--unix-socket", agent.socket()]);
        let done = finish(start(command.arg(format!("http://spike{path}"))), "curl");
        serde_json::from_str(&done.ok()).expect("JSON")
    };
    let services = get("/v1/services");
    let service = |name: &str| {
        let all = services["services"].as_array().expect("a list");
        let found = all.iter().find(|service| service["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {services:#}"))
    };
    assert_eq!(number(&service("curl")["calls"], "requests"), 3);
    assert_eq!(number(&service("nginx")["called"], "requests"), 3);
    let edges = agent.edges("curl", port);
    let edge = get(&format!("/v1/edges/{}", edges[0]["id"].as_str().expect("an id")));
    assert_eq!(edge["calls"], 3);
    let buckets = edge["histogram"].as_array().expect("buckets");
    assert_eq!(
        buckets.iter().map(|bucket| number(bucket, "calls")).sum::<u64>(),
        3
    );
    assert_eq!(get("/v1/edges/zz")["status"], 404);
}
