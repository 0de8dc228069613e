//! Turns a pcapng stream into classic pcap with nanoseconds, for tools that read nothing else.
//!
//! That format has one kind of link for the whole file and room for nothing but the packets.

use bytes::{Buf, BufMut, BytesMut};

use super::blocks::{Block, Blocks, NoBlock};
use super::pcapng::ENHANCED_PACKET;

/// The magic number of files whose times are in nanoseconds.
const NANOSECONDS: u32 = 0xA1B2_3C4D;
const SECOND_NS: u64 = 1_000_000_000;

/// Why there can be no classic pcap.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The stream is damaged.
    #[error(transparent)]
    NoBlock(#[from] NoBlock),
    /// Interfaces whose packets begin differently.
    #[error(
        "the interfaces are of different kinds (link types {0} and {1}), and a classic pcap file has one: name the interfaces, or write pcapng"
    )]
    Mixed(u16, u16),
}

/// The conversion under way.
#[derive(Debug, Default)]
pub struct Pcap {
    blocks: Blocks,
    link_type: Option<u16>,
}

impl Pcap {
    /// Takes a piece of pcapng and gives what it completes.
    ///
    /// # Errors
    /// See [`PcapError`]; nothing can follow.
    pub fn convert(&mut self, piece: &[u8]) -> Result<BytesMut, PcapError> {
        self.blocks.push(piece);
        let mut out = BytesMut::with_capacity(piece.len());
        while let Some(block) = self.blocks.next_block()? {
            if block.is_interface() {
                self.interface(&block, &mut out)?;
            } else if block.kind == ENHANCED_PACKET {
                packet(block.body(), &mut out);
            }
        }
        Ok(out)
    }

    fn interface(&mut self, block: &Block, out: &mut BytesMut) -> Result<(), PcapError> {
        let mut body = block.body();
        if body.len() < 8 {
            return Ok(());
        }
        let link_type = body.get_u16_le();
        body.advance(2);
        let snaplen = body.get_u32_le();
        match self.link_type {
            Some(first) if first != link_type => return Err(PcapError::Mixed(first, link_type)),
            Some(_) => return Ok(()),
            None => self.link_type = Some(link_type),
        }
        out.put_u32_le(NANOSECONDS);
        out.put_u16_le(2); // version 2.4
        out.put_u16_le(4);
        out.put_u64_le(0); // time zone and accuracy: always 0
        out.put_u32_le(snaplen);
        out.put_u32_le(u32::from(link_type));
        Ok(())
    }
}

fn packet(mut body: &[u8], out: &mut BytesMut) {
    if body.len() < 20 {
        return;
    }
    body.advance(4);
    let time = u64::from(body.get_u32_le()) << 32 | u64::from(body.get_u32_le());
    let (captured, length) = (body.get_u32_le(), body.get_u32_le());
    let Some(data) = body.get(..captured as usize) else {
        return;
    };
    out.put_u32_le((time / SECOND_NS) as u32);
    out.put_u32_le((time % SECOND_NS) as u32);
    out.put_u32_le(captured);
    out.put_u32_le(length);
    out.put_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::oracle;
    use crate::capture::pcapng::{self, EnhancedPacket, InterfaceDescription, Section};
    use crate::capture::record::LinkType;

    fn stream(link_types: &[LinkType]) -> BytesMut {
        let mut out = BytesMut::new();
        let about = Section {
            hardware: "x",
            os: "y",
            application: "z",
        };
        pcapng::section(&mut out, &about);
        for link_type in link_types {
            let interface = InterfaceDescription {
                link_type: *link_type,
                snaplen: 100,
                name: "eth0",
                description: None,
                filter: None,
            };
            pcapng::interface(&mut out, &interface);
        }
        for length in [14_u32, 61] {
            let packet = EnhancedPacket {
                interface: 0,
                timestamp_ns: 1_700_000_000_123_456_789,
                original_len: length + 1,
                data: &vec![0; length as usize],
                comment: Some("gone"),
                direction: None,
                dropped: None,
                packet_id: None,
            };
            pcapng::packet(&mut out, &packet);
        }
        out
    }

    #[test]
    fn wireshark_reads_the_same_packets() {
        let mut pcap = Pcap::default();
        let mut file = Vec::new();
        for piece in stream(&[LinkType::Ethernet, LinkType::Ethernet]).chunks(7) {
            file.extend_from_slice(&pcap.convert(piece).unwrap());
        }
        let fields = ["frame.time_epoch", "frame.cap_len", "frame.len"];
        let Some(rows) = oracle::tshark(&file, &fields) else {
            return;
        };
        let time = "1700000000.123456789";
        assert_eq!(rows, [[time, "14", "15"], [time, "61", "62"]]);
        let info = oracle::capinfos(&file).unwrap();
        assert!(info.contains("Wireshark/tcpdump/... - nanosecond pcap"), "{info}");
    }

    #[test]
    fn links_of_two_kinds_are_refused() {
        let error = Pcap::default()
            .convert(&stream(&[LinkType::Ethernet, LinkType::Raw]))
            .unwrap_err();
        assert!(matches!(error, PcapError::Mixed(1, 101)), "{error}");
    }
}
