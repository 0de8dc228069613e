//! Closes established connections of other processes, so that pooled ones come back through a fault.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use spike_common::task::Task;

use super::Kernel;
use super::adopt::{LISTEN, cgroup_of, socket_inode, task_of};
use super::sock_diag::{TcpSocket, can_destroy, destroy, tcp_sockets};
use crate::lock::lock;

/// What one namespace has.
struct Namespace {
    file: File,
    sockets: HashMap<u64, TcpSocket>,
    listening: HashSet<u16>,
    meant: Vec<TcpSocket>,
}

impl Kernel {
    /// Can this kernel close connections of other processes?
    ///
    /// # Errors
    /// Why it cannot.
    pub fn can_close(&self) -> Result<()> {
        can_destroy().context(
            "close connections of other processes (SOCK_DESTROY): a kernel built with CONFIG_INET_DIAG_DESTROY can",
        )
    }

    /// Closes the established connections that processes below `cgroup` have opened and that `is_meant` chooses by the
    /// caller and the destination; tells how many. Those that go through the agent are left alone.
    ///
    /// # Errors
    /// When the kernel cannot do it. Processes that end meanwhile are passed over.
    pub fn close(&self, cgroup: &Path, is_meant: impl Fn(&Task, SocketAddr) -> bool) -> Result<u64> {
        let own_ports = self.listener_ports();
        let is_own = |remote: SocketAddr| {
            remote.ip().to_canonical().is_loopback() && own_ports.contains(&remote.port())
        };
        let mount = crate::safety::find_cgroup2().unwrap_or_else(|_| cgroup.to_owned());
        let mut namespaces: HashMap<u64, Option<Namespace>> = HashMap::new();
        for process in fs::read_dir("/proc").context("read /proc")?.flatten() {
            let Some(pid) = process
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let proc = process.path();
            let folder = cgroup_of(&proc, &mount).filter(|folder| folder.starts_with(cgroup));
            let Some(folder) = folder.filter(|_| pid.cast_unsigned() != std::process::id()) else {
                continue;
            };
            let Ok(number) = fs::metadata(proc.join("ns/net")).map(|data| data.ino()) else {
                continue;
            };
            let namespace = namespaces.entry(number).or_insert_with(|| Namespace::open(&proc));
            let Some(namespace) = namespace else { continue };
            let task = task_of(pid, &proc, &folder);
            namespace.choose(&proc, |remote| !is_own(remote) && is_meant(&task, remote));
        }
        let mut closed = 0;
        for namespace in namespaces.into_values().flatten() {
            closed += destroy(&namespace.file, &namespace.meant).context("close open connections")?;
        }
        Ok(closed)
    }

    fn listener_ports(&self) -> HashSet<u16> {
        let listeners = lock(&self.listeners);
        let all = listeners.iter().flatten();
        all.flat_map(|(_, listener)| [listener.port4, listener.port6])
            .collect()
    }
}

impl Namespace {
    /// The namespace of a process; none when it is gone.
    fn open(proc: &Path) -> Option<Self> {
        let file = File::open(proc.join("ns/net")).ok()?;
        let sockets = tcp_sockets(&file)
            .inspect_err(|error| tracing::warn!("list the open connections of a network namespace: {error}"))
            .ok()?;
        let listeners = sockets.values().filter(|socket| socket.state == LISTEN);
        Some(Self {
            listening: listeners.map(TcpSocket::local_port).collect(),
            file,
            sockets,
            meant: Vec::new(),
        })
    }

    /// Notes the connections of a process that are meant; each once, whoever else has it.
    fn choose(&mut self, proc: &Path, is_meant: impl Fn(SocketAddr) -> bool) {
        let files: Vec<PathBuf> = fs::read_dir(proc.join("fd"))
            .map(|files| files.flatten().map(|file| file.path()).collect())
            .unwrap_or_default();
        for inode in files.iter().filter_map(|file| socket_inode(file)) {
            let is_wanted = self.sockets.get(&inode).is_some_and(|socket| {
                socket.state != LISTEN
                    // Else it is the end that was called.
                    && !self.listening.contains(&socket.local_port())
                    && is_meant(socket.remote())
            });
            if is_wanted {
                self.meant.extend(self.sockets.remove(&inode));
            }
        }
    }
}
