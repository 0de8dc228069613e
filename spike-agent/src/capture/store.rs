//! Captures that the agent keeps on its disk: within a quota, for its user alone, for any number of readers.
//!
//! `session --Bytes--> Kept::write --files--> Kept::read --Bytes--> readers`. A capture has a directory of its own, with a
//! file for each of its sections and one that describes it; it outlives the agent.

mod kept;
mod reader;

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use kept::Kept;

/// What the captures' files end in.
const SUFFIX: &str = "pcapng";
/// What names a capture's directory, before its number.
const PREFIX: &str = "capture-";

/// The directory of the captures.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Bytes that all captures may take.
    quota: u64,
    used: AtomicU64,
    next: AtomicU64,
}

/// Why a capture cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing more fits.
    #[error(
        "the kept captures take {used} of {quota} bytes: remove some (`spike capture remove`), or start the agent with a larger --capture-quota"
    )]
    Full {
        /// Bytes on the disk.
        used: u64,
        /// Bytes that there may be.
        quota: u64,
    },
    /// It was removed while it was written.
    #[error("the capture was removed")]
    Removed,
    /// The disk failed, or is full.
    #[error("{what} {}: {error}", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl StoreError {
    fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Disk { what, path, error }
    }
}

impl Store {
    /// The captures in `dir`, which is made when the first is started, and those that earlier agents left there.
    pub fn open(dir: PathBuf, quota: u64) -> (Arc<Self>, Vec<Arc<Kept>>) {
        let store = Arc::new(Self {
            dir,
            quota,
            used: AtomicU64::new(0),
            next: AtomicU64::new(1),
        });
        let mut found: Vec<(u64, String)> = std::fs::read_dir(&store.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some((name.strip_prefix(PREFIX)?.parse().ok()?, name))
            })
            .collect();
        found.sort();
        if let Some((last, _)) = found.last() {
            store.next.store(last + 1, Ordering::Relaxed);
        }
        let kept = found.into_iter().map(|(_, id)| Kept::found(&store, id)).collect();
        (store, kept)
    }

    /// A name that no capture has or had, but for those that were removed before the agent's start.
    pub fn new_id(&self) -> String {
        format!("{PREFIX}{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes room for a capture of this name.
    ///
    /// # Errors
    /// When the quota is used up, or the disk does not let it.
    pub fn create(self: &Arc<Self>, id: String) -> Result<Arc<Kept>, StoreError> {
        self.room_for(1)?;
        for dir in [&self.dir, &self.dir.join(&id)] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(StoreError::disk("make directory", dir))?;
        }
        Ok(Kept::new(self, id))
    }

    fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        let used = self.used.load(Ordering::Relaxed);
        if used.saturating_add(bytes) > self.quota {
            return Err(StoreError::Full {
                used,
                quota: self.quota,
            });
        }
        Ok(())
    }

    fn grew(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrank(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Makes a file that must not be there; its user's alone, whatever the umask.
fn create_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
