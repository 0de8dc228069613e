//! One boot under QEMU: what the tests say is read line by line, what the kernel says is searched for its complaints.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use crate::test::report::{Outcome, Report};

/// What a kernel says when it is broken.
const COMPLAINTS: [&str; 9] = [
    "Kernel panic",
    "BUG:",
    "Oops",
    "detected stall",
    "self-detected stall",
    "soft lockup",
    "hung_task",
    "blocked for more than",
    "WARNING: CPU",
];

/// Lines of the tests' init: what `spike doctor` found, and the last of all.
const DOCTOR: &str = "SPIKE-DOCTOR ";
const END: &str = "SPIKE-RC=";

/// What a boot came to.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) report: Report,
    /// What `spike doctor --json` said there.
    pub(crate) doctor: Option<serde_json::Value>,
    /// Why the run as a whole is a failure, if it is.
    pub(crate) trouble: Option<String>,
    /// From the start of QEMU to the first word of the tests' side.
    pub(crate) until_tests: Duration,
    pub(crate) took: Duration,
}

/// How to boot.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) image: &'a Path,
    /// Arguments of the test program.
    pub(crate) arguments: &'a [String],
    pub(crate) limit: Duration,
    /// Folder for what the kernel and the tests said.
    pub(crate) logs: PathBuf,
    /// Show the tests' lines as they come.
    pub(crate) verbose: bool,
}

impl Machine<'_> {
    /// Boots a kernel and waits until it ends, or is ended.
    pub(crate) fn boot(&self, kernel: &Kernel) -> Result<Boot> {
        fs::create_dir_all(&self.logs)?;
        let kernel_log = self.logs.join(format!("{}-kernel.log", kernel.series.version));
        let tests_log = self.logs.join(format!("{}-tests.log", kernel.series.version));
        let start = Instant::now();
        let mut child = self.command(kernel, &kernel_log)?;
        let stdout = child.stdout.take().context("QEMU's output is not a pipe")?;
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if send.send(text).is_err() {
                    break;
                }
            }
        });
        let mut boot = Boot {
            report: Report::default(),
            doctor: None,
            trouble: None,
            until_tests: Duration::ZERO,
            took: Duration::ZERO,
        };
        let mut said = fs::File::create(&tests_log)?;
        let mut code = None;
        loop {
            let left = self.limit.saturating_sub(start.elapsed());
            match lines.recv_timeout(left.min(Duration::from_secs(1))) {
                Ok(line) => {
                    if boot.until_tests.is_zero() {
                        boot.until_tests = start.elapsed();
                    }
                    if let Some(number) = line.strip_prefix(END) {
                        code = number.parse::<i32>().ok();
                    }
                    if let Some(found) = line.strip_prefix(DOCTOR) {
                        boot.doctor = serde_json::from_str(found).ok();
                    }
                    boot.report.read(&line);
                    if self.verbose {
                        println!("[{}] {line}", kernel.series.version);
                    }
                    writeln!(said, "{line}")?;
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    boot.trouble = Some(format!("did not end within {:?}", self.limit));
                    break;
                }
                // A kernel that hangs after its complaint need not be waited for.
                Err(RecvTimeoutError::Timeout) => {
                    if complaint(&kernel_log).is_some() {
                        break;
                    }
                }
            }
        }
        // By itself it has ended already; its status says no more than the line does.
        let _ = child.kill();
        let status = child.wait().context("wait for QEMU")?;
        boot.took = start.elapsed();
        let complaint = complaint(&kernel_log).map(|line| format!("the kernel said: {line}"));
        let unsaid = || match code {
            Some(0) => None,
            Some(code) if boot.report.broken() => {
                let failed = |(_, outcome): &&(String, Outcome)| *outcome == Outcome::Failed;
                let count = boot.report.outcomes().iter().filter(failed).count();
                Some(format!("{count} tests failed, code {code}"))
            }
            Some(code) => Some(format!("the tests ended with code {code}")),
            None => Some(format!(
                "ended without a word of the tests' end ({status}); see {}",
                kernel_log.display()
            )),
        };
        boot.trouble = boot.trouble.or(complaint).or_else(unsaid);
        Ok(boot)
    }

    fn command(&self, kernel: &Kernel, kernel_log: &Path) -> Result<Child> {
        // Many threads emulate two processors at once. QEMU 7.2 does not emulate the way in which Linux 7 patches its
        // own code while another processor runs it, so those take turns on one thread.
        let thread = if kernel.release.starts_with("7.") {
            "single"
        } else {
            "multi"
        };
        // A processor that the host does not run for a while is not stuck: 2 min until the kernel says so.
        let mut append = "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check \
                          rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60 root=/dev/nvme0n1 rw init=/init"
            .to_owned();
        if !self.arguments.is_empty() {
            append += " -- ";
            append += &self.arguments.join(" ");
        }
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args(["-accel", &format!("tcg,thread={thread}")])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .arg("-chardev")
            .arg(format!("file,id=kernel,path={}", kernel_log.display()))
            .args(["-serial", "chardev:kernel", "-serial", "stdio"])
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=none,id=disk,snapshot=on",
                self.image.display()
            ))
            .args(["-device", "nvme,drive=disk,serial=spike"])
            .arg("-kernel")
            .arg(&kernel.image)
            .args(["-append", &append])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        match command.spawn() {
            Ok(child) => Ok(child),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("no qemu-system-x86_64: run scripts/setup.sh --vm")
            }
            Err(error) => Err(error).context("start QEMU"),
        }
    }
}

/// The first line in which the kernel complains.
fn complaint(log: &Path) -> Option<String> {
    let text = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let bad = |line: &&str| COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    text.lines().find(bad).map(|line| line.trim().to_owned())
}
