//! Gives intercepted connections to the stubs that answer them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use tokio::net::TcpStream;

use crate::identity::Cgroups;
use crate::model::{Caller, Destination};
use crate::proxy::{DatagramAnswers, Dial, Reply, StandIns};
use crate::replay::stub::{self, Stubs};

/// Cgroups in cgroups that are looked into.
const DEPTH_LIMIT: usize = 16;
/// A socket that waits for what comes from anywhere: its tables in `/proc/net`, and its state in them.
const LISTENS: ([&str; 2], &str) = (["tcp", "tcp6"], "0A");
const TAKES_DATAGRAMS: ([&str; 2], &str) = (["udp", "udp6"], "07");

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
        if cgroup.is_some_and(|cgroup| self.is_served_within(cgroup, destination.address, LISTENS)) {
            return None;
        }
        armed.stub.answer(destination.address, dial)
    }

    fn datagrams(&self, caller: &Caller, destination: &Destination) -> Option<Arc<dyn DatagramAnswers>> {
        let answers = self.stubs.datagrams(caller, destination)?;
        let is_own = answers
            .cgroup()
            .is_some_and(|cgroup| self.is_served_within(cgroup, destination.address, TAKES_DATAGRAMS));
        (!is_own).then(|| Arc::new(Stubbed(answers)) as _)
    }
}

/// Datagrams that a stub answers.
struct Stubbed(stub::Datagrams);

impl DatagramAnswers for Stubbed {
    fn reply(&self, request: &[u8]) -> Reply {
        match self.0.reply(request) {
            stub::Reply::Answer(answer, after) => Reply::Answer(answer, after),
            stub::Reply::Pass => Reply::Pass,
            stub::Reply::Silence => Reply::Silence,
        }
    }

    fn heard(&self, response: &[u8]) {
        self.0.heard(response);
    }
}

impl LiveStubs {
    /// What a cgroup serves itself is not a dependency of it: a test suite has to reach the service that it tests.
    fn is_served_within(&self, cgroup: &str, destination: SocketAddr, how: ([&str; 2], &str)) -> bool {
        let pids = processes(&self.cgroups.directory(cgroup), 0);
        pids.iter().any(|pid| listens(*pid, destination.port(), how))
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

/// Whether a process has a socket that waits at this port. Its connections before tell nothing: there may be none.
fn listens(pid: u32, port: u16, (tables, state): ([&str; 2], &str)) -> bool {
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
        && tables.iter().any(|table| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            text.lines().skip(1).any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let local = words.get(1).and_then(|local| local.rsplit(':').next());
                local.and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port)
                    && words.get(3) == Some(&state)
                    && words.get(9).is_some_and(|inode| own.contains(*inode))
            })
        })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn an_own_listener_is_found_before_anyone_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens(std::process::id(), port, LISTENS));
        drop(listener);
        assert!(!listens(std::process::id(), port, LISTENS));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(listens(std::process::id(), port, TAKES_DATAGRAMS));
        drop(socket);
        assert!(!listens(std::process::id(), port, TAKES_DATAGRAMS));
    }
}
