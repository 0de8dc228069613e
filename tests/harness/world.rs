//! A test's own corner of the machine: a cgroup, network namespaces and a directory, gone when the test ends.

use std::{
    cell::{Cell, RefCell},
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::needs;

/// Longest that a program which is waited for may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What the servers of a world say.
const SERVERS_LOG: &str = "servers.log";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A cgroup below the root of the cgroup2 hierarchy, a directory, and what was started or made in them.
#[derive(Debug)]
pub struct World {
    /// Unlike that of any other world on this machine; short enough to be part of an interface's name.
    pub name: String,
    /// Directory of the cgroup that the agent observes.
    pub cgroup: PathBuf,
    root: PathBuf,
    dir: TempDir,
    children: RefCell<Vec<Child>>,
    namespaces: RefCell<Vec<String>>,
    /// Lets every pair of interfaces have a network of its own.
    pairs: Cell<u32>,
}

/// Where programs run: a cgroup of the world, in a network namespace.
#[derive(Clone, Debug)]
pub struct Place<'w> {
    world: &'w World,
    dir: PathBuf,
    netns: Option<String>,
}

/// What a program that ended has left.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Done {
    /// The exit code; -1 when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(
            self.status.success(),
            "{}: {}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

impl World {
    /// Makes the cgroup and the directory.
    #[expect(
        clippy::new_without_default,
        reason = "a world is made on purpose, it has effects"
    )]
    pub fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("s{}-{number}", process::id());
        let root = cgroup_root();
        let cgroup = root.join(format!("spike-test-{name}"));
        fs::create_dir(&cgroup).unwrap_or_else(|error| panic!("make cgroup {}: {error}", cgroup.display()));
        let dir = tempfile::Builder::new()
            .prefix(&format!("spike-{name}-"))
            .tempdir()
            .expect("make a temporary directory");
        Self {
            name,
            cgroup,
            root,
            dir,
            children: RefCell::default(),
            namespaces: RefCell::default(),
            pairs: Cell::new(0),
        }
    }

    /// A path within the world's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A cgroup of the world, made if it is not there.
    pub fn place(&self, name: &str) -> Place<'_> {
        let dir = self.cgroup.join(name);
        fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("make cgroup {}: {error}", dir.display()));
        Place {
            world: self,
            dir,
            netns: None,
        }
    }

    /// Makes a network namespace and gives its name; `lo` stays down.
    pub fn namespace(&self) -> String {
        let name = format!("{}-{}", self.name, self.namespaces.borrow().len());
        ip(&["netns", "add", &name]);
        self.namespaces.borrow_mut().push(name.clone());
        name
    }

    /// Joins two namespaces, `None` being the host's, by a veth pair; gives the addresses and names of both ends.
    pub fn connect(&self, left: Option<&str>, right: Option<&str>) -> [(String, String); 2] {
        let number = self.pairs.replace(self.pairs.get() + 1);
        // A /30 of the range for benchmarks, chosen by pid, so that worlds of two runs do not meet.
        let block = (process::id() % 64) * 256 + COUNTER.fetch_add(1, Ordering::Relaxed) % 64 * 4;
        let address = |end: u32| format!("198.18.{}.{}", (block + end) / 256, (block + end) % 256);
        let ends = [("a", left, address(1)), ("b", right, address(2))];
        let device = |end: &str| format!("v{}{number}{end}", self.name);
        ip(&[
            "link",
            "add",
            &device("a"),
            "type",
            "veth",
            "peer",
            "name",
            &device("b"),
        ]);
        ends.map(|(end, netns, address)| {
            let device = device(end);
            let mut prefix = Vec::new();
            if let Some(netns) = netns {
                ip(&["link", "set", &device, "netns", netns]);
                prefix = vec!["-n", netns];
            }
            let within = |args: &[&str]| ip(&[&prefix, args].concat());
            within(&["address", "add", &format!("{address}/30"), "dev", &device]);
            within(&["link", "set", &device, "up"]);
            (address, device)
        })
    }

    /// Keeps a child until the end of the world, which kills it.
    pub fn keep(&self, child: Child) -> u32 {
        let pid = child.id();
        self.children.borrow_mut().push(child);
        pid
    }
}

/// Runs `ip` of the host.
pub fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("run ip");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {stderr}", args.join(" "));
}

