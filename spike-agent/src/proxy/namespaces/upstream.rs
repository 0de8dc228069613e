//! Makes the sockets towards the servers in the namespace of the caller, whose routes and addresses they must have.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::door::Door;
use crate::proxy::UpstreamSockets;

/// For callers in the agent's own namespace.
pub(super) struct Here;

impl UpstreamSockets for Here {
    fn tcp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        tcp(ipv6)
    }
}

/// For callers in another namespace.
pub(super) struct Inside {
    door: Arc<Door>,
    /// Gone with the namespace, which it would keep alive.
    namespace: Mutex<Option<Arc<OwnedFd>>>,
}

impl Inside {
    pub(super) fn new(door: Arc<Door>, namespace: Arc<OwnedFd>) -> Self {
        Self {
            door,
            namespace: Mutex::new(Some(namespace)),
        }
    }

    /// Lets go of the namespace; there are no sockets any more.
    pub(super) fn forget(&self) {
        let mut namespace = self.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        *namespace = None;
    }
}

impl UpstreamSockets for Inside {
    fn tcp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        let namespace = self.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = namespace
            .clone()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the network namespace is gone"))?;
        self.door.inside(namespace, move || tcp(ipv6))?
    }
}

fn tcp(ipv6: bool) -> io::Result<OwnedFd> {
    let family = if ipv6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}
