//! Puts commands into cgroups of their own, so that faults and captures can choose them and nothing else.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    model::view::ExecView,
    safety::{Entry, EntryId, ExecCgroup, Journal},
};

/// The commands that run; dropping it frees their cgroups.
#[derive(Debug)]
pub struct ExecTable {
    mount: PathBuf,
    journal: Arc<Journal>,
    by_id: Mutex<HashMap<String, Exec>>,
}

/// A command's cgroup, and its line in the journal for as long as it exists.
#[derive(Debug)]
struct Exec {
    /// None only while it is dropped.
    cgroup: Option<ExecCgroup>,
    path: PathBuf,
    entry: EntryId,
    journal: Arc<Journal>,
}

impl ExecTable {
    /// No commands yet. `mount` is where the cgroup2 tree is mounted.
    pub fn new(mount: PathBuf, journal: Arc<Journal>) -> Self {
        Self {
            mount,
            journal,
            by_id: Mutex::default(),
        }
    }

    /// Moves the process `pid`, which must be a child of `client_pid`, into a new cgroup below the one that it is in.
    ///
    /// # Errors
    ///
    /// When it is not a child or has ended, or the kernel or the journal refuses; nothing is changed then.
    pub fn exec_begin(&self, pid: u32, client_pid: u32) -> Result<ExecView> {
        check_parent(pid, client_pid)?;
        let parent = self.mount.join(current_cgroup(pid)?.trim_start_matches('/'));
        let cgroup = ExecCgroup::create(&parent)
            .with_context(|| format!("make a cgroup below {parent:?} for process {pid}"))?;
        // Its name is known only now. An agent killed before this line leaves an empty cgroup, which `spike cleanup`
        // knows by its name.
        let path = cgroup.path().to_owned();
        let entry = self.journal.record(Entry::Cgroup { path: path.clone() })?;
        let exec = Exec {
            cgroup: Some(cgroup),
            path,
            entry,
            journal: self.journal.clone(),
        };
        fs::write(exec.path.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("move process {pid} into cgroup {:?}", exec.path))?;
        // Its id may have gone to another process since the first look; dropping `exec` moves that one back.
        check_parent(pid, client_pid)?;
        let view = ExecView {
            id: exec
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            cgroup: within(&self.mount, &exec.path)?,
        };
        self.lock().insert(view.id.clone(), exec);
        Ok(view)
    }

    /// Frees the cgroup of a command: what still runs in it goes back to where it came from.
    ///
    /// # Errors
    ///
    /// When there is no such command, or its cgroup cannot be removed; the journal keeps it for `spike cleanup` then.
    pub fn exec_end(&self, id: &str) -> Result<()> {
        let exec = self
            .lock()
            .remove(id)
            .ok_or_else(|| anyhow!("no command `{id}` runs"))?;
        let path = exec.path.clone();
        drop(exec);
        if path.exists() {
            bail!("remove cgroup {path:?}: it is still in use; run `spike cleanup` when it is not");
        }
        Ok(())
    }

    /// Frees the cgroups of all commands, as at the agent's end.
    pub fn end_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Exec>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        drop(self.cgroup.take());
        if self.path.exists() {
            return;
        }
        if let Err(error) = self.journal.done(self.entry) {
            tracing::warn!(%error, "the journal names a cgroup that is gone");
        }
    }
}

/// Refuses a process that is not a child of the client: the client may be allowed less than the agent is.
fn check_parent(pid: u32, client_pid: u32) -> Result<()> {
    let stat = read_proc(pid, "stat")?;
    match parent_in(&stat) {
        Some(parent) if parent == client_pid => Ok(()),
        _ => bail!("put process {pid} into a cgroup: it is not a child of the client, process {client_pid}"),
    }
}

/// The parent's id in a line of /proc/PID/stat; the name in it may hold blanks and brackets.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// The path of a process's cgroup in the cgroup2 tree.
fn current_cgroup(pid: u32) -> Result<String> {
    let text = read_proc(pid, "cgroup")?;
    cgroup2_in(&text).map(str::to_owned).ok_or_else(|| {
        anyhow!("find the cgroup of process {pid}: it is not in the agent's part of the cgroup2 tree")
    })
}

/// The path in the text of /proc/PID/cgroup, unless it is outside of this cgroup namespace.
fn cgroup2_in(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    (path.starts_with('/') && !path.split('/').any(|step| step == "..")).then_some(path)
}

fn read_proc(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!("find process {pid}: it has ended"),
        _ => anyhow!("read {path}: {error}"),
    })?;
    // Names of processes and cgroups need not be UTF-8.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The path of a cgroup's directory within the tree.
fn within(mount: &Path, directory: &Path) -> Result<String> {
    let relative = directory
        .strip_prefix(mount)
        .with_context(|| format!("find cgroup {directory:?} below {mount:?}"))?;
    Ok(format!("/{}", relative.display()))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::safety::{InstanceLock, find_cgroup2};

    #[test]
    fn the_parent_is_read_behind_any_name() {
        assert_eq!(parent_in("7 (a) b ) S 42 7 7 0"), Some(42));
        assert_eq!(parent_in("7 (curl"), None);
        assert!(check_parent(std::process::id(), std::os::unix::process::parent_id()).is_ok());
        assert!(check_parent(1, std::process::id()).is_err());
    }

    #[test]
    fn the_cgroup_is_that_of_version_2() {
        assert_eq!(cgroup2_in("4:memory:/x\n0::/a/b\n"), Some("/a/b"));
        assert_eq!(cgroup2_in("0::/../b\n"), None);
        assert_eq!(cgroup2_in("4:memory:/x\n"), None);
        assert_eq!(within(Path::new("/cg"), Path::new("/cg/a/b")).unwrap(), "/a/b");
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn a_child_goes_into_its_cgroup_and_back() {
        let mount = find_cgroup2().unwrap();
        let state = tempfile::tempdir().unwrap();
        let lock = InstanceLock::acquire(state.path(), state.path()).unwrap();
        let journal = Arc::new(Journal::open(&lock).unwrap());
        let table = ExecTable::new(mount.clone(), journal.clone());
        let child = Killed(Command::new("sleep").arg("60").spawn().unwrap());
        let (pid, me) = (child.0.id(), std::process::id());
        let before = current_cgroup(pid).unwrap();

        assert!(table.exec_begin(pid, 1).is_err(), "not a child of process 1");
        assert!(journal.pending().is_empty());

        let view = table.exec_begin(pid, me).unwrap();
        assert_eq!(current_cgroup(pid).unwrap(), view.cgroup);
        let path = mount.join(view.cgroup.trim_start_matches('/'));
        assert!(
            journal
                .pending()
                .values()
                .any(|entry| *entry == Entry::Cgroup { path: path.clone() })
        );

        table.exec_end(&view.id).unwrap();
        assert_eq!(current_cgroup(pid).unwrap(), before);
        assert!(!path.exists() && journal.pending().is_empty());
        assert!(table.exec_end(&view.id).is_err());

        let view = table.exec_begin(pid, me).unwrap();
        drop(table);
        assert!(!mount.join(view.cgroup.trim_start_matches('/')).exists());
        assert!(journal.pending().is_empty());
    }
}
