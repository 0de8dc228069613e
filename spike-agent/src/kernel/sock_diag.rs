//! Lists, and closes, the TCP sockets of a network namespace by sock_diag(7).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

use crate::safety::netns::inside;

/// A TCP socket as sock_diag tells it.
#[derive(Clone, Debug)]
pub(super) struct TcpSocket {
    family: u8,
    id: SocketId,
    /// As in `/proc/net/tcp`: 1 is established, 10 listens.
    pub(super) state: u8,
}

impl TcpSocket {
    pub(super) fn local_port(&self) -> u16 {
        self.id.source_port
    }

    pub(super) fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.id.destination_address, self.id.destination_port)
    }
}

/// Each socket in `namespace` that can carry or accept calls, by its inode.
pub(super) fn tcp_sockets(namespace: &File) -> io::Result<HashMap<u64, TcpSocket>> {
    inside(namespace, || {
        let mut sockets = HashMap::new();
        for (family, socket_id) in [
            (libc::AF_INET, SocketId::new_v4()),
            (libc::AF_INET6, SocketId::new_v6()),
        ] {
            dump(family as u8, socket_id, &mut sockets)?;
        }
        Ok(sockets)
    })?
}

/// Closes sockets in `namespace` for their owners, who see ECONNABORTED, and tells how many. What has gone meanwhile does
/// not count.
///
/// # Errors
/// When the kernel cannot do it; sockets before that one are closed.
pub(super) fn destroy(namespace: &File, sockets: &[TcpSocket]) -> io::Result<u64> {
    inside(namespace, || {
        let mut closed = 0;
        for socket in sockets {
            match destroy_here(socket.family, socket.id.clone()) {
                Ok(()) => closed += 1,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(closed)
    })?
}

/// Can this kernel close the sockets of others? Asked with a socket that cannot be.
pub(super) fn can_destroy() -> io::Result<()> {
    let mut id = SocketId::new_v4();
    id.source_address = Ipv4Addr::LOCALHOST.into();
    id.destination_address = Ipv4Addr::LOCALHOST.into();
    id.cookie = [0xff; 8];
    match destroy_here(libc::AF_INET as u8, id) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

fn destroy_here(family: u8, socket_id: SocketId) -> io::Result<()> {
    let request = InetRequest {
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let socket = ask(NetlinkMessage::new(header, message.into()))?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

fn ask<T: NetlinkSerializable>(mut message: NetlinkMessage<T>) -> io::Result<Socket> {
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    Ok(socket)
}

fn dump(family: u8, socket_id: SocketId, sockets: &mut HashMap<u64, TcpSocket>) -> io::Result<()> {
    let request = InetRequest {
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT | StateFlags::LISTEN,
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = SockDiagMessage::InetRequest(request);
    let socket = ask(NetlinkMessage::new(header, request.into()))?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = message.header.length as usize;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    let header = found.header;
                    let socket = TcpSocket {
                        family: header.family,
                        id: header.socket_id,
                        state: header.state,
                    };
                    sockets.insert(u64::from(header.inode), socket);
                }
                _ => {}
            }
            // Messages are aligned to four bytes (netlink(7)).
            let step = length.next_multiple_of(4);
            if length == 0 || step >= rest.len() {
                break;
            }
            rest = &rest[step..];
        }
    }
}
