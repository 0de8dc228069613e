//! Remembers what was changed on the host beyond the life of a process, so that a later run can undo it.
//!
//! A line is on the disk before the change is made. So a line without a change is possible, a change without a line is not.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::lock::InstanceLock;

/// Names one entry until it is done.
pub type EntryId = u64;

/// Which way a filter looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// At packets that the interface receives.
    Ingress,
    /// At packets that the interface sends.
    Egress,
}

/// One change on the host that the kernel does not take back when the agent ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// The qdisc that clsact filters hang on.
    ClsactQdisc {
        /// Number of the network namespace, see `current_netns`.
        netns: u64,
        /// Where it hangs.
        ifindex: u32,
        /// The name of the interface then: an index may have gone to another one since.
        ifname: String,
        /// False when it was there already and so has to stay.
        created_by_us: bool,
    },
    /// A filter of a clsact qdisc.
    TcFilter {
        /// Number of the network namespace, see `current_netns`.
        netns: u64,
        /// Where it hangs.
        ifindex: u32,
        /// The name of the interface then: an index may have gone to another one since.
        ifname: String,
        /// Which way it looks.
        direction: Direction,
        /// The name that the filter was given, which is its program's.
        name: String,
        /// As asked for; 0 when the kernel chose one.
        handle: u32,
        /// As asked for; 0 when the kernel chose one.
        priority: u16,
    },
    /// The fq qdisc that keeps delayed packets, in the place of an interface's default root.
    FqQdisc {
        /// Number of the network namespace, see `current_netns`.
        netns: u64,
        /// Where it hangs.
        ifindex: u32,
        /// The name of the interface then: an index may have gone to another one since.
        ifname: String,
    },
    /// A cgroup that was made for a command.
    Cgroup {
        /// Its directory.
        path: PathBuf,
    },
}

/// Why the journal could not be read or written; nothing may be changed on the host then.
#[derive(Debug, Error)]
#[error(
    "{operation} {path:?}: {source}; make the file writable for this user and check that its disk has room"
)]
pub struct JournalError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Begun { id: EntryId, boot: String, entry: Entry },
    Done { done: EntryId },
}

/// The agent's list of changes to undo, `journal.jsonl` in its state directory.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    next: EntryId,
    pending: BTreeMap<EntryId, Entry>,
}

impl Journal {
    /// Opens the journal of the state directory that `lock` stands for. Run `cleanup` before.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written.
    pub fn open(lock: &InstanceLock) -> Result<Self, JournalError> {
        Self::open_in(lock.state_dir())
    }

    pub(super) fn open_in(state_dir: &Path) -> Result<Self, JournalError> {
        let path = path_in(state_dir);
        let Pending { entries, next, torn } = Pending::read(state_dir)?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| JournalError {
                operation: "open",
                path: path.clone(),
                source,
            })?;
        let journal = Self {
            path,
            state: Mutex::new(State {
                file,
                next,
                pending: entries,
            }),
        };
        if torn {
            journal.append(&mut journal.lock(), Ok(b"\n".to_vec()))?;
        }
        // The name of a file that was just made has to survive a crash too.
        let _ = File::open(state_dir).and_then(|dir| dir.sync_all());
        Ok(journal)
    }

    /// Writes down a change that is about to be made.
    ///
    /// # Errors
    ///
    /// When it could not be written to the disk: then the change must not be made.
    pub fn record(&self, entry: Entry) -> Result<EntryId, JournalError> {
        let mut state = self.lock();
        let id = state.next;
        let line = Line::Begun {
            id,
            boot: boot_id(),
            entry,
        };
        self.append(&mut state, encode(&line))?;
        state.next += 1;
        if let Line::Begun { entry, .. } = line {
            state.pending.insert(id, entry);
        }
        Ok(id)
    }

    /// Writes down that a change has been undone. With the last one the file becomes empty.
    ///
    /// # Errors
    ///
    /// When it could not be written to the disk: the next clean-up looks for the change in vain, which does no harm.
    pub fn done(&self, id: EntryId) -> Result<(), JournalError> {
        let mut state = self.lock();
        state.pending.remove(&id);
        if state.pending.is_empty() {
            let emptied = state.file.set_len(0).and_then(|()| state.file.sync_data());
            emptied.map_err(|source| JournalError {
                operation: "empty",
                path: self.path.clone(),
                source,
            })
        } else {
            self.append(&mut state, encode(&Line::Done { done: id }))
        }
    }

    /// The changes that have not been undone.
    #[must_use]
    pub fn pending(&self) -> BTreeMap<EntryId, Entry> {
        self.lock().pending.clone()
    }

    fn append(&self, state: &mut State, line: io::Result<Vec<u8>>) -> Result<(), JournalError> {
        let written = line
            .and_then(|line| state.file.write_all(&line))
            .and_then(|()| state.file.sync_data());
        written.map_err(|source| JournalError {
            operation: "append to",
            path: self.path.clone(),
            source,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a journal says is still to be undone.
pub(super) struct Pending {
    pub(super) entries: BTreeMap<EntryId, Entry>,
    next: EntryId,
    /// The last line was cut off: its change was not made.
    torn: bool,
}

impl Pending {
    /// Reads without changing anything; no file means nothing to undo.
    pub(super) fn read(state_dir: &Path) -> Result<Self, JournalError> {
        let path = path_in(state_dir);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(JournalError {
                    operation: "read",
                    path,
                    source,
                });
            }
        };
        let torn = !text.is_empty() && !text.ends_with('\n');
        let this_boot = boot_id();
        let mut pending = Self {
            entries: BTreeMap::new(),
            next: 1,
            torn,
        };
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            match serde_json::from_str(line) {
                Ok(Line::Begun { id, boot, entry }) => {
                    pending.next = pending.next.max(id + 1);
                    // A reboot undid it already.
                    if boot == this_boot {
                        pending.entries.insert(id, entry);
                    }
                }
                Ok(Line::Done { done }) => {
                    pending.entries.remove(&done);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), number, %error, "journal: line left out")
                }
            }
        }
        Ok(pending)
    }
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("journal.jsonl")
}

