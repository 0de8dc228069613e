//! Packets that the agent sends in another's name to let a held attempt to connect go on, or fail: by a raw socket in
//! the caller's network namespace, over its loopback interface.

use std::net::{IpAddr, SocketAddr};

/// IP protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// Bytes of a TCP header without options, and of the IP headers.
const TCP_HEADER: usize = 20;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const HOP_LIMIT: u8 = 64;
/// TCP flags.
const RST_ACK: u8 = 0x14;
/// Destination unreachable: host (RFC 792), address (RFC 4443 section 3.1). Both are EHOSTUNREACH to a socket.
const ICMP_UNREACHABLE: [u8; 2] = [3, 1];
const ICMPV6_UNREACHABLE: [u8; 2] = [1, 3];

/// Where the parts of a SYN lie.
#[derive(Clone, Copy, Debug)]
struct Parts {
    is_ipv4: bool,
    /// Where the TCP header begins.
    tcp: usize,
}

impl Parts {
    fn of(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let (is_ipv4, tcp, protocol) = match first >> 4 {
            4 => (true, usize::from(first & 0xf) * 4, *packet.get(9)?),
            6 => (false, IPV6_HEADER, *packet.get(6)?),
            _ => return None,
        };
        let is_whole = protocol == TCP && tcp >= IPV4_HEADER && packet.len() >= tcp + TCP_HEADER;
        is_whole.then_some(Self { is_ipv4, tcp })
    }

    fn addresses(self, packet: &[u8]) -> (&[u8], &[u8]) {
        if self.is_ipv4 {
            (&packet[12..16], &packet[16..20])
        } else {
            (&packet[8..24], &packet[24..40])
        }
    }
}

/// The SYN as it would have left, its TCP checksum filled in: the kernel leaves that to the network card.
pub(super) fn whole(syn: &[u8]) -> Option<Vec<u8>> {
    let parts = Parts::of(syn)?;
    let mut packet = syn.to_vec();
    fill_in(&mut packet, parts, TCP, parts.tcp + 16);
    Some(packet)
}

/// The reset that answers the SYN where nobody listens: ECONNREFUSED to the caller.
pub(super) fn refusal(syn: &[u8]) -> Option<Vec<u8>> {
    let parts = Parts::of(syn)?;
    let tcp = &syn[parts.tcp..];
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let mut packet = answer_header(syn, parts, TCP, TCP_HEADER);
    let at = packet.len();
    packet.extend_from_slice(&tcp[2..4]);
    packet.extend_from_slice(&tcp[0..2]);
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    packet.extend_from_slice(&[5 << 4, RST_ACK, 0, 0, 0, 0, 0, 0]);
    let answer = Parts { tcp: at, ..parts };
    fill_in(&mut packet, answer, TCP, at + 16);
    Some(packet)
}

/// The word of a router that there is no way: EHOSTUNREACH to the caller.
pub(super) fn unreachable(syn: &[u8]) -> Option<Vec<u8>> {
    let parts = Parts::of(syn)?;
    let (protocol, kind) = if parts.is_ipv4 {
        (ICMP, ICMP_UNREACHABLE)
    } else {
        (ICMPV6, ICMPV6_UNREACHABLE)
    };
    let quoted = &syn[..parts.tcp + 8];
    let mut packet = answer_header(syn, parts, protocol, 8 + quoted.len());
    let at = packet.len();
    packet.extend_from_slice(&kind);
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(quoted);
    let answer = Parts { tcp: at, ..parts };
    fill_in(&mut packet, answer, protocol, at + 2);
    Some(packet)
}

