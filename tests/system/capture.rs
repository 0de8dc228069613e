//! Captures, judged by Wireshark's tools.

use std::{path::Path, time::Duration};

use spike_tests::{
    agent::Agent,
    needs,
    oracle::{capinfos, curl, tshark},
    workload::{self, nginx},
    world::{Place, World, finish, ip, kill},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "reads_in_wireshark_with_process_and_nanoseconds",
        reads_in_wireshark_with_process_and_nanoseconds,
    ),
    (
        "takes_only_the_chosen_connections",
        takes_only_the_chosen_connections,
    ),
    ("ends_after_its_count", ends_after_its_count),
    ("goes_to_a_pipe", goes_to_a_pipe),
    ("takes_two_interfaces_at_once", takes_two_interfaces_at_once),
    (
        "shows_an_intercepted_call_as_the_application_saw_it",
        shows_an_intercepted_call_as_the_application_saw_it,
    ),
];

/// Runs `during` while a capture with these options takes packets, then ends it by Ctrl-C.
fn capture(world: &World, agent: &Agent, file: &Path, options: &[&str], during: impl FnOnce()) -> String {
    let output = file.to_str().expect("a path in UTF-8");
    let args = [&["capture", "run", "--output", output], options].concat();
    // Outside the observed cgroups would do as well.
    let child = agent.start_in(&world.place("capture"), &args);
    spike_tests::wait_for("the capture to start", Duration::from_secs(5), || {
        file.exists().then_some(())
    });
    during();
    std::thread::sleep(Duration::from_millis(300));
    kill(child.id(), libc::SIGINT);
    let done = finish(child, "spike capture");
    assert_eq!(done.code(), 0, "{}", done.stderr);
    done.stderr
}

fn fetch(client: &Place<'_>, port: u16) {
    let seen = curl(client, &format!("http://127.0.0.1:{port}/small"), &[]);
    assert_eq!(seen.code, 0, "{}", seen.error);
}

fn reads_in_wireshark_with_process_and_nanoseconds() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = world.path("a.pcapng");
    let to = format!("port={port}");
    let said = capture(&world, &agent, &file, &["-i", "lo", "--to", &to], || {
        fetch(&world.place("client"), port)
    });
    assert!(said.contains("0 lost"), "{said}");

    let info = capinfos(&file);
    assert!(info.contains("pcapng"), "{info}");
    assert!(info.contains("nanoseconds"), "{info}");
    assert!(info.contains("Name = lo"), "{info}");
    let packets = tshark(&file, "tcp", &["frame.comment", "tcp.flags.syn", "tcp.payload"]);
    // Handshake, request, response and goodbye.
    assert!(packets.len() >= 8, "{packets:#?}");
    let comments = packets
        .iter()
        .filter(|packet| packet[0].contains("curl["))
        .count();
    assert!(comments >= packets.len() / 2, "{packets:#?}");
    let requests = tshark(&file, "http.request", &["http.request.uri"]);
    assert_eq!(requests, [["/small"]]);
    assert!(
        tshark(
            &file,
            "tcp.analysis.flags or tcp.checksum.status == 0",
            &["frame.number"]
        )
        .is_empty()
    );
}

fn takes_only_the_chosen_connections() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let (chosen, other) = (world.place("chosen"), world.place("other"));
    let file = world.path("a.pcapng");
    let from = chosen.selector();
    capture(&world, &agent, &file, &["-i", "lo", "--from", &from], || {
        for _ in 0..3 {
            fetch(&other, port);
        }
        fetch(&chosen, port);
    });
    let syns = tshark(
        &file,
        "tcp.flags.syn == 1 and tcp.flags.ack == 0",
        &["tcp.stream"],
    );
    assert_eq!(syns.len(), 1, "{syns:?}");
}

fn ends_after_its_count() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let file = world.path("a.pcapng");
    let (output, to) = (file.to_str().expect("UTF-8"), format!("port={port}"));
    let args = [
        "capture", "run", "-o", output, "-i", "lo", "--count", "5", "--for", "20s", "--to", &to,
    ];
    let child = agent.start_in(&world.place("capture"), &args);
    spike_tests::wait_for("the capture to start", Duration::from_secs(5), || {
        file.exists().then_some(())
    });
    fetch(&world.place("client"), port);
    let done = finish(child, "spike capture");
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert_eq!(tshark(&file, "frame", &["frame.number"]).len(), 5);
}

fn goes_to_a_pipe() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let to = format!("port={port}");
    let file = world.path("a.pcapng");
    let line = format!(
        "{} capture run -o - -i lo --for {}s --to {to} > {}",
        spike_tests::agent::spike_bin().display(),
        needs::patience(Duration::from_secs(2)).as_secs(),
        file.display()
    );
    let child = spike_tests::world::start(
        world
            .place("capture")
            .command("sh")
            .args(["-c", &line])
            .env("SPIKE_SOCKET", agent.socket()),
    );
    std::thread::sleep(Duration::from_millis(500));
    fetch(&world.place("client"), port);
    let done = finish(child, "spike capture");
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert!(tshark(&file, "http.response", &["frame.number"]).len() == 1);
}

fn takes_two_interfaces_at_once() {
    let world = World::new();
    let netns = world.namespace();
    ip(&["-n", &netns, "link", "set", "lo", "up"]);
    let [(_, device), (address, _)] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let there = world.place("server").within(&netns);
    let echo = workload::server(&world, &there, "echo", &format!("{address}:0"));
    let client = world.place("client");
    let file = world.path("a.pcapng");
    let from = client.selector();
    capture(
        &world,
        &agent,
        &file,
        &["-i", "lo", "-i", &device, "--from", &from],
        || {
            fetch(&client, port);
            assert!(client.run_helper(&["ask", &echo]).stdout.contains("answer ping"));
        },
    );
    let info = capinfos(&file);
    assert!(
        info.contains("Name = lo") && info.contains(&format!("Name = {device}")),
        "{info}"
    );
    for name in ["lo", &device] {
        let filter = format!("frame.interface_name == \"{name}\" and tcp.len > 0");
        assert!(
            !tshark(&file, &filter, &["frame.number"]).is_empty(),
            "nothing of {name}"
        );
    }
}

fn shows_an_intercepted_call_as_the_application_saw_it() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    agent.fault(&format!("latency --delay 100ms --to port={port}"));
    let file = world.path("a.pcapng");
    let from = client.selector();
    capture(&world, &agent, &file, &["-i", "lo", "--from", &from], || {
        fetch(&client, port)
    });
    let syns = tshark(
        &file,
        "tcp.flags.syn == 1 and tcp.flags.ack == 0",
        &["tcp.dstport"],
    );
    assert_eq!(
        syns,
        [[port.to_string()]],
        "one connection, to the port that curl asked for"
    );
    let times = tshark(&file, "http.response", &["http.time"]);
    let seconds: f64 = times.first().and_then(|row| row[0].parse().ok()).unwrap_or(0.0);
    let most = 0.1 + needs::tolerance(Duration::from_millis(50)).as_secs_f64();
    assert!(
        (0.1..most).contains(&seconds),
        "tshark saw the response after {seconds} s"
    );
}
