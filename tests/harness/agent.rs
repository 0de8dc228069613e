//! A Spike agent of a test's own, and its command line.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    wait_for,
    world::{Done, Place, World, finish, kill, start},
};

/// How long an agent may take to be ready or to end.
const LIMIT: Duration = Duration::from_secs(10);

/// A running agent that observes a world; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    socket: PathBuf,
    state_dir: PathBuf,
    log: PathBuf,
}

/// The program under test.
pub fn spike_bin() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/spike");
    let path = env::var_os("SPIKE_BIN").map_or_else(built, PathBuf::from);
    assert!(
        path.is_file(),
        "no {}: run cargo xtask build, or set SPIKE_BIN",
        path.display()
    );
    path
}

/// The command that starts an agent for a world.
pub fn command(world: &World) -> Command {
    command_listening(world, "off")
}

/// The same for an agent that also listens at a loopback address.
pub fn command_listening(world: &World, address: &str) -> Command {
    // Within the observed cgroup, as on a real host: else its own side would look like another caller.
    let mut command = world.place("agent").command(spike_bin());
    command
        .arg("agent")
        .arg("--cgroup")
        .arg(&world.cgroup)
        .arg("--socket")
        .arg(world.path("s.sock"))
        .arg("--state-dir")
        .arg(world.path("state"))
        .args(["--listen", address, "--log-level", "warn"])
        .stdin(Stdio::null());
    command
}

impl Agent {
    /// Starts an agent and waits until it is ready.
    pub fn start(world: &World) -> Self {
        Self::start_with(world, command(world))
    }

    /// Starts an agent by a command that is like that of [`command`].
    pub fn start_with(world: &World, mut command: Command) -> Self {
        let log = world.path("agent.log");
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .expect("open the agent's log")
        };
        let child = command
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("start the agent");
        let mut agent = Self {
            child,
            socket: world.path("s.sock"),
            state_dir: world.path("state"),
            log,
        };
        wait_for("spike status", LIMIT, || {
            if let Some(status) = agent.child.try_wait().expect("ask for the agent's status") {
                panic!("the agent ended: {status}");
            }
            (agent.spike(&["status"]).code() == 0).then_some(())
        });
        agent
    }

    /// Process id of the agent.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Path of its Unix socket.
    pub fn socket(&self) -> &str {
        self.socket.to_str().expect("a path in UTF-8")
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a client command.
    pub fn spike<A: AsRef<OsStr>>(&self, args: &[A]) -> Done {
        let mut command = Command::new(spike_bin());
        command
            .args(args)
            .env("SPIKE_SOCKET", &self.socket)
            .stdin(Stdio::null());
        finish(start(&mut command), "spike")
    }

    /// Starts a client command in a place.
    pub fn start_in(&self, place: &Place<'_>, args: &[&str]) -> Child {
        start(
            place
                .command(spike_bin())
                .args(args)
                .env("SPIKE_SOCKET", &self.socket)
                .stdin(Stdio::null()),
        )
    }

    /// Arms a fault, given as a person would type it.
    #[track_caller]
    pub fn fault(&self, words: &str) {
        let args: Vec<&str> = ["fault", "add"]
            .into_iter()
            .chain(words.split_whitespace())
            .collect();
        let done = self.spike(&args);
        assert_eq!(done.code(), 0, "spike fault add {words}: {}", done.stderr);
    }

    /// Removes all faults.
    #[track_caller]
    pub fn clear(&self) {
        self.spike(&["fault", "clear"]).ok();
    }

    /// What a client command prints with `--json`.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.spike(&[args, &["--json"]].concat()).ok();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("spike {}: {error}: {text}", args.join(" ")))
    }

    /// The edges of the map that a process of this name has to a port.
    pub fn edges(&self, caller: &str, port: u16) -> Vec<Value> {
        let map = self.json(&["map"]);
        let edges = map["edges"].as_array().cloned().unwrap_or_default();
        let is_meant = |edge: &Value| {
            edge["role"] == "client"
                && edge["caller"]["name"] == caller
                && edge["destination"]["port"] == port
        };
        edges.into_iter().filter(is_meant).collect()
    }

    /// Sum of a number over the edges that a process of this name has to a port.
    pub fn sum(&self, caller: &str, port: u16, key: &str) -> u64 {
        self.edges(caller, port)
            .iter()
            .filter_map(|edge| edge[key].as_u64())
            .sum()
    }

    /// Waits until such a sum has reached a number.
    pub fn wait_for_sum(&self, caller: &str, port: u16, key: &str, least: u64) {
        let what = format!("{key} of {caller} to port {port} to reach {least}");
        wait_for(&what, Duration::from_secs(3), || {
            (self.sum(caller, port, key) >= least).then_some(())
        });
    }

    /// One number of a fault, such as `affected`.
    pub fn fault_count(&self, name: &str, key: &str) -> u64 {
        let list = self.json(&["fault", "list"]);
        let fault = list["faults"]
            .as_array()
            .and_then(|all| all.iter().find(|fault| fault["name"] == name));
        fault
            .and_then(|fault| fault[key].as_u64())
            .unwrap_or_else(|| panic!("no {key} of {name} in {list}"))
    }

    /// `kill -9`, waited for.
    pub fn kill9(mut self) {
        self.child.kill().expect("kill the agent");
        self.child.wait().expect("wait for the agent");
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        kill(self.child.id(), libc::SIGTERM);
        let ended = || self.child.try_wait().expect("wait for the agent");
        wait_for("the agent to end", LIMIT, ended).code()
    }

    /// `spike cleanup --check`: exit code and what it said.
    pub fn check_leftovers(world: &World) -> (i32, String) {
        let mut command = Command::new(spike_bin());
        command
            .args(["cleanup", "--check", "--state-dir"])
            .arg(world.path("state"));
        let done = finish(start(command.stdin(Stdio::null())), "spike cleanup");
        (done.code(), done.stdout + &done.stderr)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended_before = self.child.try_wait().ok().flatten();
        if ended_before.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the agent's log {}\n{}---",
                self.state_dir.display(),
                self.log()
            );
        }
    }
}
