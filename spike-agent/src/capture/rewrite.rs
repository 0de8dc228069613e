//! Gives a captured packet of an intercepted connection the addresses that the application used, not the agent's.
//!
//! TCP over IPv4 and IPv6. Checksums end up as right or as wrong as they were, with one exception: a sender's
//! unfinished checksum (usual on `lo` and veth, where the card would finish it) is finished when the whole segment is there.

use std::net::IpAddr;
use std::ops::Range;

use etherparse::{EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket};

use super::record::LinkType;

/// Replaces one end of a connection by another of the same address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// The end as the packet has it, for example the agent's listener.
    pub from: (IpAddr, u16),
    /// The end as the application knows it.
    pub to: (IpAddr, u16),
}

/// Offset of the checksum in a TCP header; the ports are at 0 and 2.
const TCP_CHECKSUM: usize = 16;
const IPV4_CHECKSUM: usize = 10;

/// Rewrites source or destination of `frame`, whichever is `rewrite.from`, and says whether there was one.
///
/// Anything but TCP, a fragment, or two ends of different families is left as it is.
pub fn rewrite(frame: &mut [u8], link_type: LinkType, rewrite: &Rewrite) -> bool {
    let Some(segment) = Segment::locate(frame, link_type) else {
        return false;
    };
    let (from, to) = (rewrite.from.0.to_canonical(), rewrite.to.0.to_canonical());
    if from.is_ipv4() != to.is_ipv4() || from.is_ipv4() != segment.is_v4 {
        return false;
    }
    let (from, to) = (octets(&from), octets(&to));
    let (from_port, to_port) = (rewrite.from.1.to_be_bytes(), rewrite.to.1.to_be_bytes());

    let ends = [
        (segment.source(), segment.tcp),
        (segment.destination(), segment.tcp + 2),
    ];
    let Some((address, port)) = ends
        .into_iter()
        .find(|(address, port)| frame[address.clone()] == *from && frame[*port..*port + 2] == from_port)
    else {
        return false;
    };

    let checksum = segment.checksum(frame);
    if segment.is_v4 {
        let at = segment.ip + IPV4_CHECKSUM;
        put(frame, at, adjusted(get(frame, at), sum(&from), sum(&to)));
    }
    frame[address].copy_from_slice(&to);
    frame[port..port + 2].copy_from_slice(&to_port);

    let at = segment.tcp + TCP_CHECKSUM;
    let new = match checksum {
        Checksum::Finishable => {
            put(frame, at, 0);
            !fold(
                segment.pseudo_header(frame)
                    + segment.len
                    + sum(&frame[segment.tcp..segment.tcp + segment.captured]),
            )
        }
        Checksum::Unfinished { len } => fold(segment.pseudo_header(frame) + len),
        Checksum::Opaque => adjusted(
            get(frame, at),
            sum(&from) + sum(&from_port),
            sum(&to) + sum(&to_port),
        ),
    };
    put(frame, at, new);
    true
}

/// What the checksum of a segment holds, and so how it follows a change of address.
enum Checksum {
    /// Right, or unfinished with all bytes at hand.
    Finishable,
    /// The sum of the pseudo-header alone, as the kernel leaves it to a network card; `len` is the length that it has in.
    Unfinished { len: u64 },
    /// Wrong, or cut and not to be checked: stays what it is relative to the addresses.
    Opaque,
}

/// Where a frame's TCP segment is. Offsets are into the frame.
struct Segment {
    is_v4: bool,
    ip: usize,
    tcp: usize,
    /// Bytes of the segment that the frame holds.
    captured: usize,
    /// Bytes of the segment on the wire.
    len: u64,
    /// All of the segment is in the frame.
    whole: bool,
}

impl Segment {
    fn locate(frame: &[u8], link_type: LinkType) -> Option<Self> {
        let packet = match link_type {
            LinkType::Ethernet => LaxSlicedPacket::from_ethernet(frame).ok()?,
            LinkType::Raw => match frame.first()? >> 4 {
                4 => LaxSlicedPacket::from_ether_type(EtherType::IPV4, frame),
                6 => LaxSlicedPacket::from_ether_type(EtherType::IPV6, frame),
                _ => return None,
            },
        };
        // `field` is the length in the IP header, `before` the bytes of that header that it does not count.
        let (is_v4, header, field, before) = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(v4) => (true, v4.header().slice(), v4.header().total_len(), 0),
            LaxNetSlice::Ipv6(v6) => (false, v6.header().slice(), v6.header().payload_length(), 40),
            LaxNetSlice::Arp(_) => return None,
        };
        let payload = packet.ip_payload()?;
        let offset = |slice: &[u8]| slice.as_ptr().addr() - frame.as_ptr().addr();
        let (ip, tcp) = (offset(header), offset(payload.payload));
        // A segment too long for the field has 0 there: then the frame is all that is known of its length.
        let known = field != 0;
        let len = if known {
            (before + usize::from(field)).checked_sub(tcp - ip)?
        } else {
            payload.payload.len()
        };
        // Ports and checksum have to be there.
        (payload.ip_number == IpNumber::TCP
            && !payload.fragmented
            && payload.payload.len() >= TCP_CHECKSUM + 2)
            .then_some(Self {
                is_v4,
                ip,
                tcp,
                captured: payload.payload.len(),
                len: len as u64,
                whole: known && !payload.incomplete,
            })
    }

    fn source(&self) -> Range<usize> {
        if self.is_v4 {
            self.ip + 12..self.ip + 16
        } else {
            self.ip + 8..self.ip + 24
        }
    }

    fn destination(&self) -> Range<usize> {
        if self.is_v4 {
            self.ip + 16..self.ip + 20
        } else {
            self.ip + 24..self.ip + 40
        }
    }

    /// The sum of the pseudo-header without the segment's length.
    fn pseudo_header(&self, frame: &[u8]) -> u64 {
        sum(&frame[self.source()]) + sum(&frame[self.destination()]) + u64::from(IpNumber::TCP.0)
    }

    fn checksum(&self, frame: &[u8]) -> Checksum {
        let pseudo = self.pseudo_header(frame);
        let now = get(frame, self.tcp + TCP_CHECKSUM);
        // Some senders leave the length to the card as well.
        let unfinished = [self.len, 0].into_iter().find(|len| now == fold(pseudo + len));
        if self.whole {
            let valid = fold(pseudo + self.len + sum(&frame[self.tcp..self.tcp + self.captured])) == 0xffff;
            if valid || unfinished.is_some() {
                Checksum::Finishable
            } else {
                Checksum::Opaque
            }
        } else {
            unfinished.map_or(Checksum::Opaque, |len| Checksum::Unfinished { len })
        }
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The checksum after words that sum to `old` became words that sum to `new` (RFC 1624, equation 3).
fn adjusted(checksum: u16, old: u64, new: u64) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!fold(old)) + new)
}

/// Adds 16-bit words; an odd last byte counts as the upper half of one.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let last = words.remainder().first().map_or(0, |byte| u64::from(*byte) << 8);
    words
        .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
        .sum::<u64>()
        + last
}

/// The one's complement sum of a plain sum.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn get(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;
