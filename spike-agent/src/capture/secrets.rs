//! Follows the file that a process logs its TLS secrets to, so that its packets can be read from the capture alone.
//!
//! The file is the one that the process's environment names in `SSLKEYLOGFILE`. It may name any file, and the agent may
//! read all: only lines that are TLS secrets are taken.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

/// More than this is not read at a time.
const MOST: u64 = 1024 * 1024;
/// The labels of `SSLKEYLOGFILE` (RFC 9850, and the one of TLS 1.2 and older), without those of Encrypted Client Hello.
const LABELS: [&str; 6] = [
    "CLIENT_RANDOM",
    "CLIENT_EARLY_TRAFFIC_SECRET",
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
];
/// Labels that are of use to no reader of packets but belong to the format.
const OTHERS: [&str; 2] = ["EARLY_EXPORTER_SECRET", "EXPORTER_SECRET"];

/// Where a process logs its secrets to.
#[derive(Debug)]
pub struct KeyLog {
    /// The process's root directory, which outlives it.
    root: OwnedFd,
    /// Below `root`.
    path: PathBuf,
}

/// Tells whether two processes log to the same file: device and inode of the root directory, and the path below it.
pub type KeyLogId = (u64, u64, PathBuf);

impl KeyLog {
    /// What it has in common with the log of another process that logs to the same file.
    pub fn id(&self) -> Option<KeyLogId> {
        let root = fstat(&self.root).ok()?;
        Some((root.st_dev, root.st_ino, self.path.clone()))
    }

    /// The log of a process; none when it has none, or is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = environment
            .split(|&byte| byte == 0)
            .find_map(|pair| pair.strip_prefix(b"SSLKEYLOGFILE="))?;
        if value.is_empty() {
            return None;
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(value));
        let path = if path.is_absolute() {
            path.to_owned()
        } else {
            std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(path)
        };
        let root = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Some(Self {
            root: openat(CWD, root, flags, Mode::empty()).ok()?,
            path: path.strip_prefix("/").ok()?.to_owned(),
        })
    }

    /// Opens the file, if it is there and a file.
    fn open(&self) -> Option<File> {
        // Not to wait for the other end of a pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // Links within a container lead to its own files.
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(self.root.as_fd(), &self.path, flags, Mode::empty(), within).ok()?;
        let kind = FileType::from_raw_mode(fstat(&file).ok()?.st_mode);
        (kind == FileType::RegularFile).then(|| File::from(file))
    }
}

/// How far a log was read.
#[derive(Debug, Default)]
pub struct Follower {
    offset: u64,
    /// The start of a line whose end is not written yet.
    part: Vec<u8>,
}

impl Follower {
    /// The secrets that were logged since the last call, a line each; nothing when there are none.
    pub fn read(&mut self, log: &KeyLog) -> Vec<u8> {
        let mut secrets = Vec::new();
        let Some(file) = log.open() else {
            return secrets;
        };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if length < self.offset {
            // Begun anew.
            *self = Self::default();
        }
        if length - self.offset > MOST {
            self.offset = length - MOST;
            self.part.clear();
        }
        let mut new = Vec::new();
        let mut rest = file.take(length - self.offset);
        if skip(&mut rest, self.offset).is_err() || rest.read_to_end(&mut new).is_err() {
            return secrets;
        }
        self.offset += new.len() as u64;
        self.part.extend_from_slice(&new);
        while let Some(end) = self.part.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            if is_secret(&line) {
                secrets.extend_from_slice(&line);
            }
        }
        // No line of the format is as long.
        if self.part.len() > 1024 {
            self.part.clear();
        }
        secrets
    }
}

fn skip(file: &mut std::io::Take<File>, offset: u64) -> std::io::Result<()> {
    use std::io::Seek;
    file.get_mut().seek(std::io::SeekFrom::Start(offset)).map(drop)
}

/// `LABEL CLIENT_RANDOM SECRET`, the latter two in hexadecimal.
fn is_secret(line: &[u8]) -> bool {
    let Ok(line) = str::from_utf8(line) else {
        return false;
    };
    let mut words = line.trim_end_matches(['\r', '\n']).split(' ');
    let is_hex = |word: Option<&str>| {
        word.is_some_and(|word| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let label = words.next().unwrap_or_default();
    (LABELS.contains(&label) || OTHERS.contains(&label))
        && is_hex(words.next())
        && is_hex(words.next())
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn log(path: &Path) -> KeyLog {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        KeyLog {
            root: openat(CWD, "/", flags, Mode::empty()).unwrap(),
            path: path.strip_prefix("/").unwrap().to_owned(),
        }
    }

    #[test]
    fn lines_come_once_and_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let log = log(file.path());
        let mut follower = Follower::default();
        assert!(follower.read(&log).is_empty());
        let line = format!(
            "CLIENT_TRAFFIC_SECRET_0 {} {}\n",
            "a1".repeat(32),
            "b2".repeat(48)
        );
        let (first, second) = line.split_at(40);
        file.write_all(first.as_bytes()).unwrap();
        assert!(follower.read(&log).is_empty(), "half a line");
        file.write_all(second.as_bytes()).unwrap();
        assert_eq!(follower.read(&log), line.as_bytes());
        assert!(follower.read(&log).is_empty(), "nothing new");
    }

    #[test]
    fn a_file_of_something_else_gives_nothing() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# comment\nroot:x:0:0\nCLIENT_RANDOM zz yy\nCLIENT_RANDOM \n\xff\n")
            .unwrap();
        file.write_all(format!("PASSWORD {0} {0}\n", "a1".repeat(32)).as_bytes())
            .unwrap();
        assert!(Follower::default().read(&log(file.path())).is_empty());
        assert!(Follower::default().read(&log(Path::new("/dev/zero"))).is_empty());
        assert!(
            Follower::default()
                .read(&log(Path::new("/nowhere/keys")))
                .is_empty()
        );
    }

    #[test]
    fn a_file_that_is_begun_anew_is_read_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (log, mut follower) = (log(file.path()), Follower::default());
        let line = |byte: &str| format!("CLIENT_RANDOM {} {}\n", byte.repeat(32), byte.repeat(48));
        std::fs::write(file.path(), line("a1") + &line("a2")).unwrap();
        assert_eq!(follower.read(&log).len(), 2 * line("a1").len());
        std::fs::write(file.path(), line("b1")).unwrap();
        assert_eq!(follower.read(&log), line("b1").as_bytes());
    }
}
