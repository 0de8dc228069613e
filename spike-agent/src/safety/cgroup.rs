//! Cgroups of the commands that `spike exec` runs: made with a mark of their owner, removed without harm to who is in them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::lock::try_flock;

/// What all such cgroups are called; the owner's pid and a number follow.
pub(super) const PREFIX: &str = "spike-exec-";

/// A cgroup for one command and its children, removed when dropped.
///
/// Its owner holds a shared `flock` on the directory: without one it is a leftover, and `cleanup` removes it.
#[derive(Debug)]
pub struct ExecCgroup {
    path: PathBuf,
    _owned: File,
}

impl ExecCgroup {
    /// Makes an empty cgroup under `parent`, which has to be in a cgroup v2 tree.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn create(parent: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                // Of an earlier process with this pid.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            let owned = File::open(&path)?;
            flock(&owned, FlockOperation::LockShared)?;
            // A cleanup may have come between and taken it for a leftover.
            if path.exists() {
                return Ok(Self { path, _owned: owned });
            }
        }
    }

    /// Where to write the command's pid (`cgroup.procs`) and what to select by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ExecCgroup {
    fn drop(&mut self) {
        if let Err(problem) = remove(&self.path) {
            tracing::warn!(cgroup = %self.path.display(), %problem, "left behind; run: spike cleanup");
        }
    }
}

/// What a cgroup that looks left over turned out to be.
pub(super) enum State {
    /// Somebody runs a command in it.
    Owned,
    /// Nobody's; locked against a new owner while this lives.
    Orphan(File),
}

pub(super) fn state(path: &Path) -> io::Result<State> {
    let dir = File::open(path)?;
    let free = try_flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
    Ok(if free { State::Orphan(dir) } else { State::Owned })
}

/// All directories of `tree` that are named like an exec cgroup.
pub(super) fn find(tree: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![tree.to_owned()];
    while let Some(dir) = todo.pop() {
        for child in children(&dir) {
            if is_ours(&child) {
                found.push(child.clone());
            }
            todo.push(child);
        }
    }
    found
}

/// Whether a path has the name of an exec cgroup.
pub(super) fn is_ours(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(PREFIX))
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// The processes in a cgroup; 0 stands for those of a pid namespace that is not visible from here.
pub(super) fn processes(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Removes a cgroup after its processes have moved to the parent, or says why it had to stay.
pub(super) fn remove(path: &Path) -> Result<(), String> {
    if let Some(child) = children(path).next() {
        return Err(format!("its command made cgroup {child:?}; remove that first"));
    }
    let mut last = io::Error::other("no attempt");
    // A process that forks while it is moved leaves a child behind for the next round.
    for _ in 0..20 {
        for pid in processes(path) {
            evict(path, pid).map_err(|error| format!("move process {pid} out of it: {error}"))?;
        }
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => last = error,
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(format!("remove it: {last}"))
}

/// Moves a process to the nearest ancestor that may hold processes.
fn evict(path: &Path, pid: u32) -> io::Result<()> {
    let mut result = Err(io::Error::other("it has no parent"));
    for ancestor in path.ancestors().skip(1) {
        let procs = ancestor.join("cgroup.procs");
        if !procs.exists() {
            break;
        }
        result = fs::write(procs, pid.to_string());
        match &result {
            Ok(()) => break,
            // It ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            Err(_) => {}
        }
    }
    result
}
