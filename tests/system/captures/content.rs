//! What is in a file: packets as tcpdump has them, with names, secrets and ids.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _, time::Duration};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::{capinfos, curl, tool, tshark},
    workload::{self, nginx},
    world::{World, finish, kill},
};

use super::{end, export, fetch, run, start, stop};

/// The same packet in two files.
const IDENTITY: [&str; 7] = [
    "ip.src",
    "ip.id",
    "tcp.srcport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags",
    "frame.len",
];

pub(super) fn every_tool_reads_every_kind_of_file() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let id = start(&agent, &["-i", "lo", "--to", &format!("port={port}")]);
    fetch(&world.place("client"), port, "small");
    fetch(&world.place("client"), port, "mib");
    stop(&agent, &id);
    let (pcapng, pcap) = (world.path("a.pcapng"), world.path("a.pcap"));
    export(&agent, &id, &pcapng, &[]);
    export(&agent, &id, &pcap, &["--format", "pcap"]);

    let expected = tshark(&pcapng, "tcp", &IDENTITY);
    assert!(expected.len() > 16, "{expected:#?}");
    assert_eq!(tshark(&pcap, "tcp", &IDENTITY), expected);
    let info = capinfos(&pcapng);
    assert!(info.contains("pcapng") && info.contains("nanoseconds"), "{info}");
    assert!(capinfos(&pcap).contains("nanosecond pcap"));
    for file in [&pcapng, &pcap] {
        let mode = std::fs::metadata(file).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        let lines = tool("tcpdump", &["-nr", file.to_str().expect("UTF-8")]);
        assert_eq!(lines.lines().count(), expected.len());
    }
    // What goes through editcap and mergecap comes out whole, comments and all.
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (edited, merged) = (world.path("edited.pcapng"), world.path("merged.pcapng"));
    tool("editcap", &[text(&pcapng), text(&edited)]);
    tool(
        "mergecap",
        &["-w".to_owned(), text(&merged), text(&pcapng), text(&pcap)],
    );
    assert_eq!(tshark(&edited, "tcp", &IDENTITY), expected);
    assert_eq!(tshark(&merged, "tcp", &IDENTITY).len(), 2 * expected.len());
    for file in [&pcapng, &edited] {
        let comments = tshark(file, "frame.comment contains \"curl[\"", &["frame.comment"]);
        assert_eq!(comments.len(), expected.len());
        assert!(
            comments.iter().any(|row| row[0].contains("-> nginx[")),
            "{comments:#?}"
        );
    }
    agent.spike(&["capture", "remove", &id]).ok();
    assert!(!world.path("state/captures").join(&id).exists());
}

pub(super) fn agrees_with_tcpdump() {
    needs::program("tcpdump");
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let expression = format!("tcp port {port}");
    let theirs = world.path("theirs.pcap");
    // With room for all of it, in KiB.
    let args = [
        "-B",
        "65536",
        "-i",
        "lo",
        "-U",
        "-n",
        "-w",
        theirs.to_str().expect("UTF-8"),
        &expression,
    ];
    let tcpdump = world.place("tcpdump").start("tcpdump", &args);
    spike_tests::wait_for("tcpdump to start", Duration::from_secs(10), || {
        std::fs::metadata(&theirs)
            .is_ok_and(|file| file.len() > 0)
            .then_some(())
    });
    let ours = world.path("ours.pcapng");
    let capture = run(&world, &agent, &ours, &["-i", "lo", "--filter", &expression]);
    let client = world.place("client");
    for path in ["small", "mib", "small"] {
        fetch(&client, port, path);
    }
    // Another port, which neither has.
    let echo = workload::server(&world, &world.place("other"), "echo", "127.0.0.1:0");
    client.run_helper(&["ask", &echo]).ok();
    end(capture);
    // It ends with what it has read, and reads a block of packets a second after its first one at the latest.
    let mut size = 0;
    spike_tests::wait_for("tcpdump to have read all", Duration::from_secs(20), || {
        let last = std::mem::replace(&mut size, std::fs::metadata(&theirs).map_or(0, |file| file.len()));
        std::thread::sleep(Duration::from_millis(1500));
        (size == last).then_some(())
    });
    kill(tcpdump.id(), libc::SIGINT);
    let said = finish(tcpdump, "tcpdump").stderr;
    assert!(said.contains("0 packets dropped"), "{said}");
    // Which of two packets on two processors is the first is not for either to say.
    let [theirs, ours] = [&theirs, &ours].map(|file| {
        let mut packets = tshark(file, "ip", &IDENTITY);
        packets.sort();
        packets
    });
    assert!(ours.len() > 20, "{ours:#?}");
    assert_eq!(ours, theirs);

    let done = agent.spike(&["capture", "start", "--filter", "tcp prt 80"]);
    assert!(
        done.code() == 1 && done.stderr.contains("filter"),
        "{}",
        done.stderr
    );
}

