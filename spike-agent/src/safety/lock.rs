//! Lets one agent serve a cgroup at a time, and frees the place by itself however that agent ends.
//!
//! Both locks are `flock`s, which the kernel drops with the process: on the cgroup directory, so that nothing is left
//! behind, and on a file of the state directory, which tells others the pid.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// A killed agent keeps its locks until the kernel has closed its sockets, and `spike cleanup` has one for a moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a lock could not be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Two agents would fight over the same connections.
    #[error(
        "another spike agent ({holder}) already serves cgroup {cgroup:?}; stop it first or give another --cgroup"
    )]
    CgroupTaken {
        /// The cgroup that both want.
        cgroup: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// Two agents would undo each other's journal.
    #[error(
        "another spike agent ({holder}) already uses state directory {state_dir:?}; stop it first or give another --state-dir"
    )]
    StateTaken {
        /// The directory that both want.
        state_dir: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// A file or directory cannot be used.
    #[error("{operation} {path:?}: {source}; check that it may be {need} by this user")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What access it takes.
        need: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The process that has a lock, if that could be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub(super) Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => f.write_str("pid unknown"),
        }
    }
}

/// The right to serve a cgroup and to use a state directory; held until dropped.
#[derive(Debug)]
pub struct InstanceLock {
    _cgroup: File,
    state: StateLock,
}

impl InstanceLock {
    /// Takes both, or says who has them. Creates the state directory (mode 0700) when it is missing.
    ///
    /// # Errors
    ///
    /// When another agent has one of them, or they cannot be opened.
    pub fn acquire(cgroup_dir: &Path, state_dir: &Path) -> Result<Self, LockError> {
        let cgroup = File::open(cgroup_dir).map_err(io_error("open cgroup", cgroup_dir, "read"))?;
        if !lock_soon(&cgroup).map_err(io_error("lock cgroup", cgroup_dir, "read"))? {
            let holder = Holder(Locks::read().and_then(|locks| locks.writer_of(&cgroup)));
            return Err(LockError::CgroupTaken {
                cgroup: cgroup_dir.to_owned(),
                holder,
            });
        }
        let mut state = StateLock::acquire(state_dir)?;
        state.sign()?;
        Ok(Self {
            _cgroup: cgroup,
            state,
        })
    }

    /// The state directory that this agent alone uses.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state.dir
    }
}

/// The right to use a state directory.
#[derive(Debug)]
pub(super) struct StateLock {
    file: File,
    pub(super) dir: PathBuf,
}

impl StateLock {
    pub(super) fn acquire(dir: &Path) -> Result<Self, LockError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io_error("create state directory", dir, "written"))?;
        let path = dir.join("agent.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path, "written"))?;
        if !lock_soon(&file).map_err(io_error("lock", &path, "written"))? {
            return Err(LockError::StateTaken {
                state_dir: dir.to_owned(),
                holder: Holder(signature(&mut file)),
            });
        }
        Ok(Self {
            file,
            dir: dir.to_owned(),
        })
    }

    /// The agent that has the directory, without waiting for it or creating anything.
    pub(super) fn holder(dir: &Path) -> Option<Holder> {
        let mut file = File::open(dir.join("agent.lock")).ok()?;
        match try_flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(false) => Some(Holder(signature(&mut file))),
            _ => None,
        }
    }

    /// Writes the pid, for the message that a second agent gives.
    fn sign(&mut self) -> Result<(), LockError> {
        let path = self.dir.join("agent.lock");
        self.file
            .set_len(0)
            .and_then(|()| {
                self.file
                    .write_all(format!("{}\n", std::process::id()).as_bytes())
            })
            .map_err(io_error("write", &path, "written"))
    }
}

