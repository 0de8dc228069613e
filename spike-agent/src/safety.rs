//! Keeps the host as it was: nothing starts that cannot work, one agent a cgroup, and whatever outlives a process is undone.

mod cgroup;
mod cleanup;
mod journal;
mod lock;
pub(crate) mod netns;
pub(crate) mod tc;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapType;
use aya::sys::is_map_supported;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use thiserror::Error;

pub use cgroup::ExecCgroup;
pub use cleanup::{Cleanup, CleanupError, CleanupOptions, Leftover, LeftoverKind, cleanup};
pub use journal::{Direction, Entry, EntryId, Journal, JournalError};
pub use lock::{InstanceLock, LockError};
pub use netns::current as current_netns;

/// The oldest kernel with every facility that the agent cannot do without.
pub(crate) const OLDEST_KERNEL: KernelVersion = KernelVersion { major: 5, minor: 10 };

/// Why the agent cannot start here.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// Not root, and without the capabilities that would do.
    #[error("start the agent: it lacks {0}; run it as root (sudo spike agent)")]
    Privileges(String),
    /// The kernel lacks facilities that nothing can stand in for.
    #[error("start the agent: kernel {0} is too old; Spike needs {OLDEST_KERNEL} or later")]
    Kernel(KernelVersion),
    /// The bpf() system call is missing or forbidden.
    #[error(
        "start the agent: bpf(): {0}; boot a kernel with CONFIG_BPF_SYSCALL=y, or allow bpf() in the container's seccomp profile"
    )]
    Bpf(io::Error),
    /// No cgroup v2 tree to attach to.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The kernel does not say which release it is.
    #[error("read /proc/sys/kernel/osrelease: {0}; mount /proc")]
    Release(io::Error),
}

/// Why there is no cgroup v2 tree to work on.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// None is mounted.
    #[error(
        "find the cgroup v2 tree: none is mounted; boot with systemd.unified_cgroup_hierarchy=1, or: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NotMounted,
    /// The mount table cannot be read.
    #[error("read /proc/self/mountinfo: {0}; mount /proc")]
    Mountinfo(io::Error),
    /// The directory that was asked for is something else.
    #[error("use cgroup {path:?}: {problem}; give --cgroup a directory of the cgroup v2 tree")]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Says in one line why the agent could not work here, before anything on the host is changed.
///
/// # Errors
///
/// Missing privileges, too old a kernel, no bpf(), no cgroup v2.
pub fn preflight() -> Result<(), PreflightError> {
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return Err(PreflightError::Privileges(missing.join(", ")));
    }
    let kernel = KernelVersion::running().map_err(PreflightError::Release)?;
    if kernel < OLDEST_KERNEL {
        return Err(PreflightError::Kernel(kernel));
    }
    is_map_supported(MapType::Array).map_err(|error| PreflightError::Bpf(error.io_error))?;
    find_cgroup2()?;
    Ok(())
}

/// Finds where the cgroup v2 tree is mounted: at `/sys/fs/cgroup`, or beside version 1 elsewhere.
///
/// # Errors
///
/// When there is none.
pub fn find_cgroup2() -> Result<PathBuf, CgroupError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::Mountinfo)?;
    cgroup2_in(&mounts).ok_or(CgroupError::NotMounted)
}

/// Checks that `path`, as a user gave it, is a directory of a cgroup v2 tree.
///
/// # Errors
///
/// When it does not exist or is something else.
pub fn check_cgroup2(path: &Path) -> Result<(), CgroupError> {
    /// From `linux/magic.h`.
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let not = |problem: String| {
        Err(CgroupError::NotCgroup2 {
            path: path.to_owned(),
            problem,
        })
    };
    match rustix::fs::statfs(path) {
        Err(error) => not(error.to_string()),
        Ok(found) if found.f_type as u64 != CGROUP2_SUPER_MAGIC => not("not in a cgroup v2 tree".to_owned()),
        Ok(_) if !path.is_dir() => not("not a directory".to_owned()),
        Ok(_) => Ok(()),
    }
}

