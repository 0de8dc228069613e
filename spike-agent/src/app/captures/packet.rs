//! What is read of a packet, and decided by it alone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use spike_common::packet::{FLOW_REDIRECTED, PacketHeader, TASK_KNOWN, TASK_SENDS};

use super::legs::Leg;
use crate::capture::record::LinkType;
use crate::capture::rewrite::{Rewrite, rewrite};
use crate::model::{Caller, Destination, Selector};

/// One connection in so many, by its ends as the application has them; both legs of one alike.
pub(super) fn is_sampled(
    sample: u32,
    header: &PacketHeader,
    leg: Option<&Leg>,
    ends: Option<(SocketAddr, SocketAddr)>,
) -> bool {
    if sample <= 1 {
        return true;
    }
    let mut hasher = DefaultHasher::new();
    match (leg, ends) {
        (Some(leg), _) => leg.cookie.hash(&mut hasher),
        (None, _) if header.flags & FLOW_REDIRECTED != 0 => header.cookie.hash(&mut hasher),
        (None, Some((a, b))) => (a.min(b), a.max(b)).hash(&mut hasher),
        (None, None) => {}
    }
    hasher.finish().is_multiple_of(u64::from(sample))
}

/// The agent's fine decision, where the kernel may have chosen too much. `called` tells what is known of an address.
pub(super) fn wants(
    selector: &Selector,
    header: &PacketHeader,
    caller: Option<&Caller>,
    ends: Option<(SocketAddr, SocketAddr)>,
    called: impl Fn(SocketAddr) -> Destination,
) -> bool {
    if selector.is_empty() {
        return true;
    }
    let nobody = Caller::default();
    if header.flags & TASK_KNOWN != 0 {
        let destination = called(header.original.socket_addr());
        return selector.matches(caller.unwrap_or(&nobody), &destination);
    }
    ends.is_some_and(|(source, destination)| {
        selector.matches(&nobody, called(destination)) || selector.matches(&nobody, called(source))
    })
}

/// Puts the address that the application asked for in the place of the agent's listener.
pub(super) fn as_the_application_saw(
    frame: &mut [u8],
    link_type: LinkType,
    header: &PacketHeader,
    ends: Option<(SocketAddr, SocketAddr)>,
) {
    let Some((source, destination)) = ends else { return };
    let listener = if header.flags & TASK_SENDS != 0 {
        destination
    } else {
        source
    };
    let original = header.original.socket_addr();
    let change = Rewrite {
        from: (listener.ip(), listener.port()),
        to: (original.ip(), original.port()),
    };
    rewrite(frame, link_type, &change);
}

/// Its headers; none of what is too short for them.
pub(super) fn slice(bytes: &[u8], link_type: LinkType) -> Option<LaxSlicedPacket<'_>> {
    match link_type {
        LinkType::Ethernet => LaxSlicedPacket::from_ethernet(bytes).ok(),
        LinkType::Raw => LaxSlicedPacket::from_ip(bytes).ok(),
    }
}

/// Whether it resets its connection.
pub(super) fn resets(packet: &LaxSlicedPacket<'_>) -> bool {
    matches!(&packet.transport, Some(TransportSlice::Tcp(tcp)) if tcp.rst())
}

/// Source and destination of an IP packet; ports 0 where it has none.
pub(super) fn ends(packet: &LaxSlicedPacket<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (source, destination) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        LaxNetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        LaxNetSlice::Arp(_) => return None,
    };
    let (from, to) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => (0, 0),
    };
    Some((SocketAddr::new(source, from), SocketAddr::new(destination, to)))
}
