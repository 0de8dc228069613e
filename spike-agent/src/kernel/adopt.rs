//! Finds the listeners and connections that were open before the agent, and gives them the state that the hooks would
//! have: socket storage can be set from user space by a duplicate of the socket.
//!
//! Which sockets there are comes from sock_diag in each namespace; whose they are from /proc/PID/fd. The
//! duplicate lives for microseconds; while it does, a close() by its owner ends the connection that much later.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use spike_common::address::Endpoint;
use spike_common::edge::{CLIENT, Edge, SERVER as SERVER_ROLE, TCP};
use spike_common::socket::{
    ADOPTED, Binder, CALLEE, Flow, FlowKey, LISTENER, OPENED, SERVER, ServiceKey, Socket,
};
use spike_common::task::{EXECUTABLE_LEN, Task};
use tracing::{debug, info, warn};

use super::Kernel;
use super::joins::{End, callers};
use super::netns::told_cookie;
use super::sock_diag::{TcpSocket, tcp_sockets};
use super::tables::monotonic_ns;
use crate::lock::lock;

/// The TCP state of a listener.
pub(super) const LISTEN: u8 = 10;

/// A socket that was found.
struct Found {
    fd: OwnedFd,
    task: Task,
    netns: u64,
    state: u8,
    local: Endpoint,
    /// Unset for listeners.
    remote: Endpoint,
}

/// Gives every TCP socket of the processes below `cgroup` its state, unless it has one.
pub(super) fn adopt(kernel: &Kernel, cgroup: &Path) {
    let found = find(kernel, cgroup);
    let listening: HashSet<(u64, u16)> = found
        .iter()
        .filter(|socket| socket.state == LISTEN)
        .map(|socket| (socket.netns, socket.local.port))
        .collect();
    let serves = |socket: &Found| listening.contains(&(socket.netns, socket.local.port));
    let connections: Vec<&Found> = found.iter().filter(|socket| socket.state != LISTEN).collect();
    let ends: Vec<End> = connections
        .iter()
        .map(|socket| End {
            netns: socket.netns,
            local: socket.local,
            remote: socket.remote,
            serves: serves(socket),
        })
        .collect();
    let callers = callers(&ends);
    let listeners = found.iter().filter(|socket| socket.state == LISTEN);
    let mut done: Vec<_> = listeners
        .map(|socket| (socket, adopt_listener(kernel, socket)))
        .collect();
    for (index, socket) in connections.into_iter().enumerate() {
        let caller = callers.get(&index).map(|caller| ends[*caller]);
        done.push((
            socket,
            adopt_connection(kernel, socket, ends[index].serves, caller),
        ));
    }
    let mut adopted = 0_u32;
    for (socket, done) in done {
        match done {
            Ok(()) => adopted += 1,
            Err(error) => debug!("adopt a socket of pid {}: {error:#}", socket.task.tgid),
        }
    }
    if adopted > 0 {
        info!("found {adopted} sockets that were open before");
    }
}

fn adopt_listener(kernel: &Kernel, found: &Found) -> anyhow::Result<()> {
    let state = Socket {
        netns: found.netns,
        task: found.task,
        flags: LISTENER,
        ..Socket::default()
    };
    lock(&kernel.sockets).insert(&found.fd, state, 0)?;
    let key = ServiceKey {
        netns: found.netns,
        endpoint: found.local,
        transport: 0,
    };
    let binder = Binder {
        task: found.task,
        netns: found.netns,
    };
    kernel.set_binder(key, binder);
    Ok(())
}

/// `caller` is the other end of what is at a server, when it is on this host, too: it counts for both.
fn adopt_connection(kernel: &Kernel, found: &Found, server: bool, caller: Option<End>) -> anyhow::Result<()> {
    let mut flags = ADOPTED | OPENED;
    if server {
        flags |= SERVER;
        kernel.set_service(ServiceKey::new(found.netns, found.local), found.task);
    }
    if let Some(caller) = caller {
        // What it asked for, which may be translated on the way.
        kernel.set_service(ServiceKey::new(caller.netns, caller.remote), found.task);
        let state = Socket {
            netns: found.netns,
            task: found.task,
            flags: flags | CALLEE,
            ..Socket::default()
        };
        lock(&kernel.sockets).insert(&found.fd, state, 0)?;
        return Ok(());
    }
    let destination = if server { found.local } else { found.remote };
    let edge = Edge {
        netns: if destination.address.is_loopback() {
            found.netns
        } else {
            0
        },
        since_ns: monotonic_ns(),
        task: found.task,
        destination,
        peer: if server {
            Endpoint::new(found.remote.address, 0)
        } else {
            Endpoint::default()
        },
        // Who knows how long ago the name was resolved.
        name: 0,
        role: if server { SERVER_ROLE } else { CLIENT },
        transport: TCP,
    };
    let id = kernel.add_open(&edge)?;
    let state = Socket {
        edge: id,
        netns: found.netns,
        task: found.task,
        original: destination,
        flags,
        ..Socket::default()
    };
    lock(&kernel.sockets).insert(&found.fd, state, 0)?;
    let flow = Flow {
        cookie: 0,
        edge: id,
        task: found.task,
        original: destination,
        flags: flags & SERVER,
    };
    kernel.set_flow(FlowKey::new(found.netns, found.local, found.remote), flow);
    Ok(())
}

