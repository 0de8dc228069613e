//! UDP datagrams delayed, lost and doubled, as the client saw it.

use std::time::Duration;

use spike_tests::{
    agent::Agent,
    needs, wait_for,
    workload::{self, port_of},
    world::{Done, Place, World, ip},
};

use crate::{
    Test,
    calls::{dns, own_address},
};

pub(crate) const TESTS: &[Test] = &[
    ("datagrams_are_delayed", datagrams_are_delayed),
    ("datagrams_are_lost", datagrams_are_lost),
    ("datagrams_come_twice", datagrams_come_twice),
    ("half_of_the_datagrams_are_lost", half_of_the_datagrams_are_lost),
    ("a_removed_delay_lets_go", a_removed_delay_lets_go),
    (
        "a_resolver_is_delayed_and_its_server_is_not",
        a_resolver_is_delayed_and_its_server_is_not,
    ),
    ("datagrams_within_a_namespace", datagrams_within_a_namespace),
];

/// One answer that a client saw.
#[derive(Debug, PartialEq)]
struct Answer {
    from: String,
    text: String,
    after: Duration,
}

fn answers(done: &Done) -> Vec<Answer> {
    let parse = |line: &str| {
        let (from, rest) = line.split_once(' ')?;
        let (text, after) = rest.split_once(" after ")?;
        let after = Duration::from_millis(after.parse().ok()?);
        Some(Answer {
            from: from.to_owned(),
            text: text.to_owned(),
            after,
        })
    };
    let mut answers: Vec<Answer> = done.stdout.lines().filter_map(parse).collect();
    answers.sort_by(|a, b| a.text.cmp(&b.text));
    answers
}

/// Three servers for each IP version, and the words that choose them.
fn servers(world: &World) -> ([Vec<String>; 2], Vec<String>) {
    let place = world.place("server");
    let start = |address: &str| -> Vec<String> {
        let one = |_| workload::server(world, &place, "datagram-echo", address);
        (0..3).map(one).collect()
    };
    let addresses = [start("127.0.0.1:0"), start("[::1]:0")];
    let ports = addresses
        .iter()
        .flatten()
        .map(|address| port_of(address).to_string());
    let ports = ports.collect();
    (addresses, ports)
}

fn ask(client: &Place<'_>, addresses: &[String]) -> Vec<Answer> {
    let mut args = vec!["datagrams"];
    args.extend(addresses.iter().map(String::as_str));
    answers(&client.run_helper(&args))
}

/// Each server's answer came from the address that was asked.
#[track_caller]
fn assert_answered(addresses: &[String], answers: &[Answer], times: usize) {
    assert_eq!(answers.len(), addresses.len() * times, "{answers:?}");
    for (number, address) in addresses.iter().enumerate() {
        let text = format!("ask {number}");
        let of_it = answers.iter().filter(|answer| answer.text == text);
        assert_eq!(
            of_it.filter(|answer| answer.from == *address).count(),
            times,
            "{answers:?}"
        );
    }
}

fn datagrams_are_delayed() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (addresses, _) = servers(&world);
    let client = world.place("client");
    let delay = Duration::from_millis(300);
    agent.fault(&format!(
        "udp_delay --delay 300ms --name slow --from {}",
        client.selector()
    ));
    for addresses in &addresses {
        let seen = ask(&client, addresses);
        assert_answered(addresses, &seen, 1);
        let range = delay..delay + needs::tolerance(Duration::from_millis(500));
        assert!(
            seen.iter().all(|answer| range.contains(&answer.after)),
            "{seen:?}"
        );
        let done = client.run_helper(&["datagram-connected", &addresses[0]]);
        assert!(
            done.stdout.contains(&format!("peer {}\n", addresses[0])),
            "{}",
            done.stdout
        );
        let seen = answers(&done);
        assert_answered(&addresses[..1], &seen, 1);
        assert!(range.contains(&seen[0].after), "{seen:?}");
    }
    assert_eq!(agent.fault_count("slow", "affected"), 8);
    // Others are left alone.
    let free = ask(&world.place("other"), &addresses[0]);
    assert_answered(&addresses[0], &free, 1);
    assert!(free.iter().all(|answer| answer.after < delay), "{free:?}");
    agent.clear();
    let free = ask(&client, &addresses[1]);
    assert_answered(&addresses[1], &free, 1);
    assert!(free.iter().all(|answer| answer.after < delay), "{free:?}");
}

