//! One edge for a connection, whatever lies between its ends, and none that is not there.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{ChildStdin, ChildStdout, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use spike_tests::{
    agent::{self, Agent},
    needs,
    oracle::curl,
    wait_for,
    workload::{self, free_port, nginx, start_nginx},
    world::{Place, World, finish, ip, start},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_translated_destination_is_one_edge",
        a_translated_destination_is_one_edge,
    ),
    (
        "a_translated_connection_older_than_the_agent_is_one_edge",
        a_translated_connection_older_than_the_agent_is_one_edge,
    ),
    (
        "an_edge_goes_through_a_router_that_translates",
        an_edge_goes_through_a_router_that_translates,
    ),
    ("an_intercepted_call_is_one_edge", an_intercepted_call_is_one_edge),
    (
        "a_container_is_named_by_its_engine",
        a_container_is_named_by_its_engine,
    ),
    (
        "ports_that_are_used_again_make_no_phantom",
        ports_that_are_used_again_make_no_phantom,
    ),
    (
        "more_edges_than_the_hooks_have_room_for_are_kept",
        more_edges_than_the_hooks_have_room_for_are_kept,
    ),
];

/// Where nobody is: what a cluster's service would have.
const VIRTUAL: &str = "10.96.0.10";

fn a_translated_destination_is_one_edge() {
    needs::program("nft");
    let world = World::new();
    let (netns, port) = service_of_a_cluster(&world);
    let agent = Agent::start(&world);
    let client = world.place("client").within(&netns);
    call(&client, 3);
    one_edge(&agent, 3);

    // The same through the agent: what it opens is translated, too.
    agent.fault("latency --delay 1ms --name light --from process=curl --to port=80");
    call(&client, 2);
    assert_eq!(agent.fault_count("light", "affected"), 2);
    one_edge(&agent, 5);
    let services = agent.json(&["map"])["edges"][0]["destination"]["process"].clone();
    assert_eq!(services["service"], "nginx", "port {port}: {services:#}");
}

fn a_translated_connection_older_than_the_agent_is_one_edge() {
    needs::program("nft");
    let world = World::new();
    let netns = cluster(&world);
    let server = world.place("server").within(&netns);
    let address = workload::server(&world, &server, "echo", "10.99.0.1:0");
    lead_to(&world, &netns, &address);
    let client = world.place("client").within(&netns);
    let mut held = hold(&world, &client, &format!("{VIRTUAL}:80"));
    let agent = Agent::start(&world);
    for _ in 0..3 {
        held.stdin.write_all(b"\n").expect("ask the client");
        assert_eq!(held.says(), "answer ping\n");
    }
    let edges = wait_for("its calls on the map", Duration::from_secs(3), || {
        let edges = edges(&agent);
        let three = |edge: &Value| edge["calls"] == 3;
        edges.iter().any(three).then_some(edges)
    });
    assert_eq!(edges.len(), 1, "{edges:#?}");
    let edge = &edges[0];
    assert_eq!(
        (&edge["role"], &edge["opened"], &edge["open"]),
        (&"client".into(), &1.into(), &1.into()),
        "{edge:#}"
    );
    let cgroup = edge["destination"]["process"]["cgroup"]
        .as_str()
        .unwrap_or_default();
    assert_eq!(format!("cgroup={cgroup}"), server.selector(), "{edge:#}");
}

