//! `spike top` in a real terminal: tmux, and what its screen shows.

use std::{process::Command, time::Duration};

use serde_json::Value;
use spike_tests::{
    agent::{Agent, spike_bin},
    needs, wait_for,
    world::World,
};

use super::busy_shop;

const LIMIT: Duration = Duration::from_secs(20);

/// A tmux server of the test's own; killed with it.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn start(world: &World, agent: &Agent) -> Self {
        let terminal = Self {
            socket: world.path("tmux").to_string_lossy().into_owned(),
        };
        let line = format!(
            "SPIKE_SOCKET={} exec {} top 2>{}",
            agent.socket(),
            spike_bin().display(),
            world.path("top.log").display()
        );
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "120",
            "-y",
            "36",
            &line,
        ]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let done = Command::new("tmux")
            .args(["-S", &self.socket])
            .args(args)
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .output()
            .expect("run tmux");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn shows(&self, what: &str, is_shown: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let end = std::time::Instant::now() + needs::patience(LIMIT);
        while std::time::Instant::now() < end {
            last = self.screen();
            if is_shown(&last) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the screen does not show {what}:\n{last}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

pub(super) fn top_shows_the_edges_and_breaks_one() {
    needs::program("tmux");
    let world = World::new();
    let (_shop, agent) = busy_shop(&world);
    let terminal = Terminal::start(&world, &agent);
    let has_edges = |screen: &str| {
        let is_line = |line: &str| line.contains("orders") && line.contains("stock") && line.contains("/s");
        screen.starts_with("spike top") && screen.lines().any(is_line)
    };
    terminal.shows("the edges", has_edges);

    // Sorting and filtering.
    terminal.keys(&["s"]);
    terminal.shows("the new order", |screen| screen.contains("by errors"));
    terminal.keys(&["s", "s"]);
    terminal.keys(&["/"]);
    terminal.keys(&["-l", "to=stock and from=orders*"]);
    terminal.keys(&["Enter"]);
    let screen = terminal.shows("the filter at work", |screen| {
        screen.contains("filter: to=stock") && !screen.contains("redis") && screen.contains("stock")
    });
    assert!(
        !screen.lines().skip(1).any(|line| line.contains("nginx")),
        "{screen}"
    );

    // Into an edge: its latencies over time, and its calls.
    terminal.keys(&["Enter"]);
    let screen = terminal.shows("the edge", |screen| {
        screen.contains("latency over time") && screen.contains("GET /") && screen.contains('\u{2588}')
    });
    assert!(screen.contains("orders") && screen.contains("200"), "{screen}");

    // A fault on it, and its end.
    terminal.keys(&["f"]);
    terminal.shows("the question for a delay", |screen| {
        screen.contains("delay each answer by: 200ms_")
    });
    terminal.keys(&["Enter"]);
    terminal.shows("the fault", |screen| screen.contains("armed top-"));
    let faults = || {
        let list = agent.json(&["fault", "list"]);
        list["faults"].as_array().cloned().unwrap_or_default()
    };
    let armed = faults();
    assert_eq!(armed.len(), 1, "{armed:#?}");
    let fault = &armed[0]["fault"];
    assert_eq!(
        (&fault["effect"]["type"], &fault["effect"]["delay"]),
        (&Value::from("latency"), &Value::from("200ms"))
    );
    assert!(
        fault["from"]["cgroup"]
            .as_str()
            .is_some_and(|cgroup| cgroup.contains("/orders-")),
        "{fault:#}"
    );
    assert!(fault["to"]["port"].is_number(), "{fault:#}");
    terminal.keys(&["x"]);
    terminal.shows("its end", |screen| screen.contains("ended top-"));
    assert_eq!(faults().len(), 0);

    // What was armed ends with the command.
    terminal.keys(&["f"]);
    terminal.keys(&["Enter"]);
    terminal.shows("the fault again", |screen| screen.contains("armed top-"));
    assert_eq!(faults().len(), 1);
    terminal.keys(&["q"]);
    wait_for("the end of the fault", LIMIT, || {
        faults().is_empty().then_some(())
    });

    let piped = agent.spike(&["top"]);
    assert!(
        piped.code() != 0 && piped.stderr.contains("not"),
        "{}",
        piped.stderr
    );
}
