//! Finds the path of a caller's executable, of which the kernel gives only the name.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use spike_common::task::EXECUTABLE_LEN;

use super::Cgroups;
use crate::model::Caller;

/// How long a path is believed: a process may become another program, and its id another process's.
const FRESH: Duration = Duration::from_secs(1);
/// Bounds memory; at this number the stale entries go, and if that is not enough all.
const MAX_CACHED: usize = 4096;
/// Lengths at which the kernel cuts a name: of an executable, and of a thread, which stands in on older kernels.
const CUT_AT: [usize; 2] = [EXECUTABLE_LEN - 1, 15];

/// The processes of this host.
#[derive(Debug)]
pub struct Processes {
    cgroups: Arc<Cgroups>,
    exe_by_pid: Mutex<HashMap<u32, Seen>>,
}

/// What a look at a process showed.
#[derive(Debug)]
struct Seen {
    at: Instant,
    exe: String,
}

impl Processes {
    /// Processes and their cgroups in the tree `cgroups`.
    pub fn new(cgroups: Arc<Cgroups>) -> Self {
        Self {
            cgroups,
            exe_by_pid: Mutex::default(),
        }
    }

    /// Who the kernel saw as process `tgid` (0 when unknown), in the cgroup of this id, running what is called `name`.
    ///
    /// The path is left at the name when what the process runs now is called otherwise. The cgroup is empty, and so
    /// within no other one than `/`, when its path is unknown.
    pub fn caller(&self, tgid: u32, cgroup_id: u64, name: &str) -> Caller {
        let exe = (tgid != 0).then(|| self.exe(tgid, name)).flatten();
        Caller {
            pid: tgid,
            exe: exe.unwrap_or_else(|| name.to_owned()),
            cgroup: self.cgroups.path(cgroup_id).unwrap_or_default(),
            ..Caller::default()
        }
    }

    /// The path of what `pid` runs, if that goes by `name`.
    fn exe(&self, pid: u32, name: &str) -> Option<String> {
        let mut cache = self.exe_by_pid.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |seen: &Seen| seen.at.elapsed() < FRESH;
        let seen = cache.get(&pid).filter(|seen| is_fresh(seen));
        // Another name means that it became another program since, as a shell's child does.
        let exe = seen.map(|seen| &seen.exe).filter(|exe| goes_by(exe, name));
        if let Some(exe) = exe {
            return Some(exe.clone());
        }
        if cache.len() >= MAX_CACHED {
            cache.retain(|_, seen| is_fresh(seen));
            if cache.len() >= MAX_CACHED {
                cache.clear();
            }
        }
        // None of a process that is gone, nor of a kernel thread.
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let exe = without_mark(&path.to_string_lossy()).to_owned();
        let at = Instant::now();
        cache.insert(pid, Seen { at, exe: exe.clone() });
        Some(exe).filter(|exe| goes_by(exe, name))
    }
}

/// The path without what the kernel adds when the file was replaced or removed.
pub(super) fn without_mark(exe: &str) -> &str {
    exe.strip_suffix(" (deleted)").unwrap_or(exe)
}

/// Can the executable at `exe` be what the kernel calls `name`? An unknown name excludes nothing.
pub(super) fn goes_by(exe: &str, name: &str) -> bool {
    let base = exe.rsplit('/').next().unwrap_or(exe);
    name.is_empty() || base == name || CUT_AT.contains(&name.len()) && base.starts_with(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> Processes {
        Processes::new(Arc::new(Cgroups::new("/nowhere".into())))
    }

    #[test]
    fn a_path_is_believed_when_it_ends_in_the_name() {
        let me = std::process::id();
        let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        let name = exe.rsplit('/').next().unwrap();
        let cut = &name[..name.len().min(31)];
        let caller = processes().caller(me, 1, cut);
        assert_eq!(
            (caller.pid, caller.exe.as_str(), caller.cgroup.as_str()),
            (me, exe.as_str(), "")
        );
        assert_eq!(processes().caller(me, 1, "curl").exe, "curl");
        assert_eq!(processes().caller(0, 1, cut).exe, cut);
    }

    #[test]
    fn a_process_that_became_another_program_is_looked_up_again() {
        let processes = processes();
        let me = std::process::id();
        let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        let (at, before) = (Instant::now(), "/bin/bash".to_owned());
        processes
            .exe_by_pid
            .lock()
            .unwrap()
            .insert(me, Seen { at, exe: before });
        let name = exe.rsplit('/').next().unwrap();
        assert_eq!(processes.exe(me, &name[..name.len().min(31)]), Some(exe));
    }

    #[test]
    fn names_are_compared_in_full_unless_cut() {
        assert!(goes_by("/usr/bin/curl", "curl") && goes_by("/usr/bin/curl", ""));
        assert!(!goes_by("/usr/bin/curl", "cur") && !goes_by("/usr/bin/curl", "curly"));
        assert!(goes_by(
            "/opt/a-name-of-thirty-one-characters-and-more",
            "a-name-of-thirty-one-characters"
        ));
        assert!(goes_by("/usr/lib/systemd/systemd-networkd", "systemd-network"));
        assert_eq!(without_mark("/usr/bin/curl (deleted)"), "/usr/bin/curl");
    }

    #[test]
    fn the_cache_stays_bounded() {
        let processes = processes();
        let (at, exe) = (Instant::now(), "/bin/bash".to_owned());
        let full = (0..MAX_CACHED as u32).map(|n| (u32::MAX - n, Seen { at, exe: exe.clone() }));
        processes.exe_by_pid.lock().unwrap().extend(full);
        assert!(processes.exe(std::process::id(), "").is_some());
        assert!(processes.exe_by_pid.lock().unwrap().len() <= MAX_CACHED);
    }
}