/// A client that keeps a connection open.
struct Held {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

fn hold(world: &World, client: &Place<'_>, address: &str) -> Held {
    let mut child = client
        .helper(&["hold", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the client");
    let mut held = Held {
        stdin: child.stdin.take().expect("its input"),
        stdout: BufReader::new(child.stdout.take().expect("its output")),
    };
    world.keep(child);
    assert_eq!(held.says(), "open\n");
    held
}

impl Held {
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("read from the client");
        line
    }
}

/// A namespace whose connections to a virtual address are led to nginx in it: its name, and nginx's port.
fn service_of_a_cluster(world: &World) -> (String, u16) {
    let netns = cluster(world);
    let port = nginx_within(world, &netns);
    lead_to(world, &netns, &format!("10.99.0.1:{port}"));
    (netns, port)
}

/// A namespace with an address of its own and a way to the virtual one.
fn cluster(world: &World) -> String {
    let netns = world.namespace();
    let within = |args: &str| {
        let args: Vec<&str> = ["-n", &netns].into_iter().chain(args.split(' ')).collect();
        ip(&args);
    };
    within("link set lo up");
    within("address add 10.99.0.1/32 dev lo");
    within(&format!("route add {VIRTUAL} dev lo src 10.99.0.1"));
    netns
}

fn lead_to(world: &World, netns: &str, address: &str) {
    let rules = format!(
        "table ip nat {{ chain output {{ type nat hook output priority -100;\n\
         ip daddr {VIRTUAL} tcp dport 80 dnat to {address}\n}}\n}}\n"
    );
    translate(world, netns, &rules);
}

fn an_edge_goes_through_a_router_that_translates() {
    needs::program("nft");
    let world = World::new();
    let (left, router, right) = (world.namespace(), world.namespace(), world.namespace());
    let [_, (gateway, _)] = world.connect(Some(&left), Some(&router));
    let [_, (server, _)] = world.connect(Some(&router), Some(&right));
    ip(&["-n", &left, "route", "add", "default", "via", &gateway]);
    let port = nginx_within(&world, &right);
    // The server sees the router's address as its caller's.
    let rules = format!(
        "table ip nat {{\n\
         chain pre {{ type nat hook prerouting priority -100;\n\
         ip daddr {VIRTUAL} tcp dport 80 dnat to {server}:{port}\n}}\n\
         chain post {{ type nat hook postrouting priority 100; masquerade\n}}\n}}\n"
    );
    translate(&world, &router, &rules);
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    ip(&["netns", "exec", &router, "sh", "-c", forward]);
    let agent = Agent::start(&world);
    call(&world.place("client").within(&left), 3);
    one_edge(&agent, 3);
}

/// nginx in a namespace that this process is not in.
fn nginx_within(world: &World, netns: &str) -> u16 {
    ip(&["-n", netns, "link", "set", "lo", "up"]);
    let web = world.place("web").within(netns);
    let listens = |port: u16| {
        let listening = format!(":{port:04X} 00000000:0000 0A");
        let done = web.run("cat", &["/proc/self/net/tcp"]);
        done.stdout.contains(&listening)
    };
    start_nginx(world, &web, listens)
}

fn translate(world: &World, netns: &str, rules: &str) {
    let file = world.path(&format!("{netns}.nft"));
    fs::write(&file, rules).expect("write nft's rules");
    let done = world
        .place("nft")
        .within(netns)
        .run("nft", &["-f".as_ref(), file.as_os_str()]);
    if done.stderr.contains("Operation not supported") {
        needs::skip(format!(
            "this kernel translates no addresses: {}",
            done.stderr.trim()
        ));
    }
    done.ok();
}

fn call(client: &Place<'_>, times: usize) {
    for _ in 0..times {
        let seen = curl(client, &format!("http://{VIRTUAL}/small"), &[]);
        assert_eq!((seen.code, seen.status), (0, 200), "{}", seen.error);
    }
}

/// The map has one edge: curl's to nginx by the virtual address.
fn one_edge(agent: &Agent, calls: u64) {
    let edges = wait_for("the calls on the map", Duration::from_secs(3), || {
        let edges = edges(agent);
        (edges
            .iter()
            .filter_map(|edge| edge["calls"].as_u64())
            .sum::<u64>()
            >= calls)
            .then_some(edges)
    });
    assert_eq!(edges.len(), 1, "{edges:#?}");
    let edge = &edges[0];
    assert_eq!(
        (&edge["calls"], &edge["opened"]),
        (&calls.into(), &calls.into()),
        "{edge:#}"
    );
    assert_eq!(
        (&edge["role"], &edge["open"]),
        (&"client".into(), &0.into()),
        "{edge:#}"
    );
    assert_eq!(edge["caller"]["service"], "curl");
    let destination = &edge["destination"];
    assert_eq!(
        (&destination["address"], &destination["port"]),
        (&VIRTUAL.into(), &80.into())
    );
    assert_eq!(destination["process"]["service"], "nginx", "{edge:#}");
}

fn edges(agent: &Agent) -> Vec<Value> {
    agent.json(&["map"])["edges"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn an_intercepted_call_is_one_edge() {
    let world = World::new();
    let port = nginx(&world, &world.place("web"));
    let agent = Agent::start(&world);
    agent.fault(&format!("latency --delay 1ms --name light --to port={port}"));
    let client = world.place("client");
    for _ in 0..4 {
        let seen = curl(&client, &format!("http://127.0.0.1:{port}/small"), &[]);
        assert_eq!((seen.code, seen.status), (0, 200), "{}", seen.error);
    }
    assert_eq!(agent.fault_count("light", "affected"), 4);
    agent.wait_for_sum("curl", port, "calls", 4);
    let edges = edges(&agent);
    assert_eq!(edges.len(), 1, "{edges:#?}");
    assert_eq!((&edges[0]["opened"], &edges[0]["calls"]), (&4.into(), &4.into()));
    assert_eq!(edges[0]["destination"]["process"]["service"], "nginx");
}

fn a_container_is_named_by_its_engine() {
    needs::program("podman");
    let world = World::new();
    let engine = Podman::start(&world);
    let id = engine.create("shop-db-1", &["com.docker.compose.service=db"]);
    // Where the engine would run it.
    let port = nginx(&world, &world.place(&format!("libpod-{id}.scope")));
    let rules = "[[service]]\nname = \"shop-client\"\nlabel = { \"com.acme.team\" = \"sh*\" }\n";
    let config = world.path("spike.toml");
    fs::write(&config, rules).expect("write spike.toml");
    let mut command = agent::command(&world);
    command.arg("--config").arg(&config);
    let agent = Agent::start_with(&world, command);
    let other = engine.create("shop-web-1", &["com.acme.team=shop"]);
    let client = world.place(&format!("libpod-{other}.scope"));
    // Names come a moment after who they are of, and of those who have ended, no more.
    let _held = hold(&world, &client, &format!("127.0.0.1:{port}"));
    let edge = wait_for("the engine's names", Duration::from_secs(10), || {
        let edges = edges(&agent);
        let named = |edge: &&Value| {
            edge["caller"]["service"] == "shop-client" && edge["destination"]["process"]["service"] == "db"
        };
        edges.iter().find(named).cloned()
    });
    assert_eq!(edge["caller"]["kind"], "rule", "{edge:#}");
    assert_eq!(edge["destination"]["process"]["kind"], "container", "{edge:#}");
}

/// A container engine of a test's own, at the socket where Spike looks for one.
struct Podman {
    options: Vec<String>,
    rootfs: String,
    child: std::process::Child,
}

/// As Podman's own systemd unit has it.
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";

impl Podman {
    fn start(world: &World) -> Self {
        if std::os::unix::net::UnixStream::connect(PODMAN_SOCKET).is_ok() {
            needs::skip(format!("another engine answers at {PODMAN_SOCKET}"));
        }
        let dir = world.path("podman");
        let rootfs = dir.join("rootfs");
        fs::create_dir_all(&rootfs).expect("make Podman's directory");
        let within = |name: &str| dir.join(name).display().to_string();
        let options = [
            "--root",
            &within("root"),
            "--runroot",
            &within("run"),
            "--tmpdir",
            &within("tmp"),
        ];
        let options = [
            &options[..],
            &["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"],
        ]
        .concat();
        let options: Vec<String> = options.into_iter().map(str::to_owned).collect();
        fs::create_dir_all("/run/podman").expect("make the socket's directory");
        let mut command = std::process::Command::new("podman");
        command.args(&options);
        command.args([
            "system",
            "service",
            "--time=0",
            &format!("unix://{PODMAN_SOCKET}"),
        ]);
        let engine = Self {
            options,
            rootfs: rootfs.display().to_string(),
            child: start(&mut command),
        };
        wait_for("Podman to answer", Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(PODMAN_SOCKET)
                .ok()
                .map(drop)
        });
        engine
    }

    /// Makes a container, which is not run, and gives its id.
    fn create(&self, name: &str, labels: &[&str]) -> String {
        let mut command = std::process::Command::new("podman");
        command
            .args(&self.options)
            .args(["create", "--rootfs", "--name", name]);
        command.args(labels.iter().flat_map(|label| ["--label", label]));
        let done = finish(start(command.args([&self.rootfs, "/bin/true"])), "podman");
        done.ok().trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(PODMAN_SOCKET);
        let _ = fs::remove_dir("/run/podman");
    }
}

fn more_edges_than_the_hooks_have_room_for_are_kept() {
    /// The hooks' table has room for 8,192.
    const WAVES: [usize; 4] = [0, 5000, 9000, 12_000];
    let world = World::new();
    let agent = Agent::start(&world);
    // Not observed: an edge for each address, and no other.
    let listener = TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut asked = [0; 5];
            let answer = |mut stream: TcpStream| {
                stream
                    .read_exact(&mut asked)
                    .and_then(|()| stream.write_all(b"pong\n"))
            };
            let _ = stream.and_then(answer);
        }
    });
    let client = world.place("client");
    let spread = |first: usize, count: usize| {
        let words = [
            "spread".to_owned(),
            port.to_string(),
            first.to_string(),
            count.to_string(),
        ];
        client.run_helper(&words.each_ref().map(String::as_str)).ok();
    };
    for wave in WAVES.windows(2) {
        spread(wave[0], wave[1] - wave[0]);
        // Those that rest go within two looks of two seconds.
        thread::sleep(needs::patience(Duration::from_secs(6)));
    }
    // These come back.
    spread(0, 100);
    let edges = wait_for("the calls to be counted", Duration::from_secs(10), || {
        let edges = edges(&agent);
        let calls: u64 = edges.iter().filter_map(|edge| edge["calls"].as_u64()).sum();
        (calls == 12_100).then_some(edges)
    });
    assert_eq!(edges.len(), 12_000);
    let twice = edges.iter().filter(|edge| edge["opened"] == 2).count();
    assert_eq!(twice, 100);
    let status = agent.json(&["status"]);
    assert_eq!(status["edges"], 12_000, "{status:#}");
    let losses = status["losses"].as_array().expect("losses");
    let full = losses.iter().find(|loss| loss["name"] == "edges_full");
    assert_eq!(
        full.expect("a count of edges without room")["count"],
        0,
        "{status:#}"
    );
}

