//! Translates between the names and the numbers of users, as this host's `/etc/passwd` has them.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long what was read is believed.
const FRESH: Duration = Duration::from_secs(2);

/// Names with their numbers, in the file's order, and when they were read.
type Known = (Instant, Vec<(String, u32)>);

/// The users of this host; those of a directory service are known by their numbers alone.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    read: Mutex<Option<Known>>,
}

impl Users {
    /// The users in a file of the form of passwd(5).
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            read: Mutex::default(),
        }
    }

    /// The number of a user.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.with(|users| users.iter().find(|user| user.0 == name).map(|user| user.1))
    }

    /// The first name of a number.
    pub fn name(&self, uid: u32) -> Option<String> {
        self.with(|users| users.iter().find(|user| user.1 == uid).map(|user| user.0.clone()))
    }

    fn with<T>(&self, look: impl FnOnce(&[(String, u32)]) -> T) -> T {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = read.take().filter(|(at, _)| at.elapsed() < FRESH);
        let (at, users) = fresh.unwrap_or_else(|| {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            (Instant::now(), text.lines().filter_map(parse).collect())
        });
        let found = look(&users);
        *read = Some((at, users));
        found
    }
}

fn parse(line: &str) -> Option<(String, u32)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_to_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        fs::write(
            &file,
            "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nwww:x:33:33\n#x\n:x:4:4\n",
        )
        .unwrap();
        let users = Users::new(file);
        assert_eq!((users.uid("www"), users.uid("nobody")), (Some(33), None));
        assert_eq!(users.name(0).as_deref(), Some("root"));
        assert_eq!(users.name(4), None);
        assert_eq!(Users::new(dir.path().join("none")).uid("root"), None);
    }
}