/// All sockets below `cgroup` that have no state yet. Processes that end meanwhile, and what they may not be asked,
/// are passed over: they will not make calls, or are seen by the hooks.
fn find(kernel: &Kernel, cgroup: &Path) -> Vec<Found> {
    let mut tables: HashMap<u64, (u64, HashMap<u64, TcpSocket>)> = HashMap::new();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mount = crate::safety::find_cgroup2().unwrap_or_else(|_| cgroup.to_owned());
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    for pid in processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
    {
        if u32::try_from(pid) == Ok(std::process::id()) {
            continue;
        }
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let Some(folder) = cgroup_of(&proc, &mount).filter(|folder| folder.starts_with(cgroup)) else {
            continue;
        };
        let Ok(netns) = fs::metadata(proc.join("ns/net")).map(|data| data.ino()) else {
            continue;
        };
        let (cookie, table) = tables.entry(netns).or_insert_with(|| {
            let found = File::open(proc.join("ns/net"))
                .and_then(|namespace| Ok((kernel.cookie_of(&namespace), tcp_sockets(&namespace)?)));
            found.unwrap_or_else(|error| {
                warn!(
                    "list the open connections of network namespace {netns}: {error}; they are not on the map"
                );
                (0, HashMap::new())
            })
        });
        let mut pidfd = None;
        let Ok(files) = fs::read_dir(proc.join("fd")) else {
            continue;
        };
        for file in files.flatten() {
            let Some(inode) = socket_inode(&file.path()) else {
                continue;
            };
            let Some(state) = table.get(&inode).map(|socket| socket.state) else {
                continue;
            };
            if !seen.insert(inode) {
                continue;
            }
            let Some(number) = file.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if pidfd.is_none() {
                pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            }
            let Some(fd) = pidfd
                .as_ref()
                .and_then(|pidfd| pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).ok())
            else {
                continue;
            };
            if lock(&kernel.sockets).get(&fd, 0).is_ok() {
                continue;
            }
            found.extend(describe(fd, *cookie, task_of(pid, &proc, &folder), state));
        }
    }
    found
}

fn describe(fd: OwnedFd, netns: u64, task: Task, state: u8) -> Option<Found> {
    // The socket may be of another namespace than its process is in now.
    let netns = told_cookie(&fd).unwrap_or(netns);
    let local = endpoint(rustix::net::getsockname(&fd).ok()?)?;
    let remote = if state == LISTEN {
        Endpoint::default()
    } else {
        endpoint(rustix::net::getpeername(&fd).ok()??)?
    };
    Some(Found {
        fd,
        task,
        netns,
        state,
        local,
        remote,
    })
}

fn endpoint(address: rustix::net::SocketAddrAny) -> Option<Endpoint> {
    SocketAddr::try_from(address).ok().map(Endpoint::from)
}

pub(super) fn socket_inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The folder of a process's cgroup v2.
pub(super) fn cgroup_of(proc: &Path, mount: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(proc.join("cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(if path.is_empty() {
        mount.to_owned()
    } else {
        mount.join(path)
    })
}

pub(super) fn task_of(pid: i32, proc: &Path, cgroup: &Path) -> Task {
    let mut executable = [0; EXECUTABLE_LEN];
    let exe = fs::read_link(proc.join("exe")).unwrap_or_default();
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name).as_bytes();
    let length = name.len().min(EXECUTABLE_LEN - 1);
    executable[..length].copy_from_slice(&name[..length]);
    Task {
        cgroup: fs::metadata(cgroup).map_or(0, |data| data.ino()),
        executable,
        tgid: pid.cast_unsigned(),
        uid: fs::metadata(proc).map_or(0, |data| data.uid()),
    }
}
