//! Finds the connections among the packets of a file, and gives their bytes to the decoders.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::Packet;
use crate::calls::{Book, Connections, EdgeCall, Sample, view};
use crate::model::view::CallView;
use crate::protocol::{Call, Side};

/// Nanoseconds of the capture between two looks for connections that rest.
const LOOK: u64 = 1_000_000_000;

/// All connections of a file.
#[derive(Default)]
pub(super) struct Flows {
    by_ends: HashMap<(SocketAddr, SocketAddr), Flow>,
    /// By the flow's number, which stays when another connection has the same ends.
    names: Vec<Names>,
    connections: Connections,
    book: Book,
    looked_ns: u64,
    last_ns: u64,
    calls: u64,
    /// Reused for each packet.
    ended: Vec<EdgeCall>,
}

/// One connection.
struct Flow {
    number: u64,
    /// Which of the two ends asked.
    client: SocketAddr,
    is_datagrams: bool,
    /// By [`Side`]: a SYN was seen, and nothing after it.
    fresh: [bool; 2],
    /// By [`Side`]: the number that the next byte will have.
    next: [u32; 2],
    has_data: bool,
}

/// What the ends are called.
struct Names {
    client: String,
    server: String,
    port: u16,
}

/// A segment or a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Of UDP, so that what follows is 0 and false.
    pub is_datagram: bool,
    /// Number of its first byte, or of the SYN.
    pub sequence: u32,
    /// Opens a direction.
    pub syn: bool,
    /// Acknowledges.
    pub ack: bool,
    /// Closes a direction.
    pub fin: bool,
    /// Breaks the connection.
    pub rst: bool,
    /// Of the payload on the wire.
    pub length: u32,
    /// As much of it as was captured.
    pub payload: &'a [u8],
}

impl Flows {
    /// Takes a packet; false when it is neither TCP nor UDP.
    pub(super) fn packet(&mut self, packet: &Packet<'_>, each: &mut impl FnMut(CallView)) -> bool {
        let Some(segment) = Segment::read(packet) else {
            return false;
        };
        self.last_ns = self.last_ns.max(packet.at_ns);
        let (number, side, first) = self.flow(&segment, packet.comment);
        let port = self.names[number as usize].port;
        let sample = Sample {
            is_datagram: segment.is_datagram,
            cookie: number,
            edge: number,
            at_ns: packet.at_ns,
            from: side,
            port,
            sequence: segment.sequence.wrapping_add(u32::from(segment.syn)),
            length: segment.length,
            bytes: segment.payload,
            first,
            fin: segment.fin,
            reset: segment.rst,
        };
        self.connections.take(&sample, &mut self.book, &mut self.ended);
        if packet.at_ns.saturating_sub(self.looked_ns) >= LOOK {
            self.looked_ns = packet.at_ns;
            self.connections
                .expire(packet.at_ns, &mut self.book, &mut self.ended);
        }
        self.tell(each);
        true
    }

    /// Number of the flow that a segment is of, who sent it, and whether nothing came before it.
    fn flow(&mut self, segment: &Segment<'_>, comment: Option<&str>) -> (u64, Side, bool) {
        let (low, high) = (
            segment.source.min(segment.destination),
            segment.source.max(segment.destination),
        );
        let opens = segment.syn && !segment.ack;
        let known = self.by_ends.get(&(low, high));
        // The same ends again, for another connection.
        let is_new =
            known.is_none_or(|flow| opens && flow.has_data || flow.is_datagrams != segment.is_datagram);
        if is_new {
            let client = if segment.syn {
                if segment.ack {
                    segment.destination
                } else {
                    segment.source
                }
            } else if segment.source.port() < segment.destination.port() {
                // Servers have the small ports.
                segment.destination
            } else {
                segment.source
            };
            let server = if client == low { high } else { low };
            let flow = Flow {
                number: self.names.len() as u64,
                client,
                is_datagrams: segment.is_datagram,
                fresh: [false; 2],
                next: [0; 2],
                has_data: false,
            };
            self.names.push(Names {
                client: client.ip().to_string(),
                server: server.ip().to_string(),
                port: server.port(),
            });
            self.by_ends.insert((low, high), flow);
        }
        let Some(flow) = self.by_ends.get_mut(&(low, high)) else {
            return (0, Side::Client, false);
        };
        let side = if segment.source == flow.client {
            Side::Client
        } else {
            Side::Server
        };
        if is_new && let Some(comment) = comment {
            self.names[flow.number as usize].learn(comment, side);
        }
        let index = side as usize;
        let mut first = false;
        if segment.syn {
            flow.fresh[index] = true;
        } else if segment.length > 0 {
            first = flow.fresh[index];
            flow.fresh[index] = false;
            flow.has_data = true;
            flow.next[index] = segment.sequence.wrapping_add(segment.length);
        }
        (flow.number, side, first)
    }

