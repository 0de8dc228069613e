//! Gives intercepted connections to the stubs that answer them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use tokio::net::TcpStream;

use crate::identity::Cgroups;
use crate::model::{Caller, Destination};
use crate::proxy::{Dial, StandIns};
use crate::replay::stub::Stubs;

/// Cgroups in cgroups that are looked into.
const DEPTH_LIMIT: usize = 16;
/// A listening socket's state in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The stubs, and who really listens.
pub(super) struct LiveStubs {
    pub(super) stubs: Arc<Stubs>,
    pub(super) cgroups: Arc<Cgroups>,
}

impl StandIns for LiveStubs {
    fn answer(
        &self,
        caller: &Caller,
        destination: &Destination,
        dial: Dial,
    ) -> Option<io::Result<TcpStream>> {
        let armed = self.stubs.of(caller, destination)?;
        let cgroup = armed.spec.selector.from.cgroup.as_deref();
        if cgroup.is_some_and(|cgroup| self.is_served_within(cgroup, destination.address)) {
            return None;
        }
        armed.stub.answer(destination.address, dial)
    }
}

impl LiveStubs {
    /// What a cgroup serves itself is not a dependency of it: a test suite has to reach the service that it tests.
    fn is_served_within(&self, cgroup: &str, destination: SocketAddr) -> bool {
        let pids = processes(&self.cgroups.directory(cgroup), 0);
        pids.iter().any(|pid| listens(*pid, destination.port()))
    }
}

/// The processes in a cgroup and below it.
fn processes(directory: &Path, depth: usize) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let below = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in below.filter(|_| depth < DEPTH_LIMIT) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes(&entry.path(), depth + 1));
        }
    }
    pids
}

/// Whether a process has a TCP socket that listens at this port. Its connections before tell nothing: there may be none.
fn listens(pid: u32, port: u16) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let own: HashSet<String> = targets
        .filter_map(|target| {
            let name = target.to_str()?.strip_prefix("socket:[")?;
            Some(name.strip_suffix(']')?.to_owned())
        })
        .collect();
    !own.is_empty()
        && ["tcp", "tcp6"].iter().any(|table| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            text.lines().skip(1).any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let local = words.get(1).and_then(|local| local.rsplit(':').next());
                local.and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port)
                    && words.get(3) == Some(&LISTEN)
                    && words.get(9).is_some_and(|inode| own.contains(*inode))
            })
        })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_own_listener_is_found_before_anyone_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens(std::process::id(), port));
        drop(listener);
        assert!(!listens(std::process::id(), port));
    }
}
