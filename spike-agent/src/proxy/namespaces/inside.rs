//! Opens the agent's sockets in the namespace of the calling thread: the listeners, and what tells whether its
//! loopback interface can carry connections to them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use super::{DATAGRAM_PORTS, ListenerTable};
use anyhow::{Context, Result};
use netlink_sys::{Socket as Netlink, protocols::NETLINK_ROUTE};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// As many as the namespace's `somaxconn` lets through.
const BACKLOG: i32 = 65_535;

/// What the agent has open in a namespace.
pub(super) struct Opened {
    pub(super) cookie: u64,
    pub(super) listener4: TcpListener,
    pub(super) port4: u16,
    /// None where the kernel has no IPv6.
    pub(super) listener6: Option<TcpListener>,
    /// 0 without a listener.
    pub(super) port6: u16,
    pub(super) loopback: Loopback,
    /// Readable when a link or an IPv6 address of the namespace changed.
    pub(super) changes: Netlink,
}

/// Nothing is open in a namespace.
pub(super) struct Failure {
    /// 0 when not even this is known.
    pub(super) cookie: u64,
    pub(super) error: anyhow::Error,
}

impl Failure {
    pub(super) fn outside(error: anyhow::Error) -> Self {
        Self { cookie: 0, error }
    }
}

/// Opens the sockets; `table` tells the namespace's cookie.
pub(super) fn open(table: &dyn ListenerTable) -> Result<Opened, Failure> {
    let inet = datagram(AddressFamily::INET).context("make a socket in the namespace");
    let inet = inet.map_err(Failure::outside)?;
    let told = table.cookie(inet.as_fd());
    let listening = listener(Ipv4Addr::LOCALHOST.into()).context("listen on 127.0.0.1");
    let (listener4, port4) = listening.map_err(|error| Failure {
        cookie: told.as_ref().copied().unwrap_or(0),
        error,
    })?;
    let cookie = told.or_else(|_| table.cookie(listener4.as_fd()));
    let cookie = cookie.context(
        "learn the namespace's cookie: before kernel 5.14 the agent has to be in the cgroup that it observes",
    );
    let cookie = cookie.map_err(Failure::outside)?;
    open_with(inet, cookie, listener4, port4).map_err(|error| Failure { cookie, error })
}

fn open_with(inet: OwnedFd, cookie: u64, listener4: TcpListener, port4: u16) -> Result<Opened> {
    // Without IPv6 there is nobody to be intercepted on it.
    let (listener6, port6) = match listener(Ipv6Addr::LOCALHOST.into()) {
        Ok((listener, port)) => (Some(listener), port),
        Err(_) => (None, 0),
    };
    let mut changes = Netlink::new(NETLINK_ROUTE).context("make a netlink socket")?;
    let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV6_IFADDR;
    changes
        .bind(&netlink_sys::SocketAddr::new(0, groups.cast_unsigned()))
        .and_then(|()| changes.set_non_blocking(true))
        .context("follow the namespace's links by netlink")?;
    let probe6 = match listener6 {
        Some(_) => datagram(AddressFamily::INET6).ok(),
        None => None,
    };
    Ok(Opened {
        cookie,
        listener4,
        port4,
        listener6,
        port6,
        loopback: Loopback { inet, probe6 },
        changes,
    })
}

/// Tells the state of a namespace's loopback interface, from any thread.
pub(super) struct Loopback {
    inet: OwnedFd,
    /// Bound to `::1` as soon as that can be; none after it was, or without IPv6.
    probe6: Option<OwnedFd>,
}

impl Loopback {
    /// Is the interface up?
    pub(super) fn is_up(&self) -> io::Result<bool> {
        // SAFETY: all zeroes is a valid `ifreq`: integers and a union of plain data.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        // SAFETY: the request writes one `ifreq`, which lives until the call returned.
        let result = unsafe { libc::ioctl(self.inet.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: SIOCGIFFLAGS succeeded, so that it filled this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(i32::from(flags) & libc::IFF_UP != 0)
    }

    /// Has the interface had the address `::1`? Where IPv6 is switched off it never has.
    pub(super) fn has_ipv6(&mut self) -> bool {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        self.probe6 = self.probe6.take_if(|probe| bind(probe, &address).is_err());
        self.probe6.is_none()
    }
}

/// The agent's ports for datagrams in a namespace.
pub(super) struct Datagrams {
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) ports4: [u16; DATAGRAM_PORTS],
    /// All 0 without IPv6.
    pub(super) ports6: [u16; DATAGRAM_PORTS],
}

/// Opens the ports for datagrams.
pub(super) fn open_datagrams() -> io::Result<Datagrams> {
    let mut opened = Datagrams {
        sockets: Vec::new(),
        ports4: [0; DATAGRAM_PORTS],
        ports6: [0; DATAGRAM_PORTS],
    };
    for port in &mut opened.ports4 {
        let socket = bound_datagram(Ipv4Addr::LOCALHOST.into())?;
        *port = socket.local_addr()?.port();
        opened.sockets.push(socket);
    }
    let mut ports6 = [0; DATAGRAM_PORTS];
    let mut sockets6 = Vec::new();
    for port in &mut ports6 {
        // Without IPv6 there is nobody to be intercepted on it.
        let Ok(socket) = bound_datagram(Ipv6Addr::LOCALHOST.into()) else {
            return Ok(opened);
        };
        *port = socket.local_addr()?.port();
        sockets6.push(socket);
    }
    opened.ports6 = ports6;
    opened.sockets.extend(sockets6);
    Ok(opened)
}

fn bound_datagram(address: std::net::IpAddr) -> io::Result<UdpSocket> {
    let socket = if address.is_ipv4() {
        let socket = datagram(AddressFamily::INET)?;
        sockopt::set_ip_freebind(&socket, true)?;
        socket
    } else {
        let socket = datagram(AddressFamily::INET6)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
        socket
    };
    bind(&socket, &SocketAddr::new(address, 0))?;
    Ok(UdpSocket::from(socket))
}

/// May stand before the address does: the loopback interface of a new namespace is down.
fn listener(address: std::net::IpAddr) -> io::Result<(TcpListener, u16)> {
    let family = match address {
        std::net::IpAddr::V4(_) => AddressFamily::INET,
        std::net::IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(address, 0))?;
    listen(&socket, BACKLOG)?;
    let listener = TcpListener::from(socket);
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn datagram(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(family, SocketType::DGRAM, flags, None)?)
}
