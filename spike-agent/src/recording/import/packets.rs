//! pcapng and pcap files: their TCP connections, put in order, and what name servers were asked.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    net::SocketAddr,
    path::Path,
};

use super::{
    ImportError, Imported, Importer,
    datagrams::{self, Datagrams},
};
use crate::{
    capture::show::{Segment, segments},
    protocol::Side,
    recording::{NewConnection, Redaction},
};

/// Segments of one direction that wait for one that was overtaken; with more it is taken for missing.
const WAITING_LIMIT: usize = 256;

/// Connections by their ends, the lower one first.
struct Flows {
    importer: Option<Importer>,
    open: HashMap<(SocketAddr, SocketAddr), Flow>,
    datagrams: Datagrams,
    first_ns: Option<u64>,
    last_ns: u64,
    left_out: u64,
}

struct Flow {
    id: u64,
    client: SocketAddr,
    ways: [Way; 2],
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Number of the next byte, once it is known.
    next: Option<u32>,
    /// By their distance from the next byte when they came: bytes, times.
    waiting: BTreeMap<u64, (u64, Vec<u8>, u32)>,
    /// Bytes that were taken, for that distance.
    taken: u64,
    is_closed: bool,
}

/// Makes a recording at `path` of a capture that is called `from`.
///
/// # Errors
/// When it is none, is damaged, has no TCP, or the recording cannot be made.
pub fn packets(
    input: impl Read + Send + 'static,
    from: &str,
    path: &Path,
    rules: Redaction,
) -> Result<Imported, ImportError> {
    let mut flows = Flows {
        importer: None,
        open: HashMap::new(),
        datagrams: Datagrams::default(),
        first_ns: None,
        last_ns: 0,
        left_out: 0,
    };
    let mut failed = None;
    let totals = segments(input, |segment, at_ns, comment| {
        if failed.is_some() {
            return;
        }
        let first = *flows.first_ns.get_or_insert(at_ns);
        flows.last_ns = flows.last_ns.max(at_ns);
        let asks = datagrams::ends(segment).filter(|_| segment.is_datagram);
        if segment.is_datagram && asks.is_none() {
            flows.left_out += 1;
            return;
        }
        if flows.importer.is_none() {
            match Importer::new(path, from, first, rules.clone()) {
                Ok(importer) => flows.importer = Some(importer),
                Err(error) => {
                    failed = Some(error);
                    return;
                }
            }
        }
        let at_ns = at_ns.saturating_sub(first);
        let taken = match (asks, &mut flows.importer) {
            (Some(ends), Some(importer)) => {
                let names = names(ends.0, ends.1, ends.2 == Side::Client, comment);
                let bytes = segment.payload;
                flows.datagrams.take(importer, ends, at_ns, names, bytes)
            }
            _ => flows.segment(segment, at_ns, comment),
        };
        failed = taken.err();
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    flows.drain()?;
    let Some(importer) = flows.importer.take() else {
        return Err(ImportError::Empty("TCP connection"));
    };
    let imported = importer.finish(flows.last_ns)?;
    Ok(Imported {
        left_out: flows.left_out + totals.others,
        is_cut: totals.is_cut,
        ..imported
    })
}

impl Flows {
    fn segment(
        &mut self,
        segment: &Segment<'_>,
        at_ns: u64,
        comment: Option<&str>,
    ) -> Result<(), ImportError> {
        let Some(importer) = &mut self.importer else {
            return Ok(());
        };
        let ends = (
            segment.source.min(segment.destination),
            segment.source.max(segment.destination),
        );
        let opens = segment.syn && !segment.ack;
        // The same ends again, for another connection.
        if opens
            && self
                .open
                .get(&ends)
                .is_some_and(|flow| flow.ways.iter().any(|way| way.taken > 0))
            && let Some(mut old) = self.open.remove(&ends)
        {
            old.drain(importer, at_ns)?;
            importer.close(old.id, Some(at_ns), true)?;
        }
        let flow = match self.open.entry(ends) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                if !segment.syn && segment.length == 0 {
                    return Ok(());
                }
                entry.insert(Flow::open(segment, at_ns, comment, importer)?)
            }
        };
        let side = if segment.source == flow.client {
            Side::Client
        } else {
            Side::Server
        };
        let way = &mut flow.ways[side as usize];
        if segment.syn {
            way.next = Some(segment.sequence.wrapping_add(1));
        } else if segment.length > 0 {
            way.take(segment, at_ns);
            way.give(importer, flow.id, side, false)?;
        }
        way.is_closed |= segment.fin;
        let is_over = flow
            .ways
            .iter()
            .all(|way| way.is_closed && way.waiting.is_empty());
        if segment.rst || is_over {
            flow.drain(importer, at_ns)?;
            importer.close(flow.id, Some(at_ns), segment.rst && !is_over)?;
            self.open.remove(&ends);
        }
        Ok(())
    }

    /// Gives what waits for what never came.
    fn drain(&mut self) -> Result<(), ImportError> {
        let Some(importer) = &mut self.importer else {
            return Ok(());
        };
        for flow in self.open.values_mut() {
            flow.drain(importer, 0)?;
        }
        Ok(())
    }
}

