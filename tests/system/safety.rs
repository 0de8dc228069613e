//! What happens when things go wrong: a killed agent, a second one, no rights, a bad place.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    time::Duration,
};

use spike_tests::{
    agent::{self, Agent},
    needs,
    oracle::{attached_programs, curl, programs_on_devices},
    wait_for,
    workload::{self, nginx, port_of},
    world::{World, finish, start},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("kill_9_under_load_harms_nobody", kill_9_under_load_harms_nobody),
    (
        "after_kill_9_new_connections_go_straight",
        after_kill_9_new_connections_go_straight,
    ),
    (
        "after_kill_9_of_a_capture_nothing_is_left",
        after_kill_9_of_a_capture_nothing_is_left,
    ),
    ("sigterm_leaves_nothing", sigterm_leaves_nothing),
    ("a_failed_attach_is_rolled_back", a_failed_attach_is_rolled_back),
    ("without_tcx_the_qdisc_goes_too", without_tcx_the_qdisc_goes_too),
    ("a_second_agent_is_refused", a_second_agent_is_refused),
    ("without_root_one_line_says_so", without_root_one_line_says_so),
    ("a_bad_cgroup_is_one_line", a_bad_cgroup_is_one_line),
    ("doctor_finds_this_machine_ready", doctor_finds_this_machine_ready),
    (
        "the_agents_own_calls_are_not_intercepted",
        the_agents_own_calls_are_not_intercepted,
    ),
];

/// A client that keeps calling until it is told to stop.
struct Steady(Child);

impl Steady {
    fn start(world: &World, place: &str, address: &str) -> Self {
        let mut command = world.place(place).helper(&["steady", address]);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("start the client"))
    }

    /// Calls that went well, and what the others met.
    fn stop(mut self) -> (u64, String) {
        drop(self.0.stdin.take());
        let (mut said, mut errors) = (String::new(), String::new());
        let mut lines = BufReader::new(self.0.stdout.take().expect("its output"));
        lines.read_line(&mut said).expect("read from the client");
        assert_eq!(said, "started\n");
        said.clear();
        lines.read_line(&mut said).expect("read from the client");
        let stderr = self.0.stderr.take();
        stderr
            .expect("its errors")
            .read_to_string(&mut errors)
            .expect("read from the client");
        self.0.wait().expect("wait for the client");
        let good = said.split(' ').nth(1).and_then(|word| word.parse().ok());
        (good.unwrap_or_else(|| panic!("{said}{errors}")), errors)
    }
}

/// 10 times, on an emulated processor 2; `SPIKE_KILLS=100` makes it a hundred.
fn kill_9_under_load_harms_nobody() {
    let world = World::new();
    let server = world.place("server");
    let address = workload::server(&world, &server, "echo", "127.0.0.1:0");
    let faulted = workload::server(&world, &server, "echo", "127.0.0.1:0");
    let bystanders = [0, 1].map(|_| Steady::start(&world, "bystander", &address));
    let victim = Steady::start(&world, "victim", &faulted);
    let usual = if needs::is_emulated() { 2 } else { 10 };
    let kills = std::env::var("SPIKE_KILLS").map_or(usual, |text| text.parse().expect("a number"));
    for round in 0..kills {
        let agent = Agent::start(&world);
        agent.fault(&format!(
            "latency --delay 5ms --name slow --to port={}",
            port_of(&faulted)
        ));
        wait_for("the fault to be felt", Duration::from_secs(5), || {
            (agent.fault_count("slow", "affected") > 0).then_some(())
        });
        // Another moment of the agent's life each time.
        std::thread::sleep(Duration::from_millis(round * 7 % 50));
        agent.kill9();
        let seen = world.place("fresh").run_helper(&["ask", &faulted]);
        assert!(
            seen.stdout.contains("answer ping"),
            "right after kill {round}: {}",
            seen.stdout
        );
    }
    for bystander in bystanders {
        let (good, errors) = bystander.stop();
        assert_eq!(errors, "", "unrelated connections failed");
        assert!(good > 100, "only {good} calls");
    }
    // What went through the agent was cut, as with any proxy. To call again it need not wait until the agent is all gone:
    // one call fails for each kill, and no more.
    let (good, errors) = victim.stop();
    assert!(good > 0);
    assert!(errors.lines().count() as u64 <= kills, "{kills} kills: {errors}");
    assert_nothing_left(&world);
}

