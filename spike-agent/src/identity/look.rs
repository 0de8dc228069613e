//! Looks at a process once, while it is there: many live for less time than anyone takes to ask for them.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::command::Command;
use super::processes::{goes_by, without_mark};

/// Bounds how much of a command line is read; class paths can be long, and the main class stands behind them.
const MAX_COMMAND_LINE: u64 = 256 * 1024;
/// Where a program without a path is looked for, after the directory that its file is in.
const SEARCHED: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// What `/proc` told of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// When it started, in clock ticks since boot: with its id it names the process for good.
    pub(super) started: u64,
    /// Its parent's id.
    pub(super) parent: u32,
    /// Path of its executable.
    pub(super) exe: String,
    /// The name that it was invoked by, where that is another name of the same file.
    pub(super) invoked: Option<String>,
    /// What it runs, when it is an interpreter.
    pub(super) program: Option<String>,
}

impl Look {
    /// Looks at process `pid`, which the kernel saw running what is called `name`.
    ///
    /// `None` when it is gone, is another one by now, or became another program.
    pub(super) fn at(pid: u32, name: &str) -> Option<Self> {
        let (started, parent) = stat(pid)?;
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let exe = without_mark(&exe.to_string_lossy()).to_owned();
        if !goes_by(&exe, name) {
            return None;
        }
        let line = command_line(pid).unwrap_or_default();
        let args: Vec<&str> = line.split('\0').collect();
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let cwd = cwd.to_string_lossy();
        let command = Command {
            exe: base(&exe),
            args: &args,
            cwd: &cwd,
        };
        let program = command.program();
        let invoked = args.first().and_then(|arg| invoked(pid, &exe, arg, &cwd));
        // Whatever was read in between was of one process only if it is the same still.
        let is_same = stat(pid).is_some_and(|(again, _)| again == started);
        is_same.then_some(Self {
            started,
            parent,
            exe,
            invoked,
            program,
        })
    }

    /// Is `pid` still the process that was looked at? Also when it has ended, as long as no other has its id.
    pub(super) fn holds(&self, pid: u32) -> bool {
        stat(pid).is_none_or(|(started, _)| started == self.started)
    }
}

/// The last part of a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// When a process started and its parent's id; `None` when there is none.
pub(super) fn stat(pid: u32) -> Option<(u64, u32)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 4 and 22 of `/proc/PID/stat` (proc(5)); the name before them may hold any character.
fn parse_stat(text: &str) -> Option<(u64, u32)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((started, parent))
}

/// The arguments with NUL between them, without what a program that wrote its title there left behind.
fn command_line(pid: u32) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline"))?;
    file.take(MAX_COMMAND_LINE).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end_matches('\0').to_owned())
}

/// The other name of its own executable that a process was invoked by, such as that of a symlink to it.
///
/// A process can write anything there, and any file can be behind a name; only a name that leads to the very file that
/// runs, in the process's own file system, is believed.
fn invoked(pid: u32, exe: &str, arg: &str, cwd: &str) -> Option<String> {
    // `-bash` is a login shell; `redis-server 127.0.0.1:6379` is a title that begins with a path.
    let whole = arg.trim_start_matches('-');
    let word = whole.split([' ', ':']).next().unwrap_or(whole);
    if base(whole) == base(exe) || base(word) == base(exe) {
        return None;
    }
    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let running = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let is_running = |path: &str| {
        // Links within a container lead to places in that container.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        let found = file.and_then(rustix::fs::fstat);
        found.is_ok_and(|found| (found.st_dev, found.st_ino) == (running.dev(), running.ino()))
    };
    let mut names = vec![whole];
    names.extend((word != whole).then_some(word));
    let name = names.into_iter().find(|name| {
        if base(name).is_empty() {
            return false;
        } else if name.starts_with('/') {
            return is_running(name);
        } else if name.contains('/') {
            return is_running(&format!("{cwd}/{name}"));
        }
        let own = exe.rsplit_once('/').map_or("/", |(directory, _)| directory);
        let mut directories = std::iter::once(own).chain(SEARCHED);
        directories.any(|directory| is_running(&format!("{directory}/{name}")))
    })?;
    Some(base(name).to_owned())
}