/// What the caller and the server are called by a packet's comment, else by their addresses.
fn names(client: SocketAddr, server: SocketAddr, from_client: bool, comment: Option<&str>) -> [String; 2] {
    let mut names = [client, server].map(|end| end.ip().to_canonical().to_string());
    // Spike's own: `curl[1] service=a -> nginx[2]`, or `a -> b` of a recording.
    if let Some((left, right)) = comment.and_then(|text| text.split_once("->")) {
        let said = if from_client { [left, right] } else { [right, left] };
        for (name, said) in names.iter_mut().zip(said) {
            let service = said.split(' ').find_map(|word| word.strip_prefix("service="));
            let process = said.trim().split('[').next().filter(|name| !name.is_empty());
            if let Some(known) = service.or(process) {
                known.trim().clone_into(name);
            }
        }
    }
    names
}

/// A connection as it is kept, by the names and addresses of the caller and of the server.
pub(super) fn connection(
    transport: &str,
    opened_ns: u64,
    [caller, callee]: [String; 2],
    ends: [SocketAddr; 2],
) -> NewConnection {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port()).to_string();
    let [client, server] = ends.map(canonical);
    NewConnection {
        opened_ns,
        transport: transport.to_owned(),
        caller,
        callee,
        client,
        server,
        ..NewConnection::default()
    }
}

impl Flow {
    fn open(
        segment: &Segment<'_>,
        at_ns: u64,
        comment: Option<&str>,
        importer: &mut Importer,
    ) -> Result<Self, ImportError> {
        // Without a SYN: servers have the small ports.
        let from_client = if segment.syn {
            !segment.ack
        } else {
            segment.source.port() >= segment.destination.port()
        };
        let (client, server) = if from_client {
            (segment.source, segment.destination)
        } else {
            (segment.destination, segment.source)
        };
        let names = names(client, server, from_client, comment);
        let id = importer.open(&connection("tcp", at_ns, names, [client, server]))?;
        Ok(Self {
            id,
            client,
            ways: [Way::default(), Way::default()],
        })
    }

    fn drain(&mut self, importer: &mut Importer, _at_ns: u64) -> Result<(), ImportError> {
        for side in [Side::Client, Side::Server] {
            self.ways[side as usize].give(importer, self.id, side, true)?;
        }
        Ok(())
    }
}

impl Way {
    /// Keeps what is new of a segment.
    fn take(&mut self, segment: &Segment<'_>, at_ns: u64) {
        let next = *self.next.get_or_insert(segment.sequence);
        let distance = segment.sequence.wrapping_sub(next).cast_signed();
        let mut payload = segment.payload;
        let mut length = segment.length;
        let mut ahead = u64::from(distance.max(0).cast_unsigned());
        if distance < 0 {
            // Sent again, at least in part.
            let known = distance.unsigned_abs();
            if known >= length {
                return;
            }
            length -= known;
            payload = payload.get(known as usize..).unwrap_or_default();
            ahead = 0;
        }
        let place = self.taken + ahead;
        let longer = |(_, old, _): &(u64, Vec<u8>, u32)| old.len() < payload.len();
        if self.waiting.get(&place).is_none_or(longer) {
            self.waiting.insert(place, (at_ns, payload.to_vec(), length));
        }
    }

    /// Gives what is next; what is overtaken only when too much waits, or nothing more comes.
    fn give(
        &mut self,
        importer: &mut Importer,
        id: u64,
        side: Side,
        is_last: bool,
    ) -> Result<(), ImportError> {
        while let Some((&place, _)) = self.waiting.first_key_value() {
            if place > self.taken && !is_last && self.waiting.len() <= WAITING_LIMIT {
                return Ok(());
            }
            let Some((at_ns, bytes, length)) = self.waiting.remove(&place) else {
                return Ok(());
            };
            let known = self.taken.saturating_sub(place);
            if known >= u64::from(length) {
                continue;
            }
            let missing = place.saturating_sub(self.taken);
            let bytes = bytes.get(known as usize..).unwrap_or_default();
            importer.bytes(id, side, at_ns, missing, bytes)?;
            // What the capture cut off.
            let cut = u64::from(length) - known - bytes.len() as u64;
            if cut > 0 {
                importer.bytes(id, side, at_ns, cut, &[])?;
            }
            let end = place.max(self.taken) + u64::from(length) - known;
            self.next = self.next.map(|next| next.wrapping_add((end - self.taken) as u32));
            self.taken = end;
        }
        Ok(())
    }
}
