//! Makes the sockets towards the servers in the namespace of the caller, whose routes and addresses they must have.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::{
    door::Door,
    inside::{Datagrams, open_datagrams},
};
use crate::proxy::UpstreamSockets;

/// For callers in the agent's own namespace.
pub(super) struct Here;

impl UpstreamSockets for Here {
    fn tcp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        tcp(ipv6)
    }

    fn udp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        socket(ipv6, SocketType::DGRAM)
    }

    fn raw(&self, ipv6: bool) -> io::Result<OwnedFd> {
        raw(ipv6)
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

    /// Makes a socket in the namespace.
    fn inside(&self, make: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static) -> io::Result<OwnedFd> {
        let namespace = self.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = namespace
            .clone()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the network namespace is gone"))?;
        self.door.inside(namespace, make)?
    }

    /// Opens the agent's ports for datagrams in the namespace.
    pub(super) fn open_datagrams(&self) -> io::Result<Datagrams> {
        let namespace = self.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = namespace
            .clone()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the network namespace is gone"))?;
        self.door.inside(namespace, open_datagrams)?
    }

    /// Lets go of the namespace; there are no sockets any more.
    pub(super) fn forget(&self) {
        let mut namespace = self.namespace.lock().unwrap_or_else(PoisonError::into_inner);
        *namespace = None;
    }
}

impl UpstreamSockets for Inside {
    fn tcp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        self.inside(move || tcp(ipv6))
    }

    fn udp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        self.inside(move || socket(ipv6, SocketType::DGRAM))
    }

    fn raw(&self, ipv6: bool) -> io::Result<OwnedFd> {
        self.inside(move || raw(ipv6))
    }
}

fn tcp(ipv6: bool) -> io::Result<OwnedFd> {
    socket(ipv6, SocketType::STREAM)
}

/// One of protocol `IPPROTO_RAW`: it only sends, and its packets have their IP headers (raw(7)).
pub(in crate::proxy) fn raw(ipv6: bool) -> io::Result<OwnedFd> {
    let family = if ipv6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW))?)
}

fn socket(ipv6: bool, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if ipv6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(family, kind, flags, None)?)
}