impl Place<'_> {
    /// The same cgroup, in a network namespace.
    #[must_use]
    pub fn within(&self, netns: &str) -> Self {
        Self {
            netns: Some(netns.to_owned()),
            ..self.clone()
        }
    }

    /// The cgroup as a selector has it.
    pub fn selector(&self) -> String {
        let path = self.dir.strip_prefix(&self.world.root).unwrap_or(&self.dir);
        format!("cgroup=/{}", path.display())
    }

    /// A command that will run here, and die with the thread that starts it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let procs = self.dir.join("cgroup.procs");
        let procs = OpenOptions::new()
            .write(true)
            .open(&procs)
            .unwrap_or_else(|error| panic!("open {}: {error}", procs.display()));
        let netns = self.netns.as_ref().map(|name| {
            let path = Path::new("/run/netns").join(name);
            File::open(&path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
        });
        let mut command = Command::new(program);
        // SAFETY: only system calls between fork and exec, on descriptors that the closure owns.
        unsafe {
            command.pre_exec(move || {
                (&procs).write_all(b"0")?;
                if let Some(netns) = &netns
                    && libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) != 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command
    }

    /// Runs a program to its end.
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> Done {
        finish(
            start(self.command(program).args(args).stdin(Stdio::null())),
            program,
        )
    }

    /// Starts a program whose output is read when it ends, by [`finish`].
    pub fn start<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> Child {
        start(self.command(program).args(args))
    }

    /// Starts a server that lives as long as the world; what it says is shown when the test fails.
    pub fn serve<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> u32 {
        let mut command = self.command(program);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.world.path(SERVERS_LOG))
            .expect("open the servers' log");
        let again = log.try_clone().expect("open the servers' log twice");
        command.args(args).stdin(Stdio::null()).stdout(log).stderr(again);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {program}: {error}"));
        self.world.keep(child)
    }

    /// A command that runs one of the test program's own helpers here.
    pub fn helper(&self, args: &[&str]) -> Command {
        let mut command = self.command(own_program());
        command.arg("--helper").args(args);
        command
    }

    /// Runs one of the own helpers to its end.
    pub fn run_helper(&self, args: &[&str]) -> Done {
        finish(start(self.helper(args).stdin(Stdio::null())), args[0])
    }
}

fn own_program() -> OsString {
    std::env::current_exe().expect("find the test program").into()
}

/// Starts a command with its output kept.
pub fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {}: {error}", command.get_program().display()))
}

/// Waits for a child, killing it when it takes too long.
pub fn finish(mut child: Child, what: &str) -> Done {
    let pid = child.id();
    drop(child.stdin.take());
    let waiting = thread::spawn(move || child.wait_with_output());
    let start = Instant::now();
    while !waiting.is_finished() {
        if start.elapsed() > needs::patience(LIMIT) {
            kill(pid, libc::SIGKILL);
            panic!("{what} did not end within {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
    let output = waiting
        .join()
        .expect("the waiting thread")
        .unwrap_or_else(|error| panic!("wait for {what}: {error}"));
    Done {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends a signal to one process.
pub fn kill(pid: u32, signal: i32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    // SAFETY: a system call without pointers.
    unsafe { libc::kill(pid, signal) };
}

/// Where the cgroup2 hierarchy is mounted.
pub fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read /proc/self/mountinfo");
    let root = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right
            .starts_with("cgroup2 ")
            .then(|| left.split(' ').nth(4))
            .flatten()
    });
    PathBuf::from(root.expect("a cgroup2 mount in /proc/self/mountinfo"))
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = fs::read_to_string(self.path(SERVERS_LOG)).unwrap_or_default();
            eprintln!("--- the servers\n{said}---");
        }
        for mut child in self.children.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for netns in self.namespaces.take() {
            let _ = Command::new("ip").args(["netns", "delete", &netns]).output();
        }
        for number in 0..self.pairs.get() {
            let device = format!("v{}{number}a", self.name);
            // Gone already with a namespace, most of the time.
            let _ = Command::new("ip").args(["link", "delete", &device]).output();
        }
        remove_cgroup(&self.cgroup);
    }
}

/// Ends what is left in a cgroup of ours, then removes it, those below first.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    for _ in 0..100 {
        for pid in fs::read_to_string(dir.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            if let Ok(pid) = pid.parse() {
                kill(pid, libc::SIGKILL);
            }
        }
        if fs::remove_dir(dir).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
