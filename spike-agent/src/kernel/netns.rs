//! The cookies of network namespaces, by which the hooks tell them apart.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};

use spike_common::address::Endpoint;
use spike_common::socket::ServiceKey;

use super::Kernel;
use crate::lock::lock;
use crate::safety::netns::inside;

impl Kernel {
    /// The cookie of the agent's own network namespace; 0 when it could not be learned.
    pub fn own_netns(&self) -> u64 {
        self.own_netns
    }

    /// The cookie of the network namespace that a TCP socket of the agent is in. Before kernel 5.14 the socket must be
    /// bound, and the agent in the cgroup that it observes: the bind hook then has noted it.
    ///
    /// # Errors
    /// When neither way is there.
    pub fn netns_cookie(&self, socket: &impl AsFd) -> io::Result<u64> {
        let told = told_cookie(socket);
        if told.is_ok() {
            return told;
        }
        let local = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
        let key = ServiceKey {
            netns: 0,
            endpoint: Endpoint::from(local),
            transport: 0,
        };
        match lock(&self.binders).get(&key, 0) {
            Ok(binder) if binder.task.tgid == std::process::id() => Ok(binder.netns),
            _ => told,
        }
    }

    /// The cookie of a network namespace, 0 when it cannot be learned: asked by a socket that lives for a moment.
    pub fn cookie_of(&self, namespace: &File) -> u64 {
        inside(namespace, || self.cookie_here())
            .ok()
            .flatten()
            .unwrap_or(0)
    }

    /// The cookie of the calling thread's network namespace.
    pub(super) fn cookie_here(&self) -> Option<u64> {
        let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        self.netns_cookie(&socket).ok()
    }
}

/// The cookie as the kernel tells it for a socket: `SO_NETNS_COOKIE`, since 5.14.
pub(super) fn told_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes into `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