fn ports_that_are_used_again_make_no_phantom() {
    let world = World::new();
    let address = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    let port = workload::port_of(&address);
    let mut command = agent::command(&world);
    command.args(["--decode-budget", "5"]);
    let agent = Agent::start_with(&world, command);
    let resident = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.expect("its resident memory")
    };
    const CALLS: u64 = 20_000;
    // Both use the very same ports of their own for the very same server, by turns and at once.
    let first = (free_port() % 20_000 + 10_000).to_string();
    let calls = CALLS.to_string();
    let args = ["churn", &address, &calls, &first];
    let before = resident();
    let [left, right] = ["left", "right"].map(|name| start(&mut world.place(name).helper(&args)));
    let said = [finish(left, "churn").ok(), finish(right, "churn").ok()];
    let millis = said.iter().map(|said| {
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[1], calls, "{said}");
        words[3].parse::<f64>().expect("milliseconds")
    });
    let longest = millis.fold(0.0, f64::max);
    let sum = |edges: &[Value], key: &str| edges.iter().filter_map(|edge| edge[key].as_u64()).sum::<u64>();
    let edges = wait_for("all connections to have ended", Duration::from_secs(10), || {
        let edges = edges(&agent);
        (sum(&edges, "opened") >= 2 * CALLS && sum(&edges, "open") == 0).then_some(edges)
    });
    let after = resident();
    println!(
        "{:.0} connections a second from 200 ports; agent {} MiB before, {} MiB after",
        2.0 * CALLS as f64 / longest * 1000.0,
        before / 1024,
        after / 1024
    );
    assert_eq!(edges.len(), 2, "{edges:#?}");
    for edge in &edges {
        assert_eq!(
            (&edge["role"], &edge["destination"]["port"]),
            (&"client".into(), &port.into())
        );
        for (key, wanted) in [
            ("opened", CALLS),
            ("calls", CALLS),
            ("failed", 0),
            ("bytes_out", 5 * CALLS),
            ("bytes_in", 5 * CALLS),
        ] {
            assert_eq!(edge[key], wanted, "{key} of {edge:#}");
        }
    }
    let cgroups = edges
        .iter()
        .map(|edge| edge["caller"]["cgroup"].as_str().unwrap_or_default());
    let cgroups: std::collections::BTreeSet<&str> = cgroups.collect();
    assert_eq!(cgroups.len(), 2, "{edges:#?}");
    assert!(after < before + 64 * 1024, "{before} kB before, {after} kB after");
}
