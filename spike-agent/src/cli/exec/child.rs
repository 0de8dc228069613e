//! A process that waits, between fork and exec, until the agent has put it where it belongs.

use std::{
    ffi::OsString,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::{Interest, unix::AsyncFd};

use super::signals::Arrivals;

/// A forked process that has not become the command yet. Dropping it ends it.
pub(super) struct Waiting {
    pid: u32,
    /// A byte lets it go; closing it makes it give up.
    go: PipeWriter,
    /// `spawn` returns only once the process has become the command, or could not.
    spawning: JoinHandle<io::Result<Child>>,
}

impl Waiting {
    /// `mask` is what the command has blocked.
    pub(super) fn start(command: &[OsString], mask: libc::sigset_t) -> io::Result<Self> {
        let [program, arguments @ ..] = command else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (mut ready, ready_tx) = io::pipe()?;
        let (go_rx, go) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments);
        let inherited_go = go.as_raw_fd();
        // SAFETY: the closure only makes system calls and touches no memory that another thread may hold.
        unsafe { command.pre_exec(move || wait_for_go(&ready_tx, &go_rx, inherited_go, &mask)) };
        let spawning = thread::Builder::new()
            .name("spawn".to_owned())
            .spawn(move || command.spawn())?;
        let mut pid = [0_u8; 4];
        if let Err(error) = ready.read_exact(&mut pid) {
            // The pipe closed because there was no fork; the thread knows why.
            drop(go);
            return Err(join(spawning).err().unwrap_or(error));
        }
        Ok(Self {
            pid: u32::from_ne_bytes(pid),
            go,
            spawning,
        })
    }

    /// Its process id, which the command keeps.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it become the command; the error says why it could not.
    pub(super) fn release(self) -> io::Result<Running> {
        let Self {
            pid: _,
            mut go,
            spawning,
        } = self;
        // When it was killed meanwhile, `spawn` returns all the same, and its status tells.
        let _ = go.write_all(&[1]);
        drop(go);
        join(spawning).map(|child| Running { child })
    }
}

/// Runs in the forked process: tells its pid, then waits for the byte.
fn wait_for_go(
    mut ready: &PipeWriter,
    mut go: &PipeReader,
    inherited_go: i32,
    mask: &libc::sigset_t,
) -> io::Result<()> {
    // SAFETY: reads a mask that lives on this stack.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
    // SAFETY: closes this process's copy of the descriptor, which nothing here uses; without that the pipe would never
    // be seen to close.
    unsafe { libc::close(inherited_go) };
    // The pid as this process's own namespace has it.
    ready.write_all(&std::process::id().to_ne_bytes())?;
    let mut byte = [0_u8];
    match go.read_exact(&mut byte) {
        Ok(()) => Ok(()),
        Err(_) => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
    }
}

fn join(spawning: JoinHandle<io::Result<Child>>) -> io::Result<Child> {
    spawning
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the spawning thread panicked")))
}

/// The command.
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Waits for its end and hands on the signals that this process gets.
    pub(super) async fn wait(mut self, signals: &Arrivals) -> io::Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pidfd: OwnedFd = pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
        // SAFETY: the pidfd is owned, so its descriptor stays the same and open for as long as the registration lives.
        let ended = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        loop {
            tokio::select! {
                readable = ended.readable() => {
                    readable?.retain_ready();
                    return self.child.wait();
                }
                signal = signals.next() => if let Some(signal) = signal? {
                    // It may have ended just now; the next round sees that.
                    let _ = pidfd_send_signal(&ended, signal);
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts with no signal blocked.
    fn start(command: &[&str]) -> Waiting {
        let words: Vec<OsString> = command.iter().map(Into::into).collect();
        // SAFETY: sigset_t is plain data, and all zeros is the empty set.
        Waiting::start(&words, unsafe { std::mem::zeroed() }).unwrap()
    }

    #[test]
    fn a_command_runs_only_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let waiting = start(&["touch", mark.to_str().unwrap()]);
        let pid = waiting.pid();
        assert!(std::fs::exists(format!("/proc/{pid}")).unwrap());
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(!mark.exists());
        let mut running = waiting.release().unwrap();
        assert_eq!(running.child.id(), pid);
        assert!(running.child.wait().unwrap().success() && mark.exists());
    }

    #[test]
    fn a_command_that_is_not_let_go_ends() {
        let Waiting { pid, go, spawning } = start(&["true"]);
        drop(go);
        assert_eq!(join(spawning).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert!(!std::fs::exists(format!("/proc/{pid}")).unwrap());
    }

    #[test]
    fn what_cannot_run_says_why() {
        for (command, kind) in [
            ("/nowhere/x", io::ErrorKind::NotFound),
            ("/etc/passwd", io::ErrorKind::PermissionDenied),
        ] {
            let waiting = start(&[command]);
            assert_eq!(waiting.release().err().unwrap().kind(), kind, "{command}");
        }
    }

    #[test]
    fn a_command_gets_the_signals_that_this_process_has_blocked() {
        // In a thread of its own: what is blocked stays so.
        let status = thread::spawn(|| {
            super::super::signals::block().unwrap();
            let mut running = start(&["sleep", "60"]).release().unwrap();
            rustix::process::kill_process(Pid::from_child(&running.child), rustix::process::Signal::TERM)
                .unwrap();
            running.child.wait().unwrap()
        });
        let status = status.join().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGTERM)
        );
    }
}