/// The pid in a lock file.
fn signature(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    io::Seek::rewind(file).ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Waits a little for an exclusive lock; false when somebody else keeps it.
fn lock_soon(file: &File) -> io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    loop {
        let got = try_flock(file, FlockOperation::NonBlockingLockExclusive)?;
        if got || Instant::now() > end {
            return Ok(got);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// False when somebody else has the lock.
pub(super) fn try_flock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The file locks of the whole host, in the kernel's own words.
pub(super) struct Locks(String);

impl Locks {
    pub(super) fn read() -> Option<Self> {
        std::fs::read_to_string("/proc/locks").ok().map(Self)
    }

    /// The process that has an exclusive `flock` on exactly this file.
    fn writer_of(&self, file: &File) -> Option<u32> {
        let file = file.metadata().ok()?;
        self.writers()
            .find(|(_, device, inode)| *device == file.dev() && *inode == file.ino())
            .map(|(pid, ..)| pid)
    }

    /// The processes that have an exclusive `flock` on any file of this file system.
    pub(super) fn writers_on(&self, device: u64) -> impl Iterator<Item = u32> {
        self.writers()
            .filter(move |(_, on, _)| *on == device)
            .map(|(pid, ..)| pid)
    }

    /// Lines look like `1: FLOCK  ADVISORY  WRITE 1234 00:26:77 0 EOF`: hexadecimal device, decimal inode.
    fn writers(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        self.0.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields[..] else {
                return None;
            };
            let mut parts = file.split(':');
            let mut number = || u32::from_str_radix(parts.next()?, 16).ok();
            let device = rustix::fs::makedev(number()?, number()?);
            Some((pid.parse().ok()?, device, parts.next()?.parse().ok()?))
        })
    }
}

fn io_error(
    operation: &'static str,
    path: &Path,
    need: &'static str,
) -> impl FnOnce(io::Error) -> LockError + use<> {
    let path = path.to_owned();
    move |source| LockError::Io {
        operation,
        path,
        need,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_agent_is_told_who_has_the_cgroup() {
        let (cgroup, state, other) = (dir(), dir(), dir());
        let _first = InstanceLock::acquire(cgroup.path(), state.path()).unwrap();
        let error = InstanceLock::acquire(cgroup.path(), other.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "another spike agent (pid {}) already serves cgroup {:?}; stop it first or give another --cgroup",
                std::process::id(),
                cgroup.path()
            )
        );
    }

    #[test]
    fn second_agent_is_told_who_has_the_state_directory() {
        let (cgroup, state, other) = (dir(), dir(), dir());
        let _first = InstanceLock::acquire(cgroup.path(), state.path()).unwrap();
        let error = InstanceLock::acquire(other.path(), state.path()).unwrap_err();
        assert!(
            matches!(error, LockError::StateTaken { holder: Holder(Some(pid)), .. } if pid == std::process::id())
        );
        // What the refused one had is free again.
        InstanceLock::acquire(other.path(), dir().path()).unwrap();
    }

    #[test]
    fn dropping_frees_both_and_a_stale_pid_does_not_matter() {
        let (cgroup, state) = (dir(), dir());
        drop(InstanceLock::acquire(cgroup.path(), state.path()).unwrap());
        assert_eq!(StateLock::holder(state.path()), None);
        std::fs::write(state.path().join("agent.lock"), "1\n").unwrap();
        InstanceLock::acquire(cgroup.path(), state.path()).unwrap();
    }

    #[test]
    fn missing_cgroup_is_named() {
        let error = InstanceLock::acquire(Path::new("/no/such"), dir().path())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(r#"open cgroup "/no/such": No such file"#),
            "{error}"
        );
    }

    #[test]
    fn proc_locks_lines_are_understood() {
        let locks = Locks(
            "1: FLOCK  ADVISORY  WRITE 1234 00:26:77 0 EOF\n\
             1: -> FLOCK  ADVISORY  WRITE 99 00:26:77 0 EOF\n\
             2: POSIX  ADVISORY  WRITE 5 fe:00:12 0 EOF\n\
             3: FLOCK  ADVISORY  READ 6 00:26:78 0 EOF\n"
                .to_owned(),
        );
        assert_eq!(
            locks.writers().collect::<Vec<_>>(),
            [(1234, rustix::fs::makedev(0, 0x26), 77)]
        );
    }

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }
}
