//! Faults on packets, between two network namespaces, as the receiver counts them and Wireshark reads them.

mod damage;
mod queue;
mod restore;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
};

use spike_tests::{
    agent::Agent,
    needs, workload,
    world::{Place, World, ip},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("loss_is_within_binomial_bounds", loss_is_within_binomial_bounds),
    ("a_seed_repeats_the_losses", a_seed_repeats_the_losses),
    (
        "gilbert_elliott_losses_come_in_bursts",
        gilbert_elliott_losses_come_in_bursts,
    ),
    (
        "duplicates_are_counted_by_the_receiver",
        duplicates_are_counted_by_the_receiver,
    ),
    (
        "damage_shows_in_the_checksum",
        damage::damage_shows_in_the_checksum,
    ),
    (
        "damage_under_a_fixed_checksum_reaches_the_application",
        damage::damage_under_a_fixed_checksum_reaches_the_application,
    ),
    (
        "a_partition_cuts_one_way_or_both",
        a_partition_cuts_one_way_or_both,
    ),
    ("only_the_chosen_flows_are_hit", only_the_chosen_flows_are_hit),
    ("callers_are_chosen_over_tcp", callers_are_chosen_over_tcp),
    (
        "loopback_in_a_namespace_counts_once",
        loopback_in_a_namespace_counts_once,
    ),
    (
        "equal_indexes_in_two_namespaces_are_told_apart",
        equal_indexes_in_two_namespaces_are_told_apart,
    ),
    ("the_route_tells_the_interface", the_route_tells_the_interface),
    ("what_cannot_be_is_refused", what_cannot_be_is_refused),
    ("a_stopped_agent_lets_go", restore::a_stopped_agent_lets_go),
    (
        "the_deadline_holds_in_the_kernel",
        restore::the_deadline_holds_in_the_kernel,
    ),
    (
        "after_kill_9_nothing_is_left",
        restore::after_kill_9_nothing_is_left,
    ),
    (
        "after_kill_9_the_clsact_qdisc_is_cleaned_up",
        restore::after_kill_9_the_clsact_qdisc_is_cleaned_up,
    ),
    (
        "a_capture_and_a_fault_share_a_clsact_qdisc",
        restore::a_capture_and_a_fault_share_a_clsact_qdisc,
    ),
];

/// Those that need the fq qdisc, or need it to be absent.
pub(crate) const QUEUE_TESTS: &[Test] = &[
    ("a_configured_qdisc_stays", queue::a_configured_qdisc_stays),
    ("without_fq_latency_is_named", queue::without_fq_latency_is_named),
    ("delay_holds_packets", queue::delay_holds_packets),
    ("jitter_is_spread", queue::jitter_is_spread),
    (
        "reorder_lets_packets_overtake",
        queue::reorder_lets_packets_overtake,
    ),
    ("rate_is_kept", queue::rate_is_kept),
    ("fq_is_taken_away_again", queue::fq_is_taken_away_again),
    (
        "a_users_fq_is_used_and_stays",
        queue::a_users_fq_is_used_and_stays,
    ),
];

/// Two ends of a veth pair: one here, one in a namespace.
struct Pair<'w> {
    here: Place<'w>,
    there: Place<'w>,
    netns: String,
    address_here: String,
    device_here: String,
    address_there: String,
    device_there: String,
}

impl<'w> Pair<'w> {
    /// Between two namespaces of the test: the host's own interfaces stay as they are.
    fn new(world: &'w World) -> Self {
        let netns = world.namespace();
        ip(&["-n", &netns, "link", "set", "lo", "up"]);
        let [(address_here, device_here), (address_there, device_there)] = world.connect(None, Some(&netns));
        Self {
            here: world.place("here"),
            there: world.place("there").within(&netns),
            netns,
            address_here,
            device_here,
            address_there,
            device_there,
        }
    }

    /// What comes there of datagrams sent from here.
    fn send(&self, count: usize) -> Vec<Came> {
        let sink = Sink::start(&self.there, &self.address_there);
        send(&self.here, &self.address_here, &sink.address, count);
        sink.stop()
    }

