//! Reads the IP and transport headers of a packet.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;
use spike_common::address::{Address, Endpoint};
use spike_common::counter::Counter;

use crate::support::counts;

pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;
/// RFC 768.
const UDP_HEADER: u32 = 8;
/// TCP flags.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// What the traffic hook needs of a TCP segment or a UDP datagram.
pub(crate) struct Segment {
    pub(crate) is_datagram: bool,
    /// Of TCP only, as are the flags.
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    /// Where the payload begins, in bytes from the IP header.
    pub(crate) start: u32,
    /// Payload bytes; for a segment that the card will cut (GSO) those of all its parts.
    pub(crate) payload: u32,
}

impl Segment {
    /// Reads a packet that starts with its IP header; none if it is neither TCP nor UDP. By direct access: this runs for every
    /// packet of the host.
    #[inline(always)]
    pub(crate) fn read(ctx: &SkBuffContext) -> Option<Self> {
        let skb = ctx.skb.skb;
        // SAFETY: context fields.
        let (data, end, length) = unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
        if data + 20 > end {
            return None;
        }
        // SAFETY: every read below is within `data..end`, checked before it, as the verifier sees.
        unsafe {
            let first = *(data as *const u8);
            let (protocol, header) = if first >> 4 == 4 {
                (*((data + 9) as *const u8), (usize::from(first) & 0xf) << 2)
            } else {
                (*((data + 6) as *const u8), 40)
            };
            if protocol == IPPROTO_UDP {
                let start = header as u32 + UDP_HEADER;
                return Some(Self {
                    is_datagram: true,
                    sequence: 0,
                    flags: 0,
                    start,
                    payload: length.saturating_sub(start),
                });
            }
            if protocol != IPPROTO_TCP {
                return None;
            }
            let tcp = data + header;
            if tcp + 20 > end {
                counts::count(Counter::PacketUnread);
                return None;
            }
            let sequence = u32::from_be(*((tcp + 4) as *const u32));
            let offset = u32::from(*((tcp + 12) as *const u8) >> 4) << 2;
            let flags = *((tcp + 13) as *const u8);
            let start = header as u32 + offset;
            Some(Self {
                is_datagram: false,
                sequence,
                flags,
                start,
                payload: length.saturating_sub(start),
            })
        }
    }
}

/// The two ends of a packet, as it has them; ports are 0 where the protocol has none, and in the later fragments of a
/// datagram.
pub(crate) struct Ends {
    pub(crate) protocol: u8,
    /// Where the header after IP's begins; 0 in the later fragments of a datagram, which have none.
    pub(crate) transport: u32,
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
}

/// The bits of an IPv4 header's offset field that are 0 for all but the later parts of a datagram.
const FRAGMENT_OFFSET: u16 = 0x1fff;

impl Ends {
    /// Reads a packet whose IP header starts at `offset`. By copies: works on any packet layout, and only captures pay.
    #[inline(always)]
    pub(crate) fn read(skb: *mut __sk_buff, offset: u32) -> Option<Self> {
        let first: u8 = load(skb, offset)?;
        let mut starts = true;
        let (protocol, header, source, destination) = if first >> 4 == 4 {
            let protocol: u8 = load(skb, offset + 9)?;
            let fragment: u16 = load(skb, offset + 6)?;
            starts = u16::from_be(fragment) & FRAGMENT_OFFSET == 0;
            let addresses: [u32; 2] = load(skb, offset + 12)?;
            let header = (u32::from(first) & 0xf) << 2;
            let [source, destination] = addresses.map(Address::from_ipv4_word);
            (protocol, header, source, destination)
        } else if first >> 4 == 6 {
            let protocol: u8 = load(skb, offset + 6)?;
            (
                protocol,
                40,
                Address(load(skb, offset + 8)?),
                Address(load(skb, offset + 24)?),
            )
        } else {
            return None;
        };
        let ports: [u16; 2] = if starts && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) {
            load(skb, offset + header)?
        } else {
            [0; 2]
        };
        Some(Self {
            protocol,
            transport: if starts { offset + header } else { 0 },
            source: Endpoint::new(source, u16::from_be(ports[0])),
            destination: Endpoint::new(destination, u16::from_be(ports[1])),
        })
    }
}

/// Copies a value out of a packet.
#[inline(always)]
pub(crate) fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes the whole value or fails; T is made of integers.
    unsafe {
        let result = bpf_skb_load_bytes(
            skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
        );
        (result == 0).then(|| value.assume_init())
    }
}