pub(super) fn decrypts_tls_from_the_file_alone() {
    needs::program("openssl");
    let world = World::new();
    let agent = Agent::start(&world);
    let (key, cert) = (world.path("key.pem"), world.path("cert.pem"));
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (key, cert) = (text(&key), text(&cert));
    tool(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &cert,
        ],
    );
    let port = workload::free_port();
    let accept = format!("127.0.0.1:{port}");
    let args = [
        "s_server", "-accept", &accept, "-key", &key, "-cert", &cert, "-tls1_3", "-www", "-quiet",
    ];
    world.place("web").serve("openssl", &args);
    workload::wait_for_listener(&accept);
    let client = world.place("client");
    let file = world.path("a.pcapng");
    let from = client.selector();
    let options = ["-i", "lo", "--from", &from, "--file-size", "24KB"];
    let capture = run(&world, &agent, &file, &options);
    let url = format!("https://127.0.0.1:{port}/secret-path");
    let log = world.path("keys.log");
    for _ in 0..6 {
        let mut command = client.command("curl");
        command
            .args(["-sSk", "-m", "20", "-o", "/dev/null", &url])
            .env("SSLKEYLOGFILE", &log);
        let done = finish(spike_tests::world::start(&mut command), "curl");
        assert_eq!(done.code(), 0, "{}", done.stderr);
    }
    end(capture);
    std::fs::remove_file(&log).expect("the log that curl wrote");
    let mut requests = 0;
    let mut files = 0;
    for number in 1.. {
        let file = world.path(&format!("a-{number:06}.pcapng"));
        if !file.exists() {
            break;
        }
        files += 1;
        requests += tshark(&file, "http.request.uri == \"/secret-path\"", &["frame.number"]).len();
    }
    assert!(files > 1, "the secrets have to be in each of several files");
    // One that lies across two files has its handshake in the first alone.
    assert!(
        (6 - (files - 1)..=6).contains(&requests),
        "{requests} requests in {files} files"
    );

    let file = world.path("b.pcapng");
    let capture = run(
        &world,
        &agent,
        &file,
        &["-i", "lo", "--from", &from, "--no-secrets"],
    );
    let mut command = client.command("curl");
    command
        .args(["-sSk", "-m", "20", "-o", "/dev/null", &url])
        .env("SSLKEYLOGFILE", &log);
    finish(spike_tests::world::start(&mut command), "curl").ok();
    end(capture);
    assert!(!tshark(&file, "tls", &["frame.number"]).is_empty());
    assert!(tshark(&file, "http", &["frame.number"]).is_empty());
}

