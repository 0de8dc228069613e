//! Several interfaces in several network namespaces, in one file.

use spike_tests::{
    agent::Agent,
    oracle::{capinfos, tool, tshark},
    workload::{self, nginx},
    world::{World, ip},
};

use super::{end, fetch, run};

pub(super) fn sees_other_namespaces() {
    let world = World::new();
    let netns = world.namespace();
    ip(&["-n", &netns, "link", "set", "lo", "up"]);
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let inside = world.place("inside").within(&netns);
    let echo = workload::server(&world, &inside, "echo", "127.0.0.1:0");
    let client = world.place("client");
    let file = world.path("a.pcapng");
    let there = format!("lo@{netns}");
    let capture = run(&world, &agent, &file, &["-i", "lo", "-i", &there]);
    fetch(&client, port, "small");
    inside.run_helper(&["ask", &echo]).ok();
    end(capture);
    assert!(capinfos(&file).contains(&format!("Name = {there}")));
    let port_text = port.to_string();
    let rows = tshark(
        &file,
        "tcp.len > 0",
        &["frame.interface_name", "tcp.dstport", "frame.comment"],
    );
    let of = |name: &str| rows.iter().filter(|row| row[0] == name).collect::<Vec<_>>();
    let inner = of(&there);
    assert_eq!(inner.len(), 2, "a question and its answer: {rows:#?}");
    assert!(
        inner.iter().all(|row| row[2].matches('[').count() == 2),
        "{inner:#?}"
    );
    assert!(of("lo").iter().any(|row| row[1] == port_text), "{rows:#?}");
    // By the id of a process in it, and everything everywhere.
    let file = world.path("b.pcapng");
    let capture = run(&world, &agent, &file, &["-i", "any@*", "--filter", "tcp"]);
    inside.run_helper(&["ask", &echo]).ok();
    end(capture);
    let rows = tshark(&file, "tcp.len > 0", &["frame.interface_name"]);
    assert_eq!(rows.iter().filter(|row| row[0] == there).count(), 2, "{rows:#?}");
    let refused = agent.spike(&["capture", "start", "-i", "eth0@nowhere"]);
    assert!(refused.stderr.contains("nowhere"), "{}", refused.stderr);
}

pub(super) fn takes_each_packet_once() {
    let world = World::new();
    let netns = world.namespace();
    let [(_, device), (address, inner)] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let there = world.place("server").within(&netns);
    let echo = workload::server(&world, &there, "echo", &format!("{address}:0"));
    let client = world.place("client");
    let from = client.selector();
    let both = format!("{inner}@{netns}");
    let packets = |name: &str, more: &[&str]| {
        let file = world.path(name);
        let options = [&["-i", &device, "-i", &both, "--from", &from], more].concat();
        let capture = run(&world, &agent, &file, &options);
        client.run_helper(&["ask", &echo]).ok();
        end(capture);
        file
    };
    let once = packets("once.pcapng", &[]);
    let twice = packets("twice.pcapng", &["--duplicates"]);
    let count = |file: &std::path::Path, filter: &str| tshark(file, filter, &["frame.number"]).len();
    assert_eq!(count(&once, "tcp.len > 0"), 2);
    assert_eq!(count(&twice, "tcp.len > 0"), 4);
    assert_eq!(
        2 * count(&once, "tcp.flags.syn == 1"),
        count(&twice, "tcp.flags.syn == 1")
    );
    assert_eq!(count(&once, "tcp.analysis.retransmission"), 0);
    // The address in the other namespace goes by the service there.
    let hosts = tool(
        "tshark",
        &["-r", once.to_str().expect("UTF-8"), "-q", "-z", "hosts"],
    );
    let named = hosts.lines().find(|line| line.starts_with(&address));
    assert!(named.is_some_and(|line| line.contains("system")), "{hosts}");
}
