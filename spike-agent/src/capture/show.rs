//! Reads the calls in a capture file, of Spike or of any other program, by the decoders that watch live traffic.

mod flows;

use std::io::Read;

use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

use self::flows::Flows;
pub use self::flows::Segment;
use crate::model::view::CallView;

/// Longest block: a packet of 256 KiB with a long comment.
const BUFFER: usize = 1024 * 1024;
/// `LINKTYPE_ETHERNET`; others that begin with an IP header are below.
const ETHERNET: i32 = 1;
const RAW: [i32; 4] = [12, 101, 228, 229];

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// It is none.
    #[error("this is neither a pcapng nor a pcap file")]
    NoCapture,
    /// It is damaged.
    #[error("the file is damaged after {0} packets")]
    Damaged(u64),
}

/// What was in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets.
    pub packets: u64,
    /// Packets that are neither TCP nor UDP, or of a link that is not known.
    pub others: u64,
    /// Connections, and pairs of ends that exchanged datagrams.
    pub flows: u64,
    /// Calls.
    pub calls: u64,
    /// The file ends within a packet.
    pub is_cut: bool,
}

/// One packet of a file.
#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    has_ethernet: bool,
    /// Nanoseconds since the Unix epoch.
    at_ns: u64,
    data: &'a [u8],
    comment: Option<&'a str>,
}

/// Reads a file and gives the calls in it, in the order in which they ended; then those that did not end.
///
/// # Errors
/// When it is no capture, or damaged; what was read until then was given.
pub fn read(input: impl Read + Send + 'static, mut each: impl FnMut(CallView)) -> Result<Totals, ShowError> {
    let mut flows = Flows::default();
    let mut totals = packets(input, |packet| flows.packet(packet, &mut each))?;
    flows.finish(&mut each);
    (totals.flows, totals.calls) = flows.totals();
    Ok(totals)
}

/// Reads a file and gives the TCP segments and the datagrams in it, with their times in nanoseconds since 1970 and the
/// packets' comments.
///
/// # Errors
/// When it is no capture, or damaged; what was read until then was given.
pub fn segments(
    input: impl Read + Send + 'static,
    mut each: impl FnMut(&Segment<'_>, u64, Option<&str>),
) -> Result<Totals, ShowError> {
    packets(input, |packet| {
        let segment = Segment::read(packet);
        if let Some(segment) = &segment {
            each(segment, packet.at_ns, packet.comment);
        }
        segment.is_some()
    })
}

/// Gives each packet of a known link to `each`, which tells whether it is of any use.
fn packets(
    input: impl Read + Send + 'static,
    mut each: impl FnMut(&Packet<'_>) -> bool,
) -> Result<Totals, ShowError> {
    let mut reader = create_reader(BUFFER, input).map_err(|_| ShowError::NoCapture)?;
    let mut interfaces = Vec::new();
    let mut nanoseconds = false;
    let mut totals = Totals::default();
    let mut refused = 0;
    loop {
        let offset = match reader.next() {
            Ok((offset, block)) => {
                let packet = match &block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        nanoseconds = header.is_nanosecond_precision();
                        interfaces = vec![Interface::new(header.network.0, 0)];
                        None
                    }
                    PcapBlockOwned::Legacy(packet) => {
                        let unit = if nanoseconds { 1 } else { 1000 };
                        let at_ns =
                            u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * unit;
                        let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                        interfaces
                            .first()
                            .map(|interface| (*interface, at_ns, data, None))
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                        interfaces.clear();
                        None
                    }
                    PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
                        interfaces.push(Interface::new(block.linktype.0, block.if_tsresol));
                        None
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                        let interface = interfaces.get(block.if_id as usize);
                        interface.map(|interface| {
                            let ticks = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                            let data = block.data.get(..block.caplen as usize).unwrap_or(block.data);
                            let comment = block.options.iter().find(|option| option.code.0 == 1);
                            let comment = comment.and_then(|option| option.as_str().ok());
                            (*interface, interface.nanoseconds(ticks), data, comment)
                        })
                    }
                    PcapBlockOwned::NG(_) => None,
                };
                if let Some((interface, at_ns, data, comment)) = packet {
                    totals.packets += 1;
                    let packet = Packet {
                        has_ethernet: interface.link_type == ETHERNET,
                        at_ns,
                        data,
                        comment,
                    };
                    let is_known = packet.has_ethernet || RAW.contains(&interface.link_type);
                    if !is_known || !each(&packet) {
                        totals.others += 1;
                    }
                }
                offset
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                // Nothing more comes of a file that is cut.
                if reader.reader_exhausted() || refused > 1 {
                    totals.is_cut = true;
                    break;
                }
                refused += 1;
                if reader.refill().is_err() {
                    return Err(ShowError::Damaged(totals.packets));
                }
                continue;
            }
            Err(_) if totals.packets == 0 && interfaces.is_empty() => return Err(ShowError::NoCapture),
            Err(_) => return Err(ShowError::Damaged(totals.packets)),
        };
        refused = 0;
        reader.consume(offset);
    }
    Ok(totals)
}

/// What the packets of an interface begin with, and the unit of their times.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: i32,
    /// As pcapng has it: a power of ten, or with the highest bit set of two.
    resolution: u8,
}

impl Interface {
    fn new(link_type: i32, resolution: u8) -> Self {
        Self {
            link_type,
            resolution,
        }
    }

    fn nanoseconds(self, ticks: u64) -> u64 {
        let ticks = u128::from(ticks);
        let exponent = u32::from(self.resolution & 0x7f);
        let nanoseconds = if self.resolution & 0x80 != 0 {
            (ticks * 1_000_000_000) >> exponent.min(127)
        } else if exponent <= 9 {
            ticks * 10_u128.pow(9 - exponent)
        } else {
            ticks / 10_u128.pow((exponent - 9).min(38))
        };
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
