//! The audit log: who armed which fault and when, what it hit, and when and why it ended; JSON lines in the agent's
//! state directory, for root alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::model::view::AuditEntry;

/// Name of the log in the state directory; that of the one before it has `.1` added.
const NAME: &str = "audit.jsonl";
/// Size in bytes at which a new log begins: with the one before it, twice this is kept.
const MAX_LENGTH: u64 = 4 << 20;

/// The log. What cannot be written is told once a time on standard error: a full disk must not keep faults from ending.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    max_length: u64,
    writing: Mutex<()>,
}

impl Audit {
    /// A log in `state_dir`, which is there.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(NAME),
            max_length: MAX_LENGTH,
            writing: Mutex::default(),
        }
    }

    /// Adds an entry.
    pub fn write(&self, entry: &AuditEntry) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(entry) {
            tracing::warn!("write the audit log {}: {error}", self.path.display());
        }
    }

    fn append(&self, entry: &AuditEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let length = fs::metadata(&self.path).map_or(0, |data| data.len());
        if length > 0 && length + line.len() as u64 > self.max_length {
            fs::rename(&self.path, self.earlier())?;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path)?;
        // In one piece, so that a reader never sees half of it.
        file.write_all(&line)
    }

    /// The last `count` entries, oldest first. Lines that cannot be read are passed over.
    ///
    /// # Errors
    /// When a file that is there cannot be read.
    pub fn last(&self, count: usize) -> io::Result<Vec<AuditEntry>> {
        let mut entries = Vec::new();
        for path in [self.earlier(), self.path.clone()] {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            for line in BufReader::new(file).split(b'\n') {
                entries.extend(serde_json::from_slice::<AuditEntry>(&line?));
            }
        }
        entries.drain(..entries.len().saturating_sub(count));
        Ok(entries)
    }

    fn earlier(&self) -> PathBuf {
        self.path.with_extension("jsonl.1")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_log_is_private_bounded_and_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit {
            max_length: 2000,
            ..Audit::new(dir.path())
        };
        assert!(audit.last(9).unwrap().is_empty());
        for number in 0..100 {
            audit.write(&AuditEntry {
                fault: format!("f{number}"),
                ..AuditEntry::default()
            });
        }
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&audit.path) <= 2000 && size(&audit.earlier()) <= 2000);
        let mode = fs::metadata(&audit.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let last = audit.last(3).unwrap();
        let names: Vec<&str> = last.iter().map(|entry| entry.fault.as_str()).collect();
        assert_eq!(names, ["f97", "f98", "f99"]);
        // What a crash cut short does not hide the rest.
        fs::write(&audit.path, "{\"at\":").unwrap();
        audit.write(&AuditEntry::default());
        assert!(!audit.last(100).unwrap().is_empty());
    }
}