/// The mount of the whole tree where there is one, else the first part of it that is mounted (in a container).
fn cgroup2_in(mountinfo: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        file_system
            .starts_with("cgroup2 ")
            .then(|| (root != "/", unescape(point)))
    });
    // The sort is stable in effect: min_by_key keeps the first of equals.
    mounts
        .min_by_key(|(partial, _)| *partial)
        .map(|(_, point)| PathBuf::from(point))
}

/// Undoes the kernel's octal escapes for blanks and backslashes in a path.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (escape, plain)| {
            path.replace(escape, plain)
        })
}

/// Raises the limit of open files as far as the kernel allows: each intercepted connection takes two or more.
///
/// Returns the limit that holds from now on.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    // Beyond the hard limit only with CAP_SYS_RESOURCE; up to it always.
    for wanted in [most.max(limit.maximum), limit.maximum] {
        if setrlimit(
            Resource::Nofile,
            Rlimit {
                current: wanted,
                maximum: wanted.max(limit.maximum),
            },
        )
        .is_ok()
        {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Names the capabilities that the agent cannot start without and does not have.
fn missing_capabilities() -> Vec<&'static str> {
    let effective = effective_capabilities();
    // CAP_SYS_ADMIN includes what CAP_BPF and CAP_PERFMON allow.
    [
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_PERFMON", CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN),
    ]
    .into_iter()
    .filter(|(_, any_of)| !effective.intersects(*any_of))
    .map(|(name, _)| name)
    .collect()
}

/// What this thread may do at this moment.
pub(crate) fn effective_capabilities() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// A kernel's release as far as features depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The 6 of 6.18.
    pub major: u32,
    /// The 18 of 6.18.
    pub minor: u32,
}

impl KernelVersion {
    /// The kernel that runs here.
    ///
    /// # Errors
    ///
    /// When /proc does not tell.
    pub fn running() -> io::Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Self::parse(&release)
            .ok_or_else(|| io::Error::other(format!("{:?} is not a release", release.trim_end())))
    }

    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_whole_tree_wherever_it_is_mounted() {
        let line = |root: &str, point: &str, kind: &str| {
            format!("41 31 0:38 {root} {point} rw,relatime - {kind} none rw\n")
        };
        let v1 = line("/", "/sys/fs/cgroup/cpu", "cgroup");
        let hybrid = v1.clone() + &line("/", "/sys/fs/cgroup/unified", "cgroup2");
        assert_eq!(cgroup2_in(&hybrid).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        let bind_first = line("/pod/1", "/mnt/part", "cgroup2") + &line("/", "/sys/fs/cgroup", "cgroup2");
        assert_eq!(cgroup2_in(&bind_first).unwrap(), Path::new("/sys/fs/cgroup"));
        let part_only = line("/pod/1", "/mnt/a\\040part", "cgroup2");
        assert_eq!(cgroup2_in(&part_only).unwrap(), Path::new("/mnt/a part"));
        assert_eq!(cgroup2_in(&v1), None);
        // Optional fields stand before the dash, any number of them.
        let shared = "41 31 0:38 / /cg rw shared:9 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(shared).unwrap(), Path::new("/cg"));
    }

    #[test]
    fn kernel_releases_are_ordered() {
        let parse = |release| KernelVersion::parse(release).unwrap();
        assert!(parse("5.4.0-150-generic") < OLDEST_KERNEL);
        assert!(parse("5.10.0-28-amd64") >= OLDEST_KERNEL);
        assert!(parse("6.1.0") > OLDEST_KERNEL);
        assert_eq!(parse("6.18.44-fc\n").to_string(), "6.18");
        assert_eq!(KernelVersion::parse("Linux"), None);
    }

    #[test]
    fn directory_outside_the_tree_is_refused() {
        let error = check_cgroup2(Path::new("/tmp")).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"use cgroup "/tmp": not in a cgroup v2 tree; give --cgroup a directory of the cgroup v2 tree"#
        );
        assert!(
            check_cgroup2(Path::new("/no/such"))
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
    }

    #[test]
    fn open_files_limit_is_the_one_in_force() {
        let limit = raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }
}