fn datagrams_are_lost() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (addresses, ports) = servers(&world);
    let client = world.place("client");
    for direction in ["request", "response"] {
        agent.fault(&format!(
            "udp_drop --direction {direction} --to port={}",
            ports[1]
        ));
        let seen = ask(&client, &addresses[0]);
        let texts: Vec<&str> = seen.iter().map(|answer| answer.text.as_str()).collect();
        assert_eq!(texts, ["ask 0", "ask 2"], "{direction}");
        let done = client.run_helper(&["datagram-connected", &addresses[0][1]]);
        assert_eq!(answers(&done), [], "{direction}");
        agent.clear();
    }
    assert_answered(&addresses[0], &ask(&client, &addresses[0]), 1);
}

fn datagrams_come_twice() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (addresses, _) = servers(&world);
    let client = world.place("client");
    agent.fault(&format!("udp_duplicate --from {}", client.selector()));
    for addresses in &addresses {
        assert_answered(addresses, &ask(&client, addresses), 2);
    }
}

fn half_of_the_datagrams_are_lost() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (addresses, ports) = servers(&world);
    let client = world.place("client");
    agent.fault(&format!(
        "udp_drop --percent 50 --seed 7 --name half --to port={}",
        ports[0]
    ));
    let many = vec![addresses[0][0].clone(); 200];
    let seen = ask(&client, &many);
    // Five standard deviations of a fair coin's 200 throws.
    assert!((65..=135).contains(&seen.len()), "{}", seen.len());
    let (matched, affected) = (
        agent.fault_count("half", "matched"),
        agent.fault_count("half", "affected"),
    );
    assert_eq!((matched, matched - affected), (200, seen.len() as u64));
}

fn a_removed_delay_lets_go() {
    let world = World::new();
    let agent = Agent::start(&world);
    let (addresses, ports) = servers(&world);
    let client = world.place("client");
    agent.fault(&format!(
        "udp_delay --delay 1m --name held --to port={}",
        ports[0]
    ));
    let child = client.helper(&["datagrams", &addresses[0][0]]);
    let mut child = child;
    let child = spike_tests::world::start(&mut child);
    wait_for("the datagram to be held", Duration::from_secs(5), || {
        (agent.fault_count("held", "active") == 1).then_some(())
    });
    agent.clear();
    let done = spike_tests::world::finish(child, "the client");
    assert_answered(&addresses[0][..1], &answers(&done), 1);
}

fn a_resolver_is_delayed_and_its_server_is_not() {
    let world = World::new();
    let agent = Agent::start(&world);
    let resolver = own_address(31);
    let resolv = dns(&world, &resolver, &[("db.shop.test", "10.9.8.7")]);
    let resolve = |place: &str| {
        // Many programs ask for both versions of IP in one go; `ahostsv4` asks once.
        let script = format!("mount --bind {resolv} /etc/resolv.conf && getent ahostsv4 db.shop.test");
        let start = std::time::Instant::now();
        let done = world
            .place(place)
            .run("unshare", &["--mount", "sh", "-c", &script]);
        (done, start.elapsed())
    };
    let delay = Duration::from_millis(800);
    agent.fault(&format!(
        "udp_delay --delay 800ms --name slow --from {} --to port=53",
        world.place("slow").selector()
    ));
    let (done, took) = resolve("slow");
    assert!(done.ok().contains("10.9.8.7"));
    assert!(took >= delay, "{took:?}");
    assert!(agent.fault_count("slow", "affected") >= 1);
    let (done, took) = resolve("other");
    assert!(done.ok().contains("10.9.8.7"));
    assert!(took < delay, "{took:?}");
    agent.clear();
    // The server itself answers from a port of its own, which is no call of its.
    agent.fault(&format!(
        "udp_drop --direction both --name server --from {}",
        world.place("dns").selector()
    ));
    let (done, _) = resolve("other");
    assert!(done.ok().contains("10.9.8.7"));
    assert_eq!(agent.fault_count("server", "matched"), 0);
    agent.clear();
    agent.fault("udp_drop --from process=getent --to port=53");
    let (done, _) = resolve("other");
    assert_ne!(done.code(), 0, "{}", done.stdout);
}

fn datagrams_within_a_namespace() {
    let world = World::new();
    let netns = world.namespace();
    ip(&["-n", &netns, "link", "set", "lo", "up"]);
    let [(host, _), (own, _)] = world.connect(None, Some(&netns));
    let agent = Agent::start(&world);
    let address = workload::server(
        &world,
        &world.place("server"),
        "datagram-echo",
        &format!("{host}:0"),
    );
    let client = world.place("client").within(&netns);
    let _ = own;
    agent.fault(&format!(
        "udp_duplicate --name twice --from {}",
        client.selector()
    ));
    wait_for("the fault in the namespace", Duration::from_secs(10), || {
        (ask(&client, std::slice::from_ref(&address)).len() == 2).then_some(())
    });
    assert_answered(
        std::slice::from_ref(&address),
        &ask(&client, std::slice::from_ref(&address)),
        2,
    );
}