/// Waits until a process has its arguments, which the kernel sets up after it has told the parent of the exec.
#[cfg(test)]
pub(super) fn wait_for_arguments(pid: u32) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while fs::read(format!("/proc/{pid}/cmdline")).unwrap().is_empty() {
        assert!(std::time::Instant::now() < end, "process {pid} has no arguments");
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::symlink, process::CommandExt},
        path::Path,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// Ends with the test.
    struct Running(Child);

    impl Running {
        fn start(command: &mut Command) -> Self {
            let child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            wait_for_arguments(child.id());
            Self(child)
        }

        fn look(&self) -> Look {
            let exe = fs::read_link(format!("/proc/{}/exe", self.0.id())).unwrap();
            let name = exe.file_name().unwrap().to_string_lossy().into_owned();
            Look::at(self.0.id(), &name).unwrap()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            _ = self.0.kill();
            _ = self.0.wait();
        }
    }

    #[test]
    fn a_symlink_is_the_name_it_was_invoked_by() {
        let dir = tempfile::tempdir().unwrap();
        let cat = fs::canonicalize("/bin/cat").unwrap();
        let link = dir.path().join("kitten");
        symlink(&cat, &link).unwrap();
        fs::hard_link(&cat, dir.path().join("tom")).ok();
        let absolute = Running::start(&mut Command::new(&link));
        assert_eq!(absolute.look().invoked.as_deref(), Some("kitten"));
        let look = absolute.look();
        assert_eq!(Path::new(&look.exe), cat);
        assert_eq!(look.parent, std::process::id());
        assert_eq!(look.program, None);
        let relative = Running::start(Command::new("./kitten").current_dir(dir.path()));
        assert_eq!(relative.look().invoked.as_deref(), Some("kitten"));
        let titled = format!("{} 127.0.0.1:6379", link.display());
        let title = Running::start(Command::new(&cat).arg0(titled));
        assert_eq!(title.look().invoked.as_deref(), Some("kitten"));
    }

    #[test]
    fn a_made_up_name_is_not_believed() {
        for arg0 in [
            "nginx",
            "/bin/ls",
            "./cat-like",
            "nginx: master process",
            "",
            "/",
            "-",
            ":",
            "cat",
            "-cat",
        ] {
            let cat = Running::start(Command::new("/bin/cat").arg0(arg0));
            let look = cat.look();
            assert_eq!((look.invoked, base(&look.exe)), (None, "cat"), "{arg0}");
        }
    }

    #[test]
    fn a_script_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("mailer.pl");
        fs::write(&script, "#!/usr/bin/perl\n<STDIN>;\n").unwrap();
        let perl = Running::start(Command::new("/usr/bin/perl").arg(&script));
        assert_eq!(perl.look().program.as_deref(), Some("mailer"));
        let beside = Running::start(
            Command::new("/usr/bin/perl")
                .arg("mailer.pl")
                .current_dir(dir.path()),
        );
        assert_eq!(beside.look().program.as_deref(), Some("mailer"));
    }

    #[test]
    fn another_process_is_not_taken_for_it() {
        let me = std::process::id();
        let cat = Running::start(&mut Command::new("/bin/cat"));
        let pid = cat.0.id();
        let look = cat.look();
        assert_eq!(Look::at(pid, "curl"), None, "it runs something else");
        assert!(look.holds(pid) && !look.holds(me));
        drop(cat);
        assert_eq!(Look::at(pid, "cat"), None);
        assert!(look.holds(pid), "ended, and nobody has its id");
    }

    #[test]
    fn a_name_with_parentheses_is_stepped_over() {
        let text = "7 (a) b) S 3 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2";
        assert_eq!(parse_stat(text), Some((4242, 3)));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 3"), None);
    }
}
