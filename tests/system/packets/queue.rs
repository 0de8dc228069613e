//! Packets that wait, which needs the fq qdisc; and what is said and kept where it is not to be had.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use spike_tests::{
    agent::Agent,
    needs,
    world::{World, finish, start},
};

use super::{
    Pair, Sink, assert_share,
    restore::{clean_up, qdiscs},
    send,
};

fn tc(args: &[&str]) -> i32 {
    let mut command = Command::new("tc");
    finish(start(command.args(args).stdin(Stdio::null())), "tc").code()
}

/// Tried on an interface of the test, which is then as it was.
fn has_fq(pair: &Pair<'_>) -> bool {
    let device = &pair.device_here;
    let had = tc(&["qdisc", "add", "dev", device, "root", "fq"]) == 0;
    if had {
        assert_eq!(tc(&["qdisc", "del", "dev", device, "root"]), 0);
    }
    had
}

fn needs_fq(pair: &Pair<'_>) {
    if !has_fq(pair) {
        needs::skip("this kernel has no fq qdisc");
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

pub(super) fn a_configured_qdisc_stays() {
    let world = World::new();
    let pair = Pair::new(&world);
    assert_eq!(
        tc(&[
            "qdisc",
            "add",
            "dev",
            &pair.device_here,
            "root",
            "pfifo",
            "limit",
            "77"
        ]),
        0
    );
    let before = qdiscs(&pair.device_here);
    let agent = Agent::start(&world);
    for (words, instead) in [
        ("delay --delay 10ms", "latency"),
        ("jitter --jitter 10ms", "latency"),
        ("reorder --percent-reorder 5 --delay 10ms", "latency"),
        ("rate --rate 1mbit", "bandwidth"),
    ] {
        let on = pair.on();
        let words = ["fault", "add"]
            .into_iter()
            .chain(words.split(' '))
            .chain(on.split(' '));
        let done = agent.spike(&words.collect::<Vec<_>>());
        assert_ne!(done.code(), 0);
        let said = &done.stderr;
        assert!(said.contains("pfifo") && said.contains(instead), "{said}");
    }
    assert_eq!(qdiscs(&pair.device_here), before);
    // What need not wait is none of the qdisc's business.
    agent.fault(&format!("partition {}", pair.on()));
    assert_eq!(pair.send(20).len(), 0);
    // Before kernel 6.6 there is a clsact qdisc beside it.
    assert!(qdiscs(&pair.device_here).starts_with(&before));
    agent.clear();
    assert_eq!(qdiscs(&pair.device_here), before);
}

pub(super) fn without_fq_latency_is_named() {
    let world = World::new();
    let pair = Pair::new(&world);
    if has_fq(&pair) {
        needs::skip("this kernel has the fq qdisc");
    }
    let before = qdiscs(&pair.device_here);
    let agent = Agent::start(&world);
    let on = pair.on();
    let words = ["fault", "add", "delay", "--delay", "10ms"]
        .into_iter()
        .chain(on.split(' '));
    let done = agent.spike(&words.collect::<Vec<_>>());
    assert_ne!(done.code(), 0);
    assert!(
        done.stderr.contains("no fq qdisc") && done.stderr.contains("`latency`"),
        "{}",
        done.stderr
    );
    assert_eq!(qdiscs(&pair.device_here), before);
    assert_eq!(Agent::check_leftovers(&world).0, 0);
    let doctor = agent.json(&["doctor"]);
    let checks = doctor["checks"].as_array().expect("checks");
    let fq = checks
        .iter()
        .find(|check| check["name"] == "fq qdisc")
        .expect("a line for fq");
    assert_eq!(fq["present"], false, "{fq}");
}

pub(super) fn delay_holds_packets() {
    let world = World::new();
    let pair = Pair::new(&world);
    needs_fq(&pair);
    let agent = Agent::start(&world);
    agent.fault(&format!("delay --delay 100ms --name late {}", pair.on()));
    let mut took: Vec<f64> = pair
        .send(200)
        .iter()
        .map(|came| milliseconds(came.took_ns))
        .collect();
    assert_eq!(took.len(), 200, "none is lost");
    took.sort_by(f64::total_cmp);
    let most = 100.0 + needs::tolerance(Duration::from_millis(20)).as_secs_f64() * 1000.0;
    assert!(
        took[0] >= 100.0 && took[100] < most,
        "from {} ms, median {} ms",
        took[0],
        took[100]
    );
    assert_eq!(agent.fault_count("late", "affected"), 200);
    // What comes back does not leave by this interface.
    let back = pair.send_back(50);
    assert!(back.iter().any(|came| milliseconds(came.took_ns) < 100.0));
    agent.clear();
    let after = pair.send(50);
    assert!(after.iter().any(|came| milliseconds(came.took_ns) < 100.0));
}

pub(super) fn jitter_is_spread() {
    let world = World::new();
    let pair = Pair::new(&world);
    needs_fq(&pair);
    let agent = Agent::start(&world);
    agent.fault(&format!("delay --delay 200ms --jitter 100ms {}", pair.on()));
    let came = pair.send(400);
    assert_eq!(came.len(), 400);
    let mut took: Vec<f64> = came.iter().map(|came| milliseconds(came.took_ns)).collect();
    took.sort_by(f64::total_cmp);
    assert!(took[0] >= 100.0, "{} ms", took[0]);
    // Quartiles of an even spread, by how far they are apart: a slow machine moves them together.
    let spread = took[300] - took[100];
    assert!(
        (50.0..200.0).contains(&spread),
        "the middle half is {spread} ms wide, not 100"
    );
    assert!(
        came.windows(2).any(|two| two[1].number < two[0].number),
        "packets overtake each other"
    );
    agent.clear();
    agent.fault(&format!("jitter --jitter 100ms {}", pair.on()));
    let mut took: Vec<f64> = pair
        .send(400)
        .iter()
        .map(|came| milliseconds(came.took_ns))
        .collect();
    took.sort_by(f64::total_cmp);
    let spread = took[300] - took[100];
    assert!(
        (20.0..110.0).contains(&spread),
        "the middle half is {spread} ms wide, not 50"
    );
}

pub(super) fn reorder_lets_packets_overtake() {
    let world = World::new();
    let pair = Pair::new(&world);
    needs_fq(&pair);
    let agent = Agent::start(&world);
    agent.fault(&format!(
        "reorder --percent-reorder 10 --delay 300ms --name swap {}",
        pair.on()
    ));
    let count = 1000;
    let came = pair.send(count);
    assert_eq!(came.len(), count, "none is lost");
    let held = came
        .iter()
        .filter(|came| milliseconds(came.took_ns) >= 300.0)
        .count();
    let affected = agent.fault_count("swap", "affected") as usize;
    assert_share(affected, count, 0.1);
    assert!(held >= affected, "{held} held, {affected} affected");
    let mut latest = 0;
    let overtaken = came
        .iter()
        .filter(|came| {
            latest = latest.max(came.number);
            came.number < latest
        })
        .count();
    assert!(overtaken > affected / 2, "{overtaken} overtaken of {affected}");
}

pub(super) fn rate_is_kept() {
    let world = World::new();
    let pair = Pair::new(&world);
    needs_fq(&pair);
    let agent = Agent::start(&world);
    agent.fault(&format!("rate --rate 1mbit --name slow {}", pair.on()));
    let sink = Sink::start(&pair.there, &pair.address_there);
    // 142 bytes each on the wire: 1.136 ms at that rate, in all 1.14 s.
    send(&pair.here, &pair.address_here, &sink.address, 1001);
    std::thread::sleep(Duration::from_secs(1));
    let came = sink.stop();
    assert_eq!(came.len(), 1001, "none is lost");
    let first = came.first().map_or(0, |came| came.at_ns);
    let last = came.last().map_or(0, |came| came.at_ns);
    let seconds = (last - first) as f64 / 1e9;
    let most = 1.136 + needs::tolerance(Duration::from_millis(100)).as_secs_f64();
    assert!((1.11..most).contains(&seconds), "{seconds} s");
    assert_eq!(agent.fault_count("slow", "affected"), 1001);
}

pub(super) fn fq_is_taken_away_again() {
    let world = World::new();
    let pair = Pair::new(&world);
    needs_fq(&pair);
    let before = qdiscs(&pair.device_here);
    let agent = Agent::start(&world);
    let arm = |agent: &Agent| agent.fault(&format!("delay --delay 50ms --name late {}", pair.on()));
    arm(&agent);
    assert!(
        qdiscs(&pair.device_here).contains("fq"),
        "{}",
        qdiscs(&pair.device_here)
    );
    // It stays as long as one fault needs it.
    agent.fault(&format!("rate --rate 1gbit --name slow {}", pair.on()));
    agent.fault(&format!("loss --percent-loss 1 --name loss {}", pair.on()));
    agent.spike(&["fault", "remove", "late"]).ok();
    assert!(qdiscs(&pair.device_here).contains("fq"));
    agent.spike(&["fault", "remove", "slow"]).ok();
    let without = qdiscs(&pair.device_here);
    assert!(!without.contains("fq 5350"), "{without}");
    agent.clear();
    assert_eq!(qdiscs(&pair.device_here), before);

    arm(&agent);
    agent.kill9();
    let (code, said) = Agent::check_leftovers(&world);
    assert!(code == 1 && said.contains("fq qdisc"), "{said}");
    let said = clean_up(&world);
    assert!(said.contains("removed: fq qdisc"), "{said}");
    assert_eq!(qdiscs(&pair.device_here), before);
    assert_eq!(Agent::check_leftovers(&world).0, 0);

    let agent = Agent::start(&world);
    arm(&agent);
    agent.kill9();
    let next = Agent::start(&world);
    assert_eq!(qdiscs(&pair.device_here), before);
    arm(&next);
    assert_eq!(next.terminate(), Some(0));
    assert_eq!(qdiscs(&pair.device_here), before);
}

pub(super) fn a_users_fq_is_used_and_stays() {
    let world = World::new();
    let pair = Pair::new(&world);
    needs_fq(&pair);
    let device = &pair.device_here;
    assert_eq!(
        tc(&["qdisc", "add", "dev", device, "root", "handle", "7:", "fq"]),
        0
    );
    let before = qdiscs(device);
    let agent = Agent::start(&world);
    agent.fault(&format!("delay --delay 50ms {}", pair.on()));
    let came = pair.send(50);
    assert!(
        came.iter().all(|came| milliseconds(came.took_ns) >= 50.0),
        "{came:?}"
    );
    agent.clear();
    assert_eq!(qdiscs(device), before);
}