    /// What comes here of datagrams sent from there.
    fn send_back(&self, count: usize) -> Vec<Came> {
        let sink = Sink::start(&self.here, &self.address_here);
        send(&self.there, &self.address_there, &sink.address, count);
        sink.stop()
    }

    /// The words that choose what goes to the other end and comes from it.
    fn on(&self) -> String {
        format!("-i {} --to cidr={}", self.device_here, self.address_there)
    }
}

/// A datagram that came.
#[derive(Clone, Copy, Debug)]
struct Came {
    number: u64,
    took_ns: u64,
    at_ns: u64,
    is_whole: bool,
}

/// Takes datagrams.
struct Sink {
    child: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Sink {
    fn start(place: &Place<'_>, address: &str) -> Self {
        let mut command = place.helper(&["sink-datagrams", &format!("{address}:0")]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the sink");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("read from the sink");
        let address = line.trim().strip_prefix("listening ").map(str::to_owned);
        Self {
            child,
            output,
            address: address.unwrap_or_else(|| panic!("the sink said {line:?}")),
        }
    }

    /// What came, in its order.
    fn stop(mut self) -> Vec<Came> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("read from the sink");
        self.child.wait().expect("wait for the sink");
        let each = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse().unwrap_or_else(|_| panic!("{line:?}"));
            Came {
                number: number(0),
                took_ns: number(1),
                at_ns: number(2),
                is_whole: words[3] == "whole",
            }
        };
        text.lines().map(each).collect()
    }
}

fn send(place: &Place<'_>, from: &str, to: &str, count: usize) {
    let (from, count) = (format!("{from}:0"), count.to_string());
    let done = place.run_helper(&["send-datagrams", &from, to, &count, "100", "20"]);
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
}

/// How many datagrams the tests of chance send.
fn trials() -> usize {
    if needs::is_emulated() { 2000 } else { 10_000 }
}

/// Holds a count against its share of the trials, by five standard deviations.
#[track_caller]
fn assert_share(count: usize, trials: usize, share: f64) {
    let (count, trials) = (count as f64, trials as f64);
    let bound = 5.0 * (trials * share * (1.0 - share)).sqrt();
    assert!(
        (count - trials * share).abs() <= bound,
        "{count} of {trials} at {share}"
    );
}

fn loss_is_within_binomial_bounds() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    agent.fault(&format!("loss --percent-loss 10 --name some {}", pair.on()));
    let came = pair.send(trials());
    assert_share(trials() - came.len(), trials(), 0.1);
    assert!(came.iter().all(|came| came.is_whole));
    assert_eq!(agent.fault_count("some", "matched"), trials() as u64);
    assert_eq!(
        agent.fault_count("some", "affected"),
        (trials() - came.len()) as u64,
        "what the fault counts is what did not come"
    );
    // The same fault takes what comes back.
    let back = pair.send_back(trials());
    assert_share(trials() - back.len(), trials(), 0.1);
    agent.clear();
    assert_eq!(pair.send(500).len(), 500, "none is lost without the fault");
}

fn a_seed_repeats_the_losses() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    let runs = [7, 7, 8].map(|seed| {
        agent.fault(&format!("loss --percent-loss 50 --seed {seed} {}", pair.on()));
        let came: Vec<u64> = pair.send(300).iter().map(|came| came.number).collect();
        agent.clear();
        came
    });
    assert_eq!(runs[0], runs[1], "the same seed");
    assert_ne!(runs[0], runs[2], "another seed");
}

fn gilbert_elliott_losses_come_in_bursts() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    agent.fault(&format!("loss --gemodel 4,25 --seed 3 {}", pair.on()));
    let came = pair.send(trials());
    let mut is_lost = vec![true; trials()];
    came.iter().for_each(|came| is_lost[came.number as usize] = false);
    let bursts: Vec<usize> = is_lost
        .split(|lost| !lost)
        .map(<[bool]>::len)
        .filter(|length| *length > 0)
        .collect();
    // Bad for 4 packets of 29 on average, 4 at a time.
    let mean = bursts.iter().sum::<usize>() as f64 / bursts.len() as f64;
    let bound = 5.0 * 4.0 / (bursts.len() as f64).sqrt();
    assert!(
        (mean - 4.0).abs() < bound,
        "bursts of {mean} on average, not of 4"
    );
    let share = (trials() - came.len()) as f64 / trials() as f64;
    assert!((share - 4.0 / 29.0).abs() < 0.06, "{share} lost");
}

