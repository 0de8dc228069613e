//! Lists the TCP sockets of a network namespace by sock_diag(7).

use std::collections::HashMap;
use std::fs::File;
use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

use crate::safety::netns::inside;

/// Inode and TCP state of each socket in `namespace` that can carry or accept calls.
pub(super) fn tcp_sockets(namespace: &File) -> io::Result<HashMap<u64, u8>> {
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

fn dump(family: u8, socket_id: SocketId, sockets: &mut HashMap<u64, u8>) -> io::Result<()> {
    let request = InetRequest {
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT | StateFlags::LISTEN,
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
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
                    sockets.insert(u64::from(found.header.inode), found.header.state);
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
