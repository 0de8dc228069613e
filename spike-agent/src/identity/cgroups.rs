//! Translates between cgroup ids and paths, as the kernel has only the former and operators write only the latter.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::model::rule::CgroupIds;

/// Bounds one walk of the tree.
const MAX_WALKED: usize = 100_000;
/// Bounds the memory for ids that were found, and for those that were not; whichever is full is started afresh.
const MAX_KNOWN: usize = 2 * MAX_WALKED;
/// The inode number of the root of the whole cgroup2 tree; what is mounted in a container has another one.
const TRUE_ROOT: u64 = 1;

/// The cgroup2 tree. Paths begin with `/`, which is the directory where it is mounted.
#[derive(Debug)]
pub struct Cgroups {
    mount: PathBuf,
    /// Only then do depths that are counted from the mount mean the same to the kernel.
    is_whole: bool,
    known: Mutex<Known>,
}

/// Ids are never given again and cgroups cannot be renamed, so that this stays true when a cgroup goes.
#[derive(Debug, Default)]
struct Known {
    path_by_id: HashMap<u64, String>,
    /// An id comes from the kernel, so its cgroup is older than the walk that did not find it.
    missing: HashSet<u64>,
}

impl Cgroups {
    /// The tree that is mounted at `mount`, or the part of it that is visible there.
    pub fn new(mount: PathBuf) -> Self {
        Self {
            is_whole: id_of(&mount) == Some(TRUE_ROOT),
            known: Mutex::default(),
            mount,
        }
    }

    /// The path of a cgroup, even some time after its end; `None` when it ended unseen or is out of sight.
    pub fn path(&self, id: u64) -> Option<String> {
        let mut known = self.lock();
        if let Some(path) = known.path_by_id.get(&id) {
            return Some(path.clone());
        }
        if known.missing.contains(&id) {
            return None;
        }
        if known.path_by_id.len() >= MAX_KNOWN {
            known.path_by_id.clear();
        }
        known.path_by_id.extend(self.walk("/"));
        let path = known.path_by_id.get(&id).cloned();
        if path.is_none() {
            if known.missing.len() >= MAX_KNOWN {
                known.missing.clear();
            }
            known.missing.insert(id);
        }
        path
    }

    /// The ids of a cgroup and of all below it; none when it does not exist.
    pub fn leaves(&self, path: &str) -> Vec<u64> {
        self.walk(path).into_iter().map(|(id, _)| id).collect()
    }

    /// The directory of a cgroup.
    pub fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Ids and paths from `top` downwards, parents first.
    fn walk(&self, top: &str) -> Vec<(u64, String)> {
        let start = id_of(&self.directory(top)).map(|id| (id, top.to_owned()));
        let mut found = Vec::from_iter(start);
        let mut next = 0;
        while let Some(path) = found.get(next).map(|(_, path)| path.clone()) {
            next += 1;
            // One that is gone meanwhile has nothing below it.
            let entries = fs::read_dir(self.directory(&path))
                .into_iter()
                .flatten()
                .flatten();
            for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if found.len() >= MAX_WALKED {
                    tracing::warn!(limit = MAX_WALKED, "more cgroups than are looked at");
                    return found;
                }
                let Ok(metadata) = entry.metadata() else { continue };
                let name = entry.file_name();
                let below = format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy());
                found.push((metadata.ino(), below));
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CgroupIds for Cgroups {
    fn id_and_depth(&self, path: &str) -> Option<(u64, Option<u32>)> {
        let id = id_of(&self.directory(path))?;
        let steps = path.split('/').filter(|step| !step.is_empty()).count();
        Some((id, u32::try_from(steps).ok().filter(|_| self.is_whole)))
    }
}

/// A cgroup's id is the inode number of its directory.
fn id_of(directory: &Path) -> Option<u64> {
    let metadata = fs::metadata(directory).ok()?;
    metadata.is_dir().then(|| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Cgroups) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("a/cgroup.procs"), "").unwrap();
        let cgroups = Cgroups::new(dir.path().to_owned());
        (dir, cgroups)
    }

    #[test]
    fn ids_and_paths_lead_to_each_other() {
        let (_dir, cgroups) = tree();
        for path in ["/", "/a", "/a/b", "/a/b/c", "/d"] {
            let (id, depth) = cgroups.id_and_depth(path).unwrap();
            assert_eq!(cgroups.path(id).as_deref(), Some(path));
            assert_eq!(depth, None, "a directory elsewhere is not the true root");
        }
        assert_eq!(cgroups.id_and_depth("/gone"), None);
        assert_eq!(cgroups.id_and_depth("/a/cgroup.procs"), None, "no directory");
    }

    #[test]
    fn a_new_cgroup_is_found_and_an_ended_one_remembered() {
        let (dir, cgroups) = tree();
        assert_eq!(cgroups.path(u64::MAX), None);
        let new = dir.path().join("d/new");
        fs::create_dir(&new).unwrap();
        let id = id_of(&new).unwrap();
        assert_eq!(cgroups.path(id).as_deref(), Some("/d/new"));
        fs::remove_dir(&new).unwrap();
        assert_eq!(cgroups.path(id).as_deref(), Some("/d/new"));
    }

    #[test]
    fn leaves_are_the_subtree_with_its_top() {
        let (dir, cgroups) = tree();
        let ids = |paths: &[&str]| {
            paths
                .iter()
                .map(|path| id_of(&dir.path().join(path)).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(cgroups.leaves("/a"), ids(&["a", "a/b", "a/b/c"]));
        assert_eq!(cgroups.leaves("/").len(), 5);
        assert!(cgroups.leaves("/gone").is_empty());
    }

    #[test]
    fn depths_count_from_the_true_root() {
        let mut cgroups = tree();
        cgroups.1.is_whole = true;
        let depth = |path| cgroups.1.id_and_depth(path).unwrap().1;
        assert_eq!(
            (depth("/"), depth("/a"), depth("/a/b/c")),
            (Some(0), Some(1), Some(3))
        );
    }
}
