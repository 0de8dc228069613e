//! Packet faults end with their agent, however it ends, and leave interfaces as they were.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use spike_tests::{
    agent::{self, Agent},
    needs,
    oracle::programs_on_devices,
    wait_for,
    world::{World, finish, kill, start},
};

use super::Pair;

/// What tc says of the qdiscs of an interface here.
pub(super) fn qdiscs(device: &str) -> String {
    let mut command = Command::new("tc");
    command
        .args(["qdisc", "show", "dev", device])
        .stdin(Stdio::null());
    finish(start(&mut command), "tc").ok()
}

/// `spike cleanup`, which must succeed; gives what it said.
pub(super) fn clean_up(world: &World) -> String {
    let mut command = Command::new(agent::spike_bin());
    command.args(["cleanup", "--state-dir"]).arg(world.path("state"));
    finish(start(command.stdin(Stdio::null())), "spike cleanup").ok()
}

pub(super) fn a_stopped_agent_lets_go() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    agent.fault(&format!("partition {}", pair.on()));
    assert_eq!(pair.send(50).len(), 0);
    kill(agent.pid(), libc::SIGSTOP);
    let stopped = Instant::now();
    wait_for("packets to pass", needs::patience(Duration::from_secs(4)), || {
        (pair.send(10).len() == 10).then_some(())
    });
    // Sending and counting takes most of a second by itself.
    let took = stopped.elapsed();
    assert!(
        took < needs::tolerance(Duration::from_millis(4000)),
        "after {took:?}"
    );
    kill(agent.pid(), libc::SIGCONT);
    wait_for("packets to be lost again", Duration::from_secs(5), || {
        pair.send(10).is_empty().then_some(())
    });
}

/// A stopped agent cannot end its fault; the agent's sign of life is younger than the deadline here.
pub(super) fn the_deadline_holds_in_the_kernel() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    let ttl = needs::patience(Duration::from_secs(1)).as_secs();
    agent.fault(&format!("partition --ttl {ttl}s {}", pair.on()));
    assert_eq!(pair.send(10).len(), 0);
    wait_for(
        "the fault to end",
        needs::patience(Duration::from_secs(4)),
        || (pair.send(10).len() == 10).then_some(()),
    );
    let faults = agent.json(&["fault", "list"]);
    assert_eq!(faults["faults"].as_array().map(Vec::len), Some(0), "{faults}");
}

pub(super) fn after_kill_9_nothing_is_left() {
    needs::kernel(6, 6, "packet programs that end with their agent (TCX)");
    let world = World::new();
    let pair = Pair::new(&world);
    let before = (programs_on_devices().len(), qdiscs(&pair.device_here));
    let agent = Agent::start(&world);
    agent.fault(&format!("partition {}", pair.on()));
    agent.fault(&format!(
        "partition --everything --name there -i {}@{}",
        pair.device_there, pair.netns
    ));
    assert_eq!(pair.send(50).len(), 0);
    agent.kill9();
    wait_for("packets to pass", Duration::from_secs(3), || {
        (pair.send(10).len() == 10).then_some(())
    });
    assert_eq!((programs_on_devices().len(), qdiscs(&pair.device_here)), before);
    let (code, said) = Agent::check_leftovers(&world);
    assert_eq!(code, 0, "{said}");
}

/// What kernels before 6.6 have instead of TCX outlives a killed agent: harmless by itself, and known to the journal.
pub(super) fn after_kill_9_the_clsact_qdisc_is_cleaned_up() {
    let world = World::new();
    let pair = Pair::new(&world);
    let there = |tool: &str| pair.there.run("tc", &["qdisc", "show", "dev", tool]).ok();
    let before = (qdiscs(&pair.device_here), there(&pair.device_there));
    let with_clsact = || {
        let mut command = agent::command(&world);
        command.env("SPIKE_NO_TCX", "1");
        Agent::start_with(&world, command)
    };
    let agent = with_clsact();
    let arm = |agent: &Agent| {
        agent.fault(&format!("partition --name here {}", pair.on()));
        agent.fault(&format!(
            "partition --everything --name there -i {}@{}",
            pair.device_there, pair.netns
        ));
    };
    arm(&agent);
    assert!(qdiscs(&pair.device_here).contains("clsact"));
    assert!(there(&pair.device_there).contains("clsact"));
    assert_eq!(pair.send(50).len(), 0);
    // Removed properly, all of it goes.
    agent.clear();
    assert_eq!((qdiscs(&pair.device_here), there(&pair.device_there)), before);
    assert_eq!(pair.send(50).len(), 50);

    arm(&agent);
    agent.kill9();
    wait_for("packets to pass", needs::patience(Duration::from_secs(4)), || {
        (pair.send(10).len() == 10).then_some(())
    });
    let (code, said) = Agent::check_leftovers(&world);
    assert_eq!(code, 1, "{said}");
    for left in [
        "filter spike_packets_in",
        "filter spike_packets_out",
        "clsact qdisc",
    ] {
        assert_eq!(said.matches(left).count(), 2, "{left} on two interfaces: {said}");
    }
    let said = clean_up(&world);
    assert!(said.contains("removed: clsact qdisc"), "{said}");
    assert_eq!((qdiscs(&pair.device_here), there(&pair.device_there)), before);
    assert_eq!(Agent::check_leftovers(&world).0, 0);

    // The next agent does the same at its start.
    let agent = with_clsact();
    arm(&agent);
    agent.kill9();
    let next = with_clsact();
    assert_eq!((qdiscs(&pair.device_here), there(&pair.device_there)), before);
    assert_eq!(next.terminate(), Some(0));
}

pub(super) fn a_capture_and_a_fault_share_a_clsact_qdisc() {
    let world = World::new();
    let pair = Pair::new(&world);
    let before = qdiscs(&pair.device_here);
    let mut command = agent::command(&world);
    command.env("SPIKE_NO_TCX", "1");
    let agent = Agent::start_with(&world, command);
    for fault_first in [true, false] {
        let file = world.path(&format!("{fault_first}.pcapng"));
        let output = file.to_str().expect("UTF-8").to_owned();
        let fault = || agent.fault(&format!("partition {}", pair.on()));
        let capture = || {
            let args = ["capture", "run", "-i", &pair.device_here, "--output", &output];
            let child = agent.start_in(&world.place("capture"), &args);
            wait_for("the capture to start", Duration::from_secs(5), || {
                file.exists().then_some(())
            });
            child
        };
        if fault_first {
            fault();
        }
        let child = capture();
        if !fault_first {
            fault();
        }
        // Who came first goes first; the other keeps what it needs.
        if fault_first {
            agent.clear();
        } else {
            kill(child.id(), libc::SIGINT);
        }
        assert!(qdiscs(&pair.device_here).contains("clsact"));
        if fault_first {
            kill(child.id(), libc::SIGINT);
        }
        assert_eq!(finish(child, "spike capture").code(), 0);
        if !fault_first {
            assert_eq!(pair.send(20).len(), 0, "the fault is still there");
            agent.clear();
        }
        wait_for("the qdisc to be gone", Duration::from_secs(3), || {
            (qdiscs(&pair.device_here) == before).then_some(())
        });
    }
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(Agent::check_leftovers(&world).0, 0);
}
