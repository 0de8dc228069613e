//! Tells a packet that was seen on one interface already: a packet for a container passes eth0, a bridge and a veth.
//!
//! It is the same when what does not change on its way is: for TCP all but addresses, ports and checksum, which NAT
//! rewrites, for others all but link header, hop count and header checksum. A retransmission is another packet: it passes
//! the same interface again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// Nanoseconds within which a packet passes all interfaces of a host; later it is another one.
const WINDOW_NS: u64 = 1_000_000_000;
/// Bounds the memory.
const MOST: usize = 65_536;
/// Bytes of the payload that are looked at.
const LOOK: usize = 64;

/// What passed lately.
#[derive(Debug, Default)]
pub struct Once {
    seen: HashMap<u64, (u64, (u32, bool))>,
}

impl Once {
    /// Whether a packet is seen for the first time. `place` is the interface and whether it left there.
    pub fn is_new(&mut self, packet: &LaxSlicedPacket<'_>, now_ns: u64, place: (u32, bool)) -> bool {
        let Some(print) = fingerprint(packet) else {
            return true;
        };
        if self.seen.len() >= MOST {
            self.seen
                .retain(|_, (at, _)| now_ns.saturating_sub(*at) < WINDOW_NS);
            if self.seen.len() >= MOST {
                self.seen.clear();
            }
        }
        match self.seen.get(&print) {
            Some((at, first)) if *first != place && now_ns.saturating_sub(*at) < WINDOW_NS => false,
            _ => {
                self.seen.insert(print, (now_ns, place));
                true
            }
        }
    }
}

fn fingerprint(packet: &LaxSlicedPacket<'_>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let addresses = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            hasher.write_u16(header.identification());
            hasher.write_u16(header.total_len());
            hasher.write_u16(header.fragments_offset().value());
            hasher.write_u8(header.protocol().0);
            &header.slice()[12..20]
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            hasher.write_u16(header.payload_length());
            hasher.write_u8(header.next_header().0);
            &header.slice()[8..40]
        }
        LaxNetSlice::Arp(arp) => {
            hasher.write(arp.slice());
            return Some(hasher.finish());
        }
    };
    let payload = match packet.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => {
            // Sequence and acknowledgement numbers, flags, window.
            hasher.write(&tcp.header_slice()[4..16]);
            hasher.write(tcp.options());
            tcp.payload()
        }
        Some(TransportSlice::Udp(udp)) => {
            hasher.write(addresses);
            hasher.write(&udp.slice()[..6]);
            udp.payload()
        }
        _ => {
            hasher.write(addresses);
            packet.ip_payload()?.payload
        }
    };
    hasher.write(&payload[..payload.len().min(LOOK)]);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn tcp(source: [u8; 4], ttl: u8, sequence: u32) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([0; 6], [1; 6])
            .ipv4(source, [10, 0, 0, 2], ttl)
            .tcp(1000, 80, sequence, 5000)
            .write(&mut frame, b"GET /")
            .unwrap();
        frame
    }

    #[test]
    fn a_packet_on_its_way_is_one() {
        let mut once = Once::default();
        let mut is_new =
            |frame: &[u8], at, place| once.is_new(&LaxSlicedPacket::from_ethernet(frame).unwrap(), at, place);
        let inside = tcp([172, 17, 0, 2], 64, 1);
        assert!(is_new(&inside, 0, (5, false)));
        // Routed and masqueraded.
        assert!(!is_new(&tcp([10, 0, 0, 1], 63, 1), 1000, (2, true)));
        assert!(
            is_new(&tcp([172, 17, 0, 2], 64, 6), 2000, (5, false)),
            "the next segment"
        );
        assert!(is_new(&inside, 3000, (5, false)), "sent again");
        assert!(!is_new(&inside, 4000, (2, true)));
        assert!(is_new(&inside, 5_000_000_000, (2, true)), "long after");
    }

    #[test]
    fn datagrams_of_others_are_others() {
        let mut once = Once::default();
        for source in [1, 2] {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([0; 6], [1; 6])
                .ipv4([10, 0, 0, source], [10, 0, 0, 9], 64)
                .udp(53, 53)
                .write(&mut frame, b"same")
                .unwrap();
            let packet = LaxSlicedPacket::from_ethernet(&frame).unwrap();
            assert!(once.is_new(&packet, 0, (u32::from(source), true)));
            assert!(!once.is_new(&packet, 1, (9, true)));
        }
    }
}