fn duplicates_are_counted_by_the_receiver() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    agent.fault(&format!(
        "duplicate --percent-duplicate 20 --name twice {}",
        pair.on()
    ));
    for (way, came) in [("there", pair.send(trials())), ("back", pair.send_back(trials()))] {
        let mut times = vec![0_usize; trials()];
        came.iter().for_each(|came| times[came.number as usize] += 1);
        assert!(
            times.iter().all(|times| (1..=2).contains(times)),
            "{way}: each comes once or twice"
        );
        let twice = times.iter().filter(|times| **times == 2).count();
        assert_share(twice, trials(), 0.2);
    }
    assert_eq!(
        agent.fault_count("twice", "matched"),
        2 * trials() as u64,
        "a second one is not met by the fault again"
    );
}

fn a_partition_cuts_one_way_or_both() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    for (direction, there, back) in [("request", 0, 100), ("response", 100, 0), ("both", 0, 0)] {
        agent.fault(&format!("partition --direction {direction} {}", pair.on()));
        assert_eq!(pair.send(100).len(), there, "{direction}: there");
        assert_eq!(pair.send_back(100).len(), back, "{direction}: back");
        agent.clear();
    }
    // Of the whole interface: a way is told by the interface alone.
    for (direction, there, back) in [("request", 0, 100), ("response", 100, 0)] {
        agent.fault(&format!(
            "partition --everything --direction {direction} -i {}",
            pair.device_here
        ));
        // Neighbours are asked for, and answer, by the same interface.
        assert!(pair.send(100).len() <= there, "{direction}: there");
        assert!(pair.send_back(100).len() <= back, "{direction}: back");
        agent.clear();
    }
    assert_eq!(pair.send(100).len(), 100);
}

fn only_the_chosen_flows_are_hit() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    let (chosen, other) = (
        Sink::start(&pair.there, &pair.address_there),
        Sink::start(&pair.there, &pair.address_there),
    );
    let port = workload::port_of(&chosen.address);
    agent.fault(&format!(
        "partition -i {} --to cidr={}/32,port={port}",
        pair.device_here, pair.address_there
    ));
    for sink in [&chosen, &other] {
        send(&pair.here, &pair.address_here, &sink.address, 100);
    }
    assert_eq!((chosen.stop().len(), other.stop().len()), (0, 100));
    agent.clear();

    // By who sends: a datagram's sender is known by its socket.
    let below = world.place("here/below");
    let elsewhere = world.place("elsewhere");
    agent.fault(&format!(
        "partition -i {} --from {}",
        pair.device_here,
        pair.here.selector()
    ));
    for (place, expected) in [(&pair.here, 0), (&below, 0), (&elsewhere, 100)] {
        let sink = Sink::start(&pair.there, &pair.address_there);
        // Unbound, as clients are: a bound socket may be a server's.
        send(place, "0.0.0.0", &sink.address, 100);
        assert_eq!(sink.stop().len(), expected, "{}", place.selector());
    }
}

fn callers_are_chosen_over_tcp() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    let echo = workload::server(&world, &pair.there, "echo", &format!("{}:0", pair.address_there));
    let elsewhere = world.place("elsewhere");
    let asks = |place: &Place<'_>, name: &str| {
        let program = world.path(name);
        fs::copy(std::env::current_exe().expect("this program"), &program).expect("copy it");
        let text = program.to_str().expect("UTF-8");
        let done = place.run("timeout", &["2", text, "--helper", "ask", &echo]);
        done.stdout.contains("answer ping")
    };
    needs::program("timeout");
    agent.fault(&format!(
        "partition --name one -i {} --from process=chosen",
        pair.device_here
    ));
    assert!(!asks(&elsewhere, "chosen"), "the chosen program is cut off");
    assert!(asks(&elsewhere, "other"), "another one is not");
    assert!(agent.fault_count("one", "affected") > 0);
    agent.clear();
    // What comes back to the caller is known to be its own, too.
    agent.fault(&format!(
        "partition --direction response -i {} --from {}",
        pair.device_here,
        pair.here.selector()
    ));
    assert!(!asks(&pair.here, "other"));
    assert!(asks(&elsewhere, "other"));
}

