//! Writes pcapng blocks with per-packet comments, directions and drop counts, which the pcap crates leave out.
//!
//! Each function appends one whole block to a buffer: no file, no state. Little-endian, nanoseconds.
//! `epb_verdict` is absent on purpose: editcap and mergecap 4.0 write corrupt files from it.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::record::{Direction, LinkType};

pub(super) const SECTION_HEADER: u32 = 0x0A0D_0D0A;
pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const NAME_RESOLUTION: u32 = 4;
pub(super) const ENHANCED_PACKET: u32 = 6;
const DECRYPTION_SECRETS: u32 = 10;
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
/// "TLSK": lines as of `SSLKEYLOGFILE`.
const TLS_KEY_LOG: u32 = 0x544C_534B;
/// Records of a name resolution block.
const NRB_END: u16 = 0;
const NRB_IPV4: u16 = 1;
const NRB_IPV6: u16 = 2;

/// Option numbers; those above 1 mean something else in each kind of block.
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;

    pub(super) const SHB_HARDWARE: u16 = 2;
    pub(super) const SHB_OS: u16 = 3;
    pub(super) const SHB_USERAPPL: u16 = 4;

    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_DESCRIPTION: u16 = 3;
    pub(super) const IF_TSRESOL: u16 = 9;
    pub(super) const IF_FILTER: u16 = 11;

    pub(super) const EPB_FLAGS: u16 = 2;
    pub(super) const EPB_DROPCOUNT: u16 = 4;
    pub(super) const EPB_PACKETID: u16 = 5;

    pub(super) const ISB_STARTTIME: u16 = 2;
    pub(super) const ISB_ENDTIME: u16 = 3;
    pub(super) const ISB_IFRECV: u16 = 4;
    pub(super) const ISB_IFDROP: u16 = 5;
    pub(super) const ISB_FILTERACCEPT: u16 = 6;
    pub(super) const ISB_USRDELIV: u16 = 8;
}

/// What the first block of a file says about where it was made.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// The machine, for example `x86_64`.
    pub hardware: &'a str,
    /// The operating system with its release.
    pub os: &'a str,
    /// The program with its version.
    pub application: &'a str,
}

/// An interface, to be written before the first packet that names it.
#[derive(Debug, Clone, Copy)]
pub struct InterfaceDescription<'a> {
    /// How its packets begin.
    pub link_type: LinkType,
    /// Longest packet kept, in bytes; 0 is "no limit".
    pub snaplen: u32,
    /// The name that readers show.
    pub name: &'a str,
    /// More about the interface, where there is more to say.
    pub description: Option<&'a str>,
    /// What was asked to be captured, in words.
    pub filter: Option<&'a str>,
}

/// A packet with what is known about it.
#[derive(Debug, Clone, Copy)]
pub struct EnhancedPacket<'a> {
    /// Counts the interface descriptions of the section from 0.
    pub interface: u32,
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Length on the wire.
    pub original_len: u32,
    /// What was captured of the packet.
    pub data: &'a [u8],
    /// Shown by readers beside the packet.
    pub comment: Option<&'a str>,
    /// Which way it went, when known.
    pub direction: Option<Direction>,
    /// Packets lost on this interface since the packet before.
    pub dropped: Option<u64>,
    /// The same in two blocks when both are one packet, seen twice.
    pub packet_id: Option<u64>,
}

/// The counts of one interface, written when the capture ends.
#[derive(Debug, Clone, Copy)]
pub struct InterfaceStatistics {
    /// Counts the interface descriptions of the section from 0.
    pub interface: u32,
    /// When the capture began, nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// When it ended, nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// Packets seen by the capture.
    pub received: u64,
    /// Packets lost for want of space.
    pub dropped: u64,
    /// Packets that the filter let through.
    pub accepted: u64,
    /// Packets that are in the file.
    pub delivered: u64,
}

/// Appends the block that a file begins with.
pub fn section(out: &mut BytesMut, section: &Section<'_>) {
    block(out, SECTION_HEADER, |out| {
        out.put_u32_le(BYTE_ORDER_MAGIC);
        out.put_u16_le(1); // version 1.0
        out.put_u16_le(0);
        out.put_i64_le(-1); // the section's length is not known yet
        put_text(out, option::SHB_HARDWARE, section.hardware);
        put_text(out, option::SHB_OS, section.os);
        put_text(out, option::SHB_USERAPPL, section.application);
        put_end(out);
    });
}

/// Appends the description of an interface.
pub fn interface(out: &mut BytesMut, interface: &InterfaceDescription<'_>) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.put_u16_le(match interface.link_type {
            LinkType::Ethernet => 1,
            LinkType::Raw => 101,
        });
        out.put_u16_le(0); // reserved
        out.put_u32_le(interface.snaplen);
        put_text(out, option::IF_NAME, interface.name);
        if let Some(description) = interface.description {
            put_text(out, option::IF_DESCRIPTION, description);
        }
        put_option(out, option::IF_TSRESOL, &[9]); // 10^-9 s
        if let Some(filter) = interface.filter {
            put_text(out, option::IF_FILTER, &format!("\0{filter}")); // 0: the rest is text
        }
        put_end(out);
    });
}