/// Fails on a path that is not UTF-8, which JSON cannot say.
fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A different text after each start of the machine.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(name: &str) -> Entry {
        Entry::Cgroup {
            path: Path::new("/sys/fs/cgroup").join(name),
        }
    }

    fn filter() -> Entry {
        Entry::TcFilter {
            netns: 4_026_531_840,
            ifindex: 2,
            ifname: "eth0".to_owned(),
            direction: Direction::Egress,
            name: "spike_tap".to_owned(),
            handle: 0,
            priority: 50,
        }
    }

    #[test]
    fn remembers_what_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_in(dir.path()).unwrap();
        let first = journal.record(cgroup("a")).unwrap();
        let second = journal.record(filter()).unwrap();
        journal.done(first).unwrap();
        drop(journal); // as a kill would: nothing is written at the end

        let journal = Journal::open_in(dir.path()).unwrap();
        assert_eq!(journal.pending(), BTreeMap::from([(second, filter())]));
        assert!(journal.record(cgroup("b")).unwrap() > second);
    }

    #[test]
    fn becomes_empty_when_all_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_in(dir.path()).unwrap();
        let id = journal.record(filter()).unwrap();
        journal.done(id).unwrap();
        assert_eq!(fs::metadata(path_in(dir.path())).unwrap().len(), 0);
        // Appending goes on at the start of the file.
        let id = journal.record(cgroup("c")).unwrap();
        assert_eq!(
            Journal::open_in(dir.path()).unwrap().pending(),
            BTreeMap::from([(id, cgroup("c"))])
        );
    }

    #[test]
    fn survives_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_in(dir.path()).unwrap();
        let id = journal.record(cgroup("a")).unwrap();
        let mut file = OpenOptions::new().append(true).open(path_in(dir.path())).unwrap();
        file.write_all(br#"{"id":2,"boot":"x","ent"#).unwrap();
        let reopened = Journal::open_in(dir.path()).unwrap();
        let next = reopened.record(cgroup("b")).unwrap();
        let expected = BTreeMap::from([(id, cgroup("a")), (next, cgroup("b"))]);
        assert_eq!(Journal::open_in(dir.path()).unwrap().pending(), expected);
    }

    #[test]
    fn forgets_what_a_reboot_undid() {
        let dir = tempfile::tempdir().unwrap();
        let line = Line::Begun {
            id: 7,
            boot: "another boot".to_owned(),
            entry: filter(),
        };
        fs::write(path_in(dir.path()), encode(&line).unwrap()).unwrap();
        assert!(Journal::open_in(dir.path()).unwrap().pending().is_empty());
    }

    #[test]
    fn each_kind_of_entry_comes_back() {
        let qdisc = Entry::ClsactQdisc {
            netns: 1,
            ifindex: 2,
            ifname: "lo".to_owned(),
            created_by_us: true,
        };
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open_in(dir.path()).unwrap();
        let fq = Entry::FqQdisc {
            netns: 1,
            ifindex: 2,
            ifname: "lo".to_owned(),
        };
        for entry in [qdisc.clone(), filter(), cgroup("a"), fq.clone()] {
            journal.record(entry).unwrap();
        }
        let read: Vec<_> = Journal::open_in(dir.path())
            .unwrap()
            .pending()
            .into_values()
            .collect();
        assert_eq!(read, [qdisc, filter(), cgroup("a"), fq]);
    }
}
