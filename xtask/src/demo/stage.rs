//! A cgroup and a directory with an agent, servers and clients in them, gone when dropped; for the demo and the benches.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::cargo::target_dir;

/// How long a server or the agent may take to start or to end.
const LIMIT: Duration = Duration::from_secs(10);
/// The agent's own cgroup.
const AGENT: &str = "agent";

/// Where everything runs.
#[derive(Debug)]
pub(crate) struct Stage {
    name: String,
    /// Of the cgroup2 hierarchy.
    root: PathBuf,
    /// Configuration, logs and the agent's socket.
    dir: PathBuf,
    /// Inner ones after those that they are in.
    places: Vec<String>,
    /// The place that the agent observes, when it is not all of them.
    observed: Option<String>,
    /// The processor that programs are started on, when it matters.
    pinned: Option<usize>,
    children: Vec<Child>,
    agent: Option<Child>,
    /// Start everything out of reach of Ctrl-C, for it may be left running.
    detached: bool,
    /// Left running when dropped.
    left: bool,
}

impl Stage {
    /// Makes the cgroup and the directory; needs root.
    pub(crate) fn new(kind: &str, detached: bool) -> Result<Self> {
        let root = cgroup_root()?;
        let name = format!("spike-{kind}-{}", std::process::id());
        let dir = env::temp_dir().join(&name);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let cgroup = root.join(&name);
        fs::create_dir(&cgroup)
            .with_context(|| format!("make cgroup {}; run this as root", cgroup.display()))?;
        Ok(Self {
            name,
            root,
            dir,
            places: Vec::new(),
            observed: None,
            pinned: None,
            children: Vec::new(),
            agent: None,
            detached,
            left: false,
        })
    }

    /// Makes a cgroup for programs and gives its name as a selector has it.
    pub(crate) fn place(&mut self, name: &str) -> Result<String> {
        let dir = self.root.join(&self.name).join(name);
        fs::create_dir(&dir).with_context(|| format!("make cgroup {}", dir.display()))?;
        self.places.push(name.to_owned());
        Ok(format!("/{}/{name}", self.name))
    }