/// An IP header from the SYN's destination to its source, for `length` bytes behind it. The kernel fills in the checksum
/// of an IPv4 header.
fn answer_header(syn: &[u8], parts: Parts, protocol: u8, length: usize) -> Vec<u8> {
    let (source, destination) = parts.addresses(syn);
    let mut header = Vec::with_capacity(IPV6_HEADER + length);
    if parts.is_ipv4 {
        let total = u16::try_from(IPV4_HEADER + length).unwrap_or(u16::MAX);
        header.extend_from_slice(&[0x45, 0]);
        header.extend_from_slice(&total.to_be_bytes());
        header.extend_from_slice(&[0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
    } else {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        header.extend_from_slice(&[0x60, 0, 0, 0]);
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&[protocol, HOP_LIMIT]);
    }
    header.extend_from_slice(destination);
    header.extend_from_slice(source);
    header
}

/// Fills in the checksum at `at` of what begins at `parts.tcp` (RFC 1071).
fn fill_in(packet: &mut [u8], parts: Parts, protocol: u8, at: usize) {
    packet[at..at + 2].fill(0);
    let body = &packet[parts.tcp..];
    let mut sum = words(body);
    // ICMP alone has no pseudo header.
    if protocol != ICMP {
        let (source, destination) = parts.addresses(packet);
        sum += words(source) + words(destination) + u64::from(protocol) + body.len() as u64;
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16);
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn words(bytes: &[u8]) -> u64 {
    let pair = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(pair).sum()
}

/// Where the packet goes, for `sendto(2)`: raw sockets have no ports.
pub(super) fn destination(packet: &[u8]) -> Option<SocketAddr> {
    let ip: IpAddr = match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into(),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, 0))
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice, icmpv4, icmpv6};

    use super::*;

    fn syns() -> [Vec<u8>; 2] {
        let build = |ip: PacketBuilder4or6| {
            let mut syn = Vec::new();
            ip.tcp(4000, 80, 0xffff_ffff, 1000)
                .syn()
                .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)])
                .unwrap()
                .write(&mut syn, &[])
                .unwrap();
            syn
        };
        [
            build(PacketBuilder::ipv4([127, 0, 0, 1], [127, 0, 0, 9], 64)),
            build(PacketBuilder::ipv6([1; 16], [2; 16], 64)),
        ]
    }

    type PacketBuilder4or6 = etherparse::PacketBuilderStep<etherparse::IpHeaders>;

    #[test]
    fn the_checksum_is_as_another_makes_it() {
        for syn in syns() {
            let mut partial = syn.clone();
            let at = Parts::of(&syn).unwrap().tcp + 16;
            partial[at..at + 2].copy_from_slice(&[1, 2]);
            assert_eq!(whole(&partial), Some(syn));
        }
    }

    #[test]
    fn a_refusal_is_a_reset_from_the_other_end() {
        for syn in syns() {
            let packet = refusal(&syn).unwrap();
            assert_eq!(whole(&packet).as_ref(), Some(&packet));
            let sliced = SlicedPacket::from_ip(&packet).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("{sliced:?}")
            };
            assert!(tcp.rst() && tcp.ack() && !tcp.syn());
            assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 4000));
            assert_eq!(tcp.acknowledgment_number(), 0, "the SYN counts as one byte");
            let back = destination(&packet).unwrap().ip();
            assert_eq!(
                back,
                destination(&refusal(&packet).unwrap()).map(|_| back).unwrap()
            );
        }
    }

    #[test]
    fn a_routers_word_quotes_the_syn() {
        for syn in syns() {
            let packet = unreachable(&syn).unwrap();
            let sliced = SlicedPacket::from_ip(&packet).unwrap();
            match sliced.transport {
                Some(TransportSlice::Icmpv4(icmp)) => {
                    let wanted =
                        etherparse::Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host);
                    assert_eq!(icmp.icmp_type(), wanted);
                    assert_eq!(icmp.payload(), &syn[..28]);
                }
                Some(TransportSlice::Icmpv6(icmp)) => {
                    let wanted =
                        etherparse::Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address);
                    assert_eq!(icmp.icmp_type(), wanted);
                    assert!(icmp.is_checksum_valid([2; 16], [1; 16]));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_syn_gives_nothing() {
        let [syn, _] = syns();
        for end in 0..syn.len() - 5 {
            assert_eq!(whole(&syn[..end]), None);
            assert_eq!(refusal(&syn[..end]), None);
        }
        assert_eq!(unreachable(&[0x45; 60]), None, "another protocol");
    }
}