    /// No more packets come: what is under way is told as it stands.
    pub(super) fn finish(&mut self, each: &mut impl FnMut(CallView)) {
        let later = self.last_ns.saturating_add(LOOK);
        self.connections.expire(later, &mut self.book, &mut self.ended);
        let mut open: Vec<&Flow> = self
            .by_ends
            .values()
            .filter(|flow| flow.has_data && !flow.is_datagrams)
            .collect();
        open.sort_by_key(|flow| flow.number);
        for flow in open {
            for from in [Side::Client, Side::Server] {
                let sample = Sample {
                    is_datagram: false,
                    cookie: flow.number,
                    edge: flow.number,
                    at_ns: self.last_ns,
                    from,
                    port: self.names[flow.number as usize].port,
                    sequence: flow.next[from as usize],
                    length: 0,
                    bytes: &[],
                    first: false,
                    fin: true,
                    reset: false,
                };
                self.connections.take(&sample, &mut self.book, &mut self.ended);
            }
        }
        self.tell(each);
    }

    /// Flows and calls.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.names.len() as u64, self.calls)
    }

    fn tell(&mut self, each: &mut impl FnMut(CallView)) {
        for EdgeCall { edge, call } in self.ended.drain(..) {
            self.calls += 1;
            if let Some(names) = self.names.get(edge as usize) {
                each(named(&call, edge, names));
            }
        }
    }
}

impl Names {
    /// Learns from a packet's comment: `curl[1] service=a -> nginx[2]`, either of which may be missing.
    fn learn(&mut self, comment: &str, sender: Side) {
        let Some((left, right)) = comment.split_once("->") else {
            return;
        };
        let (client, server) = match sender {
            Side::Client => (left, right),
            Side::Server => (right, left),
        };
        for (end, name) in [(client, &mut self.client), (server, &mut self.server)] {
            let service = end.split(' ').find_map(|word| word.strip_prefix("service="));
            let process = end.trim().split_once('[').map(|(process, _)| process);
            if let Some(known) = service.or(process) {
                known.clone_into(name);
            }
        }
    }
}

fn named(call: &Call, edge: u64, names: &Names) -> CallView {
    let at = UNIX_EPOCH + Duration::from_nanos(call.started_ns);
    let server = match names.server.contains(':') {
        true => format!("[{}]", names.server),
        false => names.server.clone(),
    };
    let callee = format!("{server}:{}", names.port);
    view(call, edge, at, names.client.clone(), callee)
}

impl<'a> Segment<'a> {
    pub(super) fn read(packet: &Packet<'a>) -> Option<Self> {
        let sliced = if packet.has_ethernet {
            LaxSlicedPacket::from_ethernet(packet.data).ok()?
        } else {
            LaxSlicedPacket::from_ip(packet.data).ok()?
        };
        let (source, destination, declared): (IpAddr, IpAddr, usize) = match sliced.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                let length = usize::from(header.total_len()).saturating_sub(header.slice().len());
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    length,
                )
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    usize::from(header.payload_length()),
                )
            }
            LaxNetSlice::Arp(_) => return None,
        };
        match sliced.transport? {
            TransportSlice::Tcp(tcp) => {
                let payload = tcp.payload();
                // What is declared is 0 for segments too long for the field.
                let length = declared
                    .saturating_sub(tcp.header_slice().len())
                    .max(payload.len());
                Some(Self {
                    source: SocketAddr::new(source, tcp.source_port()),
                    destination: SocketAddr::new(destination, tcp.destination_port()),
                    is_datagram: false,
                    sequence: tcp.sequence_number(),
                    syn: tcp.syn(),
                    ack: tcp.ack(),
                    fin: tcp.fin(),
                    rst: tcp.rst(),
                    length: u32::try_from(length).ok()?,
                    payload,
                })
            }
            TransportSlice::Udp(udp) => Some(Self {
                source: SocketAddr::new(source, udp.source_port()),
                destination: SocketAddr::new(destination, udp.destination_port()),
                is_datagram: true,
                sequence: 0,
                syn: false,
                ack: false,
                fin: false,
                rst: false,
                length: u32::from(udp.length()).saturating_sub(8),
                payload: udp.payload(),
            }),
            _ => None,
        }
    }
}