fn loopback_in_a_namespace_counts_once() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    let (chosen, other) = (
        Sink::start(&pair.there, "127.0.0.1"),
        Sink::start(&pair.there, "127.0.0.1"),
    );
    let port = workload::port_of(&chosen.address);
    agent.fault(&format!(
        "loss --percent-loss 50 --name lo -i lo@{} --to port={port}",
        pair.netns
    ));
    for sink in [&chosen, &other] {
        send(&pair.there, "127.0.0.1", &sink.address, 400);
    }
    let came = chosen.stop().len();
    assert_share(came, 400, 0.5);
    assert_eq!(other.stop().len(), 400);
    assert_eq!(
        (
            agent.fault_count("lo", "matched"),
            agent.fault_count("lo", "affected")
        ),
        (400, (400 - came) as u64)
    );
}

/// `lo` is number 1 everywhere.
fn equal_indexes_in_two_namespaces_are_told_apart() {
    let world = World::new();
    let spaces = [Pair::new(&world), Pair::new(&world)];
    let agent = Agent::start(&world);
    let [left, right] = &spaces;
    agent.fault(&format!(
        "partition --everything -i lo@{} --name left",
        left.netns
    ));
    agent.fault(&format!(
        "duplicate --percent-duplicate 100 --everything -i lo@{} --name right",
        right.netns
    ));
    for (pair, expected) in [(left, 0), (right, 200)] {
        let sink = Sink::start(&pair.there, "127.0.0.1");
        send(&pair.there, "127.0.0.1", &sink.address, 100);
        assert_eq!(sink.stop().len(), expected);
    }
}

fn the_route_tells_the_interface() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    agent.fault(&format!("partition --name cut --to cidr={}", pair.address_there));
    assert_eq!(pair.send(100).len(), 0);
    assert_eq!(agent.fault_count("cut", "affected"), 100);
}

fn what_cannot_be_is_refused() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    let on = format!("-i {}", pair.device_here);
    for (words, wanted) in [
        (
            "loss --percent-loss 5 --everything -i nosuch0",
            "no interface \"nosuch0\"",
        ),
        (
            "loss --percent-loss 5 --everything -i eth0@nosuchns",
            "no network namespace \"nosuchns\"",
        ),
        ("loss --percent-loss 5 --to port=80", "name the interface"),
        (&format!("loss --percent-loss 5 {on}"), "everything"),
        (&format!("loss --percent-loss 0 --everything {on}"), "above 0"),
        (&format!("partition --from process=cur* {on}"), "plain name"),
        (
            &format!("partition --max-active 3 --everything {on}"),
            "max_active",
        ),
    ] {
        let args: Vec<&str> = ["fault", "add"].into_iter().chain(words.split(' ')).collect();
        let done = agent.spike(&args);
        assert_ne!(done.code(), 0, "{words}");
        assert!(done.stderr.contains(wanted), "{words}: {}", done.stderr);
    }
    let faults = agent.json(&["fault", "list"]);
    assert_eq!(faults["faults"].as_array().map(Vec::len), Some(0), "{faults}");
    // As many as an interface can have, and one more.
    for _ in 0..8 {
        agent.fault(&format!("loss --percent-loss 1 --everything {on}"));
    }
    let done = agent.spike(&[
        "fault",
        "add",
        "partition",
        "--everything",
        "-i",
        &pair.device_here,
    ]);
    assert!(done.stderr.contains("8 packet faults already"), "{}", done.stderr);
}
