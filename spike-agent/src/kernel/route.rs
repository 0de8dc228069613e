//! Asks the kernel by which interface it reaches an address; works in the calling thread's network namespace.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Length of a `struct rtmsg`.
const RTMSG: usize = 12;
/// From `linux/rtnetlink.h`.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

/// The index of the interface by which packets to `to` leave.
pub(super) fn interface_to(to: IpAddr) -> io::Result<u32> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = 1;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Route::To(to)));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let message = NetlinkMessage::<Route>::deserialize(&answer).map_err(io::Error::other)?;
    match message.payload {
        NetlinkPayload::InnerMessage(Route::By(index)) => Ok(index),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel named no interface")),
    }
}

/// A question and its answer.
#[derive(Debug)]
enum Route {
    To(IpAddr),
    By(u32),
}

impl Route {
    fn address(&self) -> Vec<u8> {
        match self {
            Self::To(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Self::To(IpAddr::V6(v6)) => v6.octets().to_vec(),
            Self::By(_) => Vec::new(),
        }
    }
}

impl NetlinkSerializable for Route {
    fn message_type(&self) -> u16 {
        libc::RTM_GETROUTE
    }

    fn buffer_len(&self) -> usize {
        RTMSG + 4 + self.address().len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let address = self.address();
        buffer.fill(0);
        let family = if address.len() == 4 {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        buffer[0] = family as u8;
        // The prefix's length in bits.
        buffer[1] = (address.len() * 8) as u8;
        buffer[RTMSG..RTMSG + 2].copy_from_slice(&(4 + address.len() as u16).to_ne_bytes());
        buffer[RTMSG + 2..RTMSG + 4].copy_from_slice(&RTA_DST.to_ne_bytes());
        buffer[RTMSG + 4..].copy_from_slice(&address);
    }
}

impl NetlinkDeserializable for Route {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let attributes = payload
            .get(RTMSG..)
            .ok_or_else(|| DecodeError::from("shorter than an rtmsg"))?;
        let index = NlasIterator::new(attributes)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind() == RTA_OIF)
            .and_then(|attribute| attribute.value().try_into().ok().map(u32::from_ne_bytes));
        index
            .map(Self::By)
            .ok_or_else(|| DecodeError::from("a route without an interface"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_reaches_itself_by_lo() {
        assert_eq!(interface_to("127.0.0.1".parse().unwrap()).unwrap(), 1);
    }
}
