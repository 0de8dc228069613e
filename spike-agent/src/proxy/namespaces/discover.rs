//! Finds the network namespaces of the host: those that processes are in, and those that a mount gives a name.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Where `ip netns` and docker keep namespaces by name.
pub(super) const MOUNTS: [&str; 2] = ["/run/netns", "/var/run/docker/netns"];

/// Enough ways in for one of them to outlive the moment between finding and opening.
const WAYS: usize = 4;

/// A network namespace, found just now.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The name of its mount, else of a process in it.
    pub(super) name: Option<String>,
    /// Files that stand for it.
    ways: Vec<PathBuf>,
}

/// Places by the namespace's inode.
pub(super) type Places = BTreeMap<u64, Place>;

impl Place {
    /// A descriptor of the namespace; none when all that was found is gone, or stands for another namespace by now.
    pub(super) fn open(&self, inode: u64) -> io::Result<Option<OwnedFd>> {
        for way in &self.ways {
            match File::open(way).and_then(|file| Ok((file.metadata()?.ino(), file))) {
                Ok((found, file)) if found == inode => return Ok(Some(file.into())),
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The inode of the agent's own namespace.
pub(super) fn own() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net")?.ino())
}

/// Everything on this host; the threads of `askers` are looked at one by one, of other processes the first alone.
pub(super) fn everything(askers: &[u32]) -> io::Result<Places> {
    let own = fs::metadata("/proc/self/ns/net")?;
    let mut places = Places::new();
    for directory in MOUNTS {
        mounts(Path::new(directory), &own, &mut places);
    }
    for process in fs::read_dir("/proc")? {
        let process = process?;
        if process
            .file_name()
            .as_encoded_bytes()
            .iter()
            .all(u8::is_ascii_digit)
        {
            add(&mut places, process.path().join("ns/net"));
        }
    }
    for asker in askers {
        threads(*asker, &mut places);
    }
    for place in places.values_mut().filter(|place| place.name.is_none()) {
        place.name = place.ways.first().and_then(|way| command(way));
    }
    places.entry(own.ino()).or_default().name = Some("host".to_owned());
    Ok(places)
}

/// The namespaces that threads of one process are in.
pub(super) fn of_process(tgid: u32) -> Places {
    let mut places = Places::new();
    threads(tgid, &mut places);
    for place in places.values_mut() {
        place.name = place.ways.first().and_then(|way| command(way));
    }
    places
}

fn mounts(directory: &Path, own: &Metadata, places: &mut Places) {
    let Ok(files) = fs::read_dir(directory) else {
        return;
    };
    for file in files.flatten() {
        // A file that nothing is mounted on yet is not on the kernel's file system of namespaces.
        let Ok(metadata) = fs::metadata(file.path()) else {
            continue;
        };
        if metadata.dev() == own.dev() {
            let place = places.entry(metadata.ino()).or_default();
            place.ways.push(file.path());
            let name = file.file_name().to_string_lossy().into_owned();
            place.name.get_or_insert(name);
        }
    }
}

fn threads(tgid: u32, places: &mut Places) {
    let Ok(threads) = fs::read_dir(format!("/proc/{tgid}/task")) else {
        return;
    };
    for thread in threads.flatten() {
        add(places, thread.path().join("ns/net"));
    }
}

/// Processes end at any time; one that cannot be looked at has nothing to be intercepted.
fn add(places: &mut Places, way: PathBuf) {
    if let Ok(metadata) = fs::metadata(&way) {
        let place = places.entry(metadata.ino()).or_default();
        if place.ways.len() < WAYS {
            place.ways.push(way);
        }
    }
}

/// The name of the process whose `ns/net` this is.
fn command(way: &Path) -> Option<String> {
    let process = way.parent()?.parent()?;
    let name = fs::read(process.join("comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