#[track_caller]
fn assert_nothing_left(world: &World) {
    wait_for(
        "the programs to be gone from the cgroup",
        Duration::from_secs(2),
        || attached_programs(world).is_empty().then_some(()),
    );
    let (code, said) = Agent::check_leftovers(world);
    assert_eq!(code, 0, "spike cleanup --check: {said}");
}

fn after_kill_9_new_connections_go_straight() {
    let world = World::new();
    let port = nginx(&world, &world.place("web"));
    let agent = Agent::start(&world);
    agent.fault(&format!("latency --delay 500ms --to port={port}"));
    let client = world.place("client");
    let url = format!("http://127.0.0.1:{port}/small");
    assert!(curl(&client, &url, &[]).time >= Duration::from_millis(500));
    assert!(
        !attached_programs(&world).is_empty(),
        "bpftool does not see the agent's programs"
    );
    agent.kill9();
    let seen = curl(&client, &url, &[]);
    assert!(
        seen.code == 0 && seen.time < Duration::from_millis(450),
        "{seen:?}"
    );
    assert_nothing_left(&world);
}

fn after_kill_9_of_a_capture_nothing_is_left() {
    needs::kernel(6, 6, "packet programs that end with their agent (TCX)");
    let world = World::new();
    let before = programs_on_devices();
    let agent = Agent::start(&world);
    let file = world.path("a.pcapng");
    let args = [
        "capture",
        "run",
        "-i",
        "lo",
        "--output",
        file.to_str().expect("UTF-8"),
    ];
    let child = agent.start_in(&world.place("capture"), &args);
    wait_for("the capture to start", Duration::from_secs(5), || {
        file.exists().then_some(())
    });
    agent.kill9();
    assert_ne!(finish(child, "spike capture").code(), 0, "the capture broke off");
    wait_for("the programs to be gone from lo", Duration::from_secs(2), || {
        (programs_on_devices().len() <= before.len()).then_some(())
    });
    assert_nothing_left(&world);
}

fn sigterm_leaves_nothing() {
    let world = World::new();
    let address = workload::server(&world, &world.place("server"), "echo", "127.0.0.1:0");
    let agent = Agent::start(&world);
    agent.fault(&format!("latency --delay 1ms --to port={}", port_of(&address)));
    let client = Steady::start(&world, "client", &address);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(agent.terminate(), Some(0));
    let seen = world.place("fresh").run_helper(&["ask", &address]);
    assert!(seen.stdout.contains("answer ping"), "{}", seen.stdout);
    client.stop();
    assert_nothing_left(&world);
    assert!(!world.path("s.sock").exists(), "the socket is still there");
}

fn a_failed_attach_is_rolled_back() {
    let world = World::new();
    for step in 0..13 {
        let mut command = agent::command(&world);
        let done = finish(
            start(command.env("SPIKE_FAIL_ATTACH", step.to_string())),
            "an agent that cannot attach",
        );
        assert_ne!(done.code(), 0);
        assert!(
            done.stderr.contains("attach spike_") || done.stderr.contains("attach step"),
            "{}",
            done.stderr
        );
        assert_nothing_left(&world);
    }
}

