//! Reaches a network namespace that is known by its number only, as the journal of a dead agent knows it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The number of the calling thread's network namespace, the same as in `/proc/<pid>/ns/net`.
///
/// # Errors
///
/// When /proc cannot be read.
pub fn current() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Opens the namespace with this number: by a process that is in it, or by its name under `/run/netns`.
pub(crate) fn find(number: u64) -> Option<File> {
    let open = |path: PathBuf| {
        let file = File::open(path).ok()?;
        (file.metadata().ok()?.ino() == number).then_some(file)
    };
    let entries = |dir: &str| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let processes = entries("/proc")
        .filter(|path| is_number(path))
        .map(|path| path.join("ns/net"));
    [PathBuf::from("/proc/thread-self/ns/net")]
        .into_iter()
        .chain(entries("/run/netns"))
        .chain(entries("/run/docker/netns"))
        .chain(processes)
        .find_map(open)
}

fn is_number(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Runs `work` inside a network namespace, on a thread that ends with it.
pub(crate) fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
}

/// Runs `work` inside an empty network namespace that nobody else sees and that ends with it.
pub(crate) fn inside_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(|| {
        // SAFETY: the flag leaves the file table and the address space shared; only this thread's namespace changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(work())
    })
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("spike-netns".to_owned())
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .map_err(|_| io::Error::other("the thread in the namespace panicked"))?
    })
}