pub(super) fn joins_the_legs_of_an_intercepted_call() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    agent.fault(&format!("latency --delay 50ms --to port={port}"));
    let file = world.path("a.pcapng");
    let from = client.selector();
    let capture = run(
        &world,
        &agent,
        &file,
        &["-i", "lo", "--from", &from, "--legs", "both"],
    );
    fetch(&client, port, "small");
    fetch(&client, port, "small");
    end(capture);
    let fields = ["tcp.stream", "frame.packet_id", "tcp.dstport", "frame.comment"];
    let requests = tshark(&file, "http.request", &fields);
    assert_eq!(requests.len(), 4, "each call on both legs: {requests:#?}");
    let streams: BTreeSet<&String> = requests.iter().map(|row| &row[0]).collect();
    let ids: BTreeSet<&String> = requests.iter().map(|row| &row[1]).collect();
    assert_eq!((streams.len(), ids.len()), (4, 2), "{requests:#?}");
    assert!(
        requests.iter().all(|row| row[2] == port.to_string()),
        "{requests:#?}"
    );
    let by_agent = requests.iter().filter(|row| row[3].starts_with("spike[")).count();
    assert_eq!(by_agent, 2, "{requests:#?}");
    let all = tshark(&file, "tcp", &["tcp.stream", "frame.packet_id"]);
    assert!(
        all.iter().all(|row| !row[1].is_empty()),
        "every packet has its id: {all:#?}"
    );

    let file = world.path("b.pcapng");
    let capture = run(&world, &agent, &file, &["-i", "lo", "--from", &from]);
    fetch(&client, port, "small");
    end(capture);
    assert_eq!(tshark(&file, "http.request", &["frame.number"]).len(), 1);
}

pub(super) fn takes_one_connection_in_some() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let file = world.path("a.pcapng");
    let to = format!("port={port}");
    let capture = run(&world, &agent, &file, &["-i", "lo", "--to", &to, "--sample", "4"]);
    for _ in 0..60 {
        fetch(&client, port, "small");
    }
    end(capture);
    let requests = tshark(&file, "http.request", &["tcp.stream"]).len();
    // 15 are expected; beyond these bounds less than once in 10,000 runs.
    assert!((2..=32).contains(&requests), "{requests} of 60");
    let answers = tshark(&file, "http.response", &["tcp.stream"]).len();
    assert_eq!(answers, requests, "connections are taken whole");
    let syns = tshark(&file, "tcp.flags.syn == 1", &["tcp.stream"]).len();
    assert_eq!(syns, 2 * requests);
}

pub(super) fn shows_calls_without_wireshark() {
    needs::program("tcpdump");
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let redis = workload::redis(&world, &world.place("redis"));
    let client = world.place("client");
    let file = world.path("a.pcapng");
    let capture = run(&world, &agent, &file, &["-i", "lo", "--from", &client.selector()]);
    fetch(&client, port, "small");
    curl(&client, &format!("http://127.0.0.1:{port}/missing"), &[]);
    let port_text = redis.to_string();
    client
        .run("redis-cli", &["-p", &port_text, "set", "user:7", "x"])
        .ok();
    end(capture);
    let shown = agent.spike(&["capture", "show", file.to_str().expect("UTF-8")]);
    let lines: Vec<&str> = shown.stdout.lines().collect();
    let has = |words: &[&str]| {
        lines
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(has(&["curl -> nginx:", "http GET /small 200"]), "{lines:#?}");
    assert!(has(&["curl -> nginx:", "http GET /missing 404"]), "{lines:#?}");
    assert!(has(&["redis-cli -> redis", "redis", "SET"]), "{lines:#?}");
    // And those in a file of another program.
    let theirs = world.path("b.pcap");
    tool(
        "editcap",
        &[
            "-F",
            "pcap",
            file.to_str().expect("UTF-8"),
            theirs.to_str().expect("UTF-8"),
        ],
    );
    let found = agent.spike(&[
        "capture",
        "show",
        "--json",
        "--find",
        "protocol=http and status=404",
        theirs.to_str().expect("UTF-8"),
    ]);
    let calls: Vec<serde_json::Value> = found
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect();
    assert_eq!(calls.len(), 1, "{calls:#?}");
    assert_eq!(calls[0]["callee"], format!("127.0.0.1:{port}"));
}
