//! Connections as packets, for tools that read those: made up from the bytes, with the times at which these passed.

use std::{
    collections::HashMap,
    io::Write,
    net::{IpAddr, SocketAddr},
};

use bytes::BytesMut;
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

use super::{ExportError, Reader, Written, by_id};
use crate::{
    capture::{
        pcapng::{self, EnhancedPacket, InterfaceDescription, Section},
        record::LinkType,
    },
    protocol::Side,
    recording::{ConnectionRow, HowEnded},
};

/// Bytes of a segment at most: what a packet on `lo` may have.
const SEGMENT: usize = 32 << 10;
const WINDOW: u16 = 65_535;

/// A connection on its way into packets.
struct Flow<'a> {
    row: &'a ConnectionRow,
    ends: [SocketAddr; 2],
    /// Position behind the last byte of each side.
    sent: [u64; 2],
    comment: String,
    /// Datagrams, of which none was written so far.
    is_new: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Syn,
    Data,
    Fin,
    Reset,
}

/// All connections as TCP packets over IP, with beginnings and ends, and datagrams as such; one interface. Where bytes are
/// missing, segments are.
///
/// # Errors
/// When the recording cannot be read or the packets not written.
pub fn pcapng(reader: &Reader, out: &mut dyn Write) -> Result<Written, ExportError> {
    let connections = by_id(reader)?;
    let base = reader.about().started_unix_ns;
    let mut block = BytesMut::new();
    pcapng::section(
        &mut block,
        &Section {
            hardware: std::env::consts::ARCH,
            os: "Linux",
            application: concat!("Spike ", env!("CARGO_PKG_VERSION"), ", made up from a recording"),
        },
    );
    pcapng::interface(
        &mut block,
        &InterfaceDescription {
            link_type: LinkType::Raw,
            snaplen: 0,
            name: "recording",
            description: None,
            filter: None,
        },
    );
    let mut written = Written::default();
    let mut flows: HashMap<i64, Flow<'_>> = HashMap::new();
    let mut rows: Vec<&ConnectionRow> = connections.values().collect();
    rows.sort_by_key(|row| (row.opened.opened_ns, row.id));
    for row in rows {
        let ends = [&row.opened.client, &row.opened.server].map(|end| end.parse::<SocketAddr>());
        let [Ok(client), Ok(server)] = ends else {
            written.left_out += 1;
            continue;
        };
        let same_family = client.ip().to_canonical().is_ipv4() == server.ip().to_canonical().is_ipv4();
        // A caller whose own address is not known in the family of the server's.
        let client = if same_family {
            client
        } else {
            SocketAddr::new(loopback(server.ip()), client.port())
        };
        let comment = format!("{} -> {}", row.opened.caller, row.opened.callee);
        let ends = [client, server];
        flows.insert(
            row.id,
            Flow {
                row,
                ends,
                sent: [0; 2],
                comment,
                is_new: true,
            },
        );
        written.calls += 1;
    }
    let mut opened: Vec<(u64, i64)> = flows
        .values()
        .map(|flow| (flow.row.opened.opened_ns, flow.row.id))
        .collect();
    opened.sort_unstable();
    let mut closed: Vec<(u64, i64)> = flows
        .values()
        .filter_map(|flow| Some((flow.row.closed_ns?, flow.row.id)))
        .collect();
    closed.sort_unstable();
    let (mut opened, mut closed) = (opened.into_iter().peekable(), closed.into_iter().peekable());
    // Beginnings and ends come in between at their times; a connection has begun before its first bytes.
    let mut up_to = |now: u64, flows: &mut HashMap<i64, Flow<'_>>, block: &mut BytesMut| {
        loop {
            let begins = opened.peek().copied().filter(|(at, _)| *at <= now);
            let ends = closed.peek().copied().filter(|(at, _)| *at < now);
            match (begins, ends) {
                (Some(first), second) if second.is_none_or(|second| first.0 <= second.0) => {
                    opened.next();
                    if let Some(flow) = flows.get_mut(&first.1) {
                        flow.begin(base + first.0, block);
                    }
                }
                (_, Some((at, id))) => {
                    closed.next();
                    if let Some(flow) = flows.get_mut(&id) {
                        flow.end(base + at, block);
                    }
                }
                _ => return,
            }
        }
    };
    reader.each_chunk_in_time(|connection, from, chunk| {
        up_to(chunk.at_ns, &mut flows, &mut block);
        if let Some(flow) = flows.get_mut(&connection).filter(|flow| flow.is_datagrams()) {
            flow.datagram(from, &chunk.bytes, base + chunk.at_ns, &mut block);
        } else if let Some(flow) = flows.get_mut(&connection) {
            for (index, piece) in chunk.bytes.chunks(SEGMENT).enumerate() {
                let position = chunk.position + (index * SEGMENT) as u64;
                flow.sent[from as usize] = position;
                flow.packet(from, Mark::Data, piece, base + chunk.at_ns, &mut block);
                flow.sent[from as usize] += piece.len() as u64;
            }
        }
        out.write_all(&block)?;
        block.clear();
        Ok::<_, ExportError>(())
    })?;
    up_to(u64::MAX, &mut flows, &mut block);
    out.write_all(&block)?;
    Ok(written)
}