/// What kernels before 6.6 have instead of TCX outlives a killed agent; the journal knows.
fn without_tcx_the_qdisc_goes_too() {
    let world = World::new();
    let clsact = || {
        let mut command = std::process::Command::new("tc");
        let done = finish(start(command.args(["qdisc", "show", "dev", "lo"])), "tc");
        done.stdout.contains("clsact")
    };
    assert!(!clsact(), "another program's qdisc hangs on lo");
    for killed in [false, true] {
        let mut command = agent::command(&world);
        command.env("SPIKE_NO_TCX", "1");
        let agent = Agent::start_with(&world, command);
        let file = world.path(&format!("{killed}.pcapng"));
        let output = file.to_str().expect("UTF-8");
        let child = agent.start_in(
            &world.place("capture"),
            &["capture", "run", "-i", "lo", "--output", output],
        );
        wait_for("the qdisc to be there", Duration::from_secs(5), || {
            clsact().then_some(())
        });
        if killed {
            agent.kill9();
            finish(child, "spike capture");
            assert_eq!(
                Agent::check_leftovers(&world).0,
                1,
                "cleanup --check names what is left"
            );
            // The next agent cleans up.
            let next = Agent::start(&world);
            assert!(!clsact());
            assert_eq!(next.terminate(), Some(0));
        } else {
            spike_tests::world::kill(child.id(), libc::SIGINT);
            assert_eq!(finish(child, "spike capture").code(), 0);
            wait_for("the qdisc to be gone", Duration::from_secs(2), || {
                (!clsact()).then_some(())
            });
            assert_eq!(agent.terminate(), Some(0));
        }
    }
    assert_nothing_left(&world);
}

fn a_second_agent_is_refused() {
    let world = World::new();
    let agent = Agent::start(&world);
    let done = finish(start(&mut agent::command(&world)), "a second agent");
    assert_ne!(done.code(), 0);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    assert!(done.stderr.contains("another spike agent"), "{}", done.stderr);
    assert!(done.stderr.contains(&agent.pid().to_string()), "{}", done.stderr);
    assert_eq!(agent.spike(&["status"]).code(), 0, "the first one still works");
}

fn without_root_one_line_says_so() {
    let world = World::new();
    let copy = world.path("spike");
    std::fs::copy(agent::spike_bin(), &copy).expect("copy the program to where all may run it");
    let dir = copy.parent().expect("a directory");
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("open the directory");
    let mut command = world.place("nobody").command("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"])
        .arg(&copy);
    command
        .args(["agent", "--listen", "off", "--state-dir"])
        .arg(world.path("mine"));
    command
        .arg("--socket")
        .arg(world.path("m.sock"))
        .stdin(Stdio::null());
    let done = finish(start(&mut command), "an agent without rights");
    assert_eq!(done.code(), 1, "{}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    assert!(
        done.stderr.contains("root") || done.stderr.contains("CAP_"),
        "{}",
        done.stderr
    );
}

fn a_bad_cgroup_is_one_line() {
    let world = World::new();
    for wrong in ["/nowhere", "/tmp"] {
        let mut command = agent::command(&world);
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let at = args.iter().position(|arg| arg == "--cgroup").expect("the option") + 1;
        let mut args = args;
        args[at] = wrong.into();
        command = std::process::Command::new(agent::spike_bin());
        let done = finish(start(command.args(args).stdin(Stdio::null())), "an agent");
        assert_eq!(done.code(), 1, "{}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        assert!(done.stderr.contains(wrong), "{}", done.stderr);
    }
}

fn doctor_finds_this_machine_ready() {
    let world = World::new();
    let done = world
        .place("operator")
        .run(agent::spike_bin().to_str().expect("UTF-8"), &["doctor"]);
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
}

fn the_agents_own_calls_are_not_intercepted() {
    let world = World::new();
    let port = nginx(&world, &world.place("web"));
    let mut command = world.place("agent").command(agent::spike_bin());
    // This agent is within the cgroup that it observes.
    let plain = agent::command(&world);
    command.args(plain.get_args()).stdin(Stdio::null());
    let agent = Agent::start_with(&world, command);
    let delay = Duration::from_millis(100);
    agent.fault("latency --delay 100ms --name all --everything");
    let seen = curl(
        &world.place("client"),
        &format!("http://127.0.0.1:{port}/small"),
        &[],
    );
    assert_eq!(seen.code, 0, "{}", seen.error);
    assert!(
        seen.time >= delay && seen.time < delay + needs::tolerance(Duration::from_millis(50)),
        "delayed once, not in a circle: {:?}",
        seen.time
    );
    assert_eq!(agent.fault_count("all", "matched"), 1);
}