    /// A command that moves itself to a place before it becomes the program.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, place: &str, program: &str, args: &[A]) -> Command {
        let procs = self.root.join(&self.name).join(place).join("cgroup.procs");
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(procs)
            .arg(program)
            .args(args)
            .env("PATH", path_with_sbin())
            .stdin(Stdio::null());
        command
    }

    /// Has the agent observe this place only.
    pub(crate) fn observe(&mut self, place: &str) {
        self.observed = Some(place.to_owned());
    }

    /// Has programs that are started from now on run on this processor.
    pub(crate) fn pin(&mut self, cpu: Option<usize>) {
        self.pinned = cpu;
    }

    /// Starts a program that runs until the end; gives its process id.
    pub(crate) fn start<A: AsRef<OsStr>>(&mut self, place: &str, program: &str, args: &[A]) -> Result<u32> {
        let command = match self.pinned {
            Some(cpu) => {
                let cpu = cpu.to_string();
                let words: [&OsStr; 3] = ["-c".as_ref(), cpu.as_ref(), program.as_ref()];
                let all: Vec<&OsStr> = words.into_iter().chain(args.iter().map(AsRef::as_ref)).collect();
                self.command(place, "taskset", &all)
            }
            None => self.command(place, program, args),
        };
        let child = self.spawn(command, &format!("{}.log", file_name(place)))?;
        let pid = child.id();
        self.children.push(child);
        Ok(pid)
    }

    /// Processor time in seconds that a place and those in it have taken.
    pub(crate) fn cpu_seconds(&self, place: &str) -> Result<f64> {
        let file = self.root.join(&self.name).join(place).join("cpu.stat");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let micros = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse::<f64>().ok());
        Ok(micros.context("no usage_usec in cpu.stat")? / 1e6)
    }

    fn spawn(&self, mut command: Command, log: &str) -> Result<Child> {
        let log = self.dir.join(log);
        let open = || File::options().create(true).append(true).open(&log);
        command.stdout(open()?).stderr(open()?);
        if self.detached {
            command.process_group(0);
        }
        command
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))
    }

    /// nginx that serves 1 KiB as `/small`; gives the port.
    pub(crate) fn nginx(&mut self, place: &str) -> Result<u16> {
        let port = free_port()?;
        let dir = self.dir.join(format!("nginx-{}", file_name(place)));
        fs::create_dir_all(dir.join("www"))?;
        fs::write(dir.join("www/small"), [b'x'; 1024])?;
        let shown = dir.display();
        let config = format!(
            "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log; user root;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {shown};\n\
             proxy_temp_path {shown}; fastcgi_temp_path {shown}; uwsgi_temp_path {shown};\n\
             scgi_temp_path {shown}; server {{ listen 127.0.0.1:{port}; root {shown}/www; }} }}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config)?;
        let log = dir.join("error.log");
        self.start(
            place,
            "nginx",
            &["-c".as_ref(), file.as_os_str(), "-e".as_ref(), log.as_os_str()],
        )?;
        wait_for_port(port, "nginx")?;
        Ok(port)
    }

    /// redis-server without persistence; gives the port.
    pub(crate) fn redis(&mut self, place: &str) -> Result<u16> {
        let port = free_port()?;
        let (text, dir) = (port.to_string(), self.dir.to_string_lossy().into_owned());
        let args = [
            "--port",
            &text,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &dir,
        ];
        self.start(place, "redis-server", &args)?;
        wait_for_port(port, "redis-server")?;
        Ok(port)
    }

    /// iperf3's server; gives the port.
    pub(crate) fn iperf3(&mut self, place: &str) -> Result<u16> {
        let port = free_port()?;
        self.start(
            place,
            "iperf3",
            &["-s", "-B", "127.0.0.1", "-p", &port.to_string()],
        )?;
        // It takes one client at a time, and what only connects would be one.
        thread::sleep(Duration::from_millis(300));
        Ok(port)
    }

    /// Starts the agent for the stage's cgroup, or the observed place of it, and waits until it is ready.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        self.start_agent_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn start_agent_with(&mut self, args: &[&str]) -> Result<()> {
        // Within the observed cgroup, as on a real host: else its own side would look like another caller.
        if !self.places.iter().any(|place| place == AGENT) {
            self.place(AGENT)?;
        }
        let spike = target_dir().join("release/spike");
        let mut command = self.command::<&str>(AGENT, &spike.to_string_lossy(), &[]);
        let cgroup = self.root.join(&self.name);
        let cgroup = self
            .observed
            .iter()
            .fold(cgroup, |cgroup, place| cgroup.join(place));
        command.arg("agent").arg("--cgroup").arg(cgroup);
        command.arg("--socket").arg(self.socket());
        command.arg("--state-dir").arg(self.state_dir());
        command
            .args(["--listen", "off", "--log-level", "warn"])
            .args(args);
        let child = self.spawn(command, "agent.log")?;
        self.agent = Some(child);
        let start = Instant::now();
        while self.spike(&["status"]).is_err() {
            let ended = self
                .agent
                .as_mut()
                .and_then(|agent| agent.try_wait().ok().flatten());
            if ended.is_some() || start.elapsed() > LIMIT {
                let log = fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default();
                bail!("the agent did not become ready: {}", log.trim());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Process id of the agent, while it runs.
    pub(crate) fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    /// Ends the agent as an operator would, by SIGTERM.
    pub(crate) fn stop_agent(&mut self) -> Result<()> {
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        Command::new("kill").arg(agent.id().to_string()).status()?;
        let start = Instant::now();
        while agent.try_wait()?.is_none() {
            if start.elapsed() > LIMIT {
                agent.kill()?;
                agent.wait()?;
                bail!("the agent did not end within {LIMIT:?} of SIGTERM");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A client command of Spike for this agent.
    pub(crate) fn spike_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(target_dir().join("release/spike"));
        command.args(args).env("SPIKE_SOCKET", self.socket());
        command
    }

    /// What a client command prints.
    pub(crate) fn spike(&self, args: &[&str]) -> Result<String> {
        text_of(&mut self.spike_command(args))
    }

    /// Where the stage's files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The agent's Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("spike.sock")
    }

    /// The agent's state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Leaves everything running, and gives the path of a script that ends it.
    pub(crate) fn leave(mut self) -> Result<PathBuf> {
        let agent = self.agent.iter().chain(&self.children);
        let pids: Vec<String> = agent.map(|child| child.id().to_string()).collect();
        let cgroup = self.root.join(&self.name);
        let mut script = format!("#!/bin/sh\nkill {}\nsleep 1\n", pids.join(" "));
        for dir in self
            .places
            .iter()
            .rev()
            .map(|place| cgroup.join(place))
            .chain([cgroup.clone()])
        {
            script += &format!("rmdir '{}'\n", dir.display());
        }
        script += &format!("rm -r '{}'\n", self.dir.display());
        let path = self.dir.join("stop");
        fs::write(&path, script)?;
        self.left = true;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let _ = self.stop_agent();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let cgroup = self.root.join(&self.name);
        // Workers of a server that was killed live on; since Linux 5.14 all of a cgroup can be ended at once.
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        for dir in self
            .places
            .iter()
            .rev()
            .map(|place| cgroup.join(place))
            .chain([cgroup.clone()])
        {
            // A process that was killed leaves its cgroup a moment later.
            for _ in 0..50 {
                if fs::remove_dir(&dir).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Standard output of a command that must succeed.
pub(crate) fn text_of(command: &mut Command) -> Result<String> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!(
            "{name}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A place as part of a file's name.
fn file_name(place: &str) -> String {
    place.replace('/', "-")
}

fn path_with_sbin() -> std::ffi::OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/usr/local/sbin:/sbin");
    path
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Waits until a server listens.
pub(crate) fn wait_for_port(port: u16, what: &str) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if start.elapsed() > LIMIT {
            bail!("{what} does not listen on port {port}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let root = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right
            .starts_with("cgroup2 ")
            .then(|| left.split(' ').nth(4))
            .flatten()
    });
    root.map(PathBuf::from)
        .context("no cgroup2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup")
}