impl Flow<'_> {
    fn is_datagrams(&self) -> bool {
        self.row.opened.transport == "udp"
    }

    fn begin(&mut self, at_ns: u64, block: &mut BytesMut) {
        if self.is_datagrams() {
            return;
        }
        self.packet(Side::Client, Mark::Syn, &[], at_ns, block);
        self.packet(Side::Server, Mark::Syn, &[], at_ns, block);
        self.packet(Side::Client, Mark::Data, &[], at_ns, block);
    }

    fn end(&mut self, at_ns: u64, block: &mut BytesMut) {
        if self.is_datagrams() {
            return;
        }
        match self.row.ended {
            HowEnded::Open => {}
            HowEnded::Reset => self.packet(Side::Server, Mark::Reset, &[], at_ns, block),
            HowEnded::Closed => {
                for side in [Side::Client, Side::Server] {
                    self.packet(side, Mark::Fin, &[], at_ns, block);
                    self.sent[side as usize] += 1;
                }
                self.packet(Side::Client, Mark::Data, &[], at_ns, block);
            }
        }
    }

    fn datagram(&mut self, from: Side, payload: &[u8], at_ns: u64, block: &mut BytesMut) {
        let (ip, ports) = self.headers(from);
        let udp = ip.udp(ports[0], ports[1]);
        let mut packet = Vec::with_capacity(udp.size(payload.len()));
        if udp.write(&mut packet, payload).is_ok() {
            let is_first = std::mem::take(&mut self.is_new) && from == Side::Client;
            self.write(&packet, is_first, at_ns, block);
        }
    }

    /// The packet's head, and the ports of who sends and who receives.
    fn headers(&self, from: Side) -> (PacketBuilderStep<IpHeaders>, [u16; 2]) {
        let [source, destination] = match from {
            Side::Client => self.ends,
            Side::Server => [self.ends[1], self.ends[0]],
        };
        let ip = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
            }
            (source, destination) => PacketBuilder::ipv6(octets6(source), octets6(destination), 64),
        };
        (ip, [source.port(), destination.port()])
    }

    fn packet(&self, from: Side, mark: Mark, payload: &[u8], at_ns: u64, block: &mut BytesMut) {
        let (ip, ports) = self.headers(from);
        // The SYN takes the number before the first byte's.
        let number =
            |side: Side| (self.sent[side as usize] as u32).wrapping_add(u32::from(mark != Mark::Syn));
        let mut tcp = ip.tcp(ports[0], ports[1], number(from), WINDOW);
        let is_first = mark == Mark::Syn && from == Side::Client;
        if !is_first {
            let acknowledged = (self.sent[from.other() as usize] as u32).wrapping_add(1);
            tcp = tcp.ack(acknowledged);
        }
        tcp = match mark {
            Mark::Syn => tcp.syn(),
            Mark::Fin => tcp.fin(),
            Mark::Reset => tcp.rst(),
            Mark::Data if payload.is_empty() => tcp,
            Mark::Data => tcp.psh(),
        };
        let mut packet = Vec::with_capacity(tcp.size(payload.len()));
        if tcp.write(&mut packet, payload).is_err() {
            // Of a length that no packet has; segments are shorter.
            return;
        }
        self.write(&packet, is_first, at_ns, block);
    }

    fn write(&self, packet: &[u8], is_first: bool, at_ns: u64, block: &mut BytesMut) {
        pcapng::packet(
            block,
            &EnhancedPacket {
                interface: 0,
                timestamp_ns: at_ns,
                original_len: packet.len() as u32,
                data: packet,
                comment: is_first.then_some(&*self.comment),
                direction: None,
                dropped: None,
                packet_id: None,
            },
        );
    }
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn loopback(like: IpAddr) -> IpAddr {
    match like.to_canonical() {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    }
}