/// Appends a packet.
pub fn packet(out: &mut BytesMut, packet: &EnhancedPacket<'_>) {
    // 32 of the block, 16 or less for each option: one reservation for all.
    out.reserve(96 + packet.data.len() + packet.comment.map_or(0, str::len));
    block(out, ENHANCED_PACKET, |out| {
        out.put_u32_le(packet.interface);
        put_timestamp(out, packet.timestamp_ns);
        out.put_u32_le(length(packet.data.len()));
        out.put_u32_le(packet.original_len);
        put_padded(out, packet.data);

        let before = out.len();
        if let Some(comment) = packet.comment {
            put_text(out, option::COMMENT, comment);
        }
        if let Some(direction) = packet.direction {
            let flags: u32 = match direction {
                Direction::In => 1,
                Direction::Out => 2,
            };
            put_option(out, option::EPB_FLAGS, &flags.to_le_bytes());
        }
        if let Some(dropped) = packet.dropped {
            put_option(out, option::EPB_DROPCOUNT, &dropped.to_le_bytes());
        }
        if let Some(id) = packet.packet_id {
            put_option(out, option::EPB_PACKETID, &id.to_le_bytes());
        }
        if out.len() > before {
            put_end(out);
        }
    });
}

/// Appends names of addresses: valid for what follows.
pub fn names<'a>(out: &mut BytesMut, names: impl IntoIterator<Item = &'a (IpAddr, String)>) {
    block(out, NAME_RESOLUTION, |out| {
        for (address, name) in names {
            let name = &name.as_bytes()[..name.floor_char_boundary(255)];
            let (kind, octets) = match address {
                IpAddr::V4(v4) => (NRB_IPV4, v4.octets().to_vec()),
                IpAddr::V6(v6) => (NRB_IPV6, v6.octets().to_vec()),
            };
            // Ends with a zero byte.
            put_option(out, kind, &[&octets, name, b"\0"].concat());
        }
        out.put_u16_le(NRB_END);
        out.put_u16_le(0);
    });
}

/// Appends TLS secrets in the format of `SSLKEYLOGFILE`: readers decrypt with them what follows.
pub fn secrets(out: &mut BytesMut, key_log: &[u8]) {
    block(out, DECRYPTION_SECRETS, |out| {
        out.put_u32_le(TLS_KEY_LOG);
        out.put_u32_le(length(key_log.len()));
        put_padded(out, key_log);
    });
}

/// Appends the counts of an interface.
pub fn statistics(out: &mut BytesMut, statistics: &InterfaceStatistics) {
    let times = [
        (option::ISB_STARTTIME, statistics.start_ns),
        (option::ISB_ENDTIME, statistics.end_ns),
    ];
    let counts = [
        (option::ISB_IFRECV, statistics.received),
        (option::ISB_IFDROP, statistics.dropped),
        (option::ISB_FILTERACCEPT, statistics.accepted),
        (option::ISB_USRDELIV, statistics.delivered),
    ];
    block(out, INTERFACE_STATISTICS, |out| {
        out.put_u32_le(statistics.interface);
        put_timestamp(out, statistics.end_ns);
        for (code, time) in times {
            out.put_u16_le(code);
            out.put_u16_le(8);
            put_timestamp(out, time);
        }
        for (code, count) in counts {
            put_option(out, code, &count.to_le_bytes());
        }
        put_end(out);
    });
}

/// Writes type and length around `body`, which has to leave the buffer 32-bit aligned.
fn block(out: &mut BytesMut, kind: u32, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(kind);
    out.put_u32_le(0); // the length, known below
    body(out);
    let total = length(out.len() - start + 4);
    out.put_u32_le(total);
    out[start + 4..start + 8].copy_from_slice(&total.to_le_bytes());
}

/// The upper half comes first, whatever the byte order.
fn put_timestamp(out: &mut BytesMut, ns: u64) {
    out.put_u32_le((ns >> 32) as u32);
    out.put_u32_le(ns as u32);
}

fn put_text(out: &mut BytesMut, code: u16, text: &str) {
    put_option(
        out,
        code,
        &text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))],
    );
}

/// A value beyond 65,535 bytes, the most that an option holds, is cut.
fn put_option(out: &mut BytesMut, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.put_u16_le(code);
    out.put_u16_le(len);
    put_padded(out, &value[..usize::from(len)]);
}

fn put_end(out: &mut BytesMut) {
    out.put_u16_le(option::END);
    out.put_u16_le(0);
}

fn put_padded(out: &mut BytesMut, value: &[u8]) {
    out.put_slice(value);
    out.put_bytes(0, value.len().wrapping_neg() % 4);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
