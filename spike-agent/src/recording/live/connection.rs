//! One connection on its way to the file: its protocol found, its secrets gone, its calls told.

use std::{collections::VecDeque, mem, sync::atomic::Ordering};

use super::{Counts, decoder::Decoder};
use crate::{
    protocol::{Call, Conversation, End, Side},
    recording::{
        Chunk, HowEnded, Loss, NewCall, NewConnection, RecordingError, Writer, fields,
        redact::{Found, Redact, Redaction, redactor},
    },
};

type Result<T> = std::result::Result<T, RecordingError>;

/// How long what was said is kept from the disk while its protocol is not known.
const PATIENCE_NS: u64 = 700_000_000;
/// Bytes of a message from which its fields are read.
const FIELDS_LIMIT: u64 = 64 << 10;

pub(in crate::recording) struct Carried {
    row: i64,
    rules: Redaction,
    body_limit: Option<u64>,
    sides: [Sent; 2],
    stage: Stage,
    /// Decodes what is kept.
    decoder: Decoder,
    found: Found,
    protocol: Option<&'static str>,
    calls: Vec<Call>,
    cut: [u64; 2],
    /// Bytes that came after ones that are missing.
    untold: u64,
}

/// One direction.
#[derive(Default)]
struct Sent {
    /// Bytes that came, and that are missing.
    total: u64,
    /// Position, in what is kept, of the next byte.
    position: u64,
    /// Lengths and times of what the redactor holds.
    pending: VecDeque<(usize, u64)>,
    /// Bytes since the other side said something.
    run: u64,
}

enum Stage {
    /// What is spoken is not known: nothing goes to the disk.
    Detecting {
        probe: Box<Conversation>,
        held: Vec<(Side, u64, Box<[u8]>)>,
        since_ns: Option<u64>,
    },
    /// It is, or never will be.
    Known(Box<dyn Redact>),
    /// Bytes are missing where a secret may have begun: nothing more is kept.
    Lost,
}

impl Carried {
    pub(in crate::recording) fn new(
        row: i64,
        new: &NewConnection,
        rules: Redaction,
        body_limit: Option<u64>,
    ) -> Self {
        let port = new
            .server
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(0);
        let is_datagrams = new.transport == "udp";
        // What has a redactor is spoken on connections.
        let stage = if is_datagrams {
            Stage::Known(redactor(None, &rules))
        } else {
            Stage::Detecting {
                probe: Box::new(Conversation::new(port)),
                held: Vec::new(),
                since_ns: None,
            }
        };
        Self {
            row,
            rules,
            body_limit,
            sides: [Sent::default(), Sent::default()],
            stage,
            decoder: Decoder::new(is_datagrams, port),
            found: Found::default(),
            protocol: None,
            calls: Vec::new(),
            cut: [0; 2],
            untold: 0,
        }
    }

    /// Bytes that a side sent.
    pub(in crate::recording) fn bytes(
        &mut self,
        from: Side,
        at_ns: u64,
        bytes: &[u8],
        writer: &mut Writer,
        counts: &Counts,
    ) -> Result<()> {
        self.sides[from as usize].total += bytes.len() as u64;
        match &mut self.stage {
            Stage::Detecting {
                probe,
                held,
                since_ns,
            } => {
                since_ns.get_or_insert(at_ns);
                held.push((from, at_ns, bytes.into()));
                // Its calls are told by the other one, without secrets.
                probe.data(from, at_ns, bytes, &mut Vec::new());
                if probe.protocol().is_some() || probe.is_opaque() {
                    return self.decide(writer, counts);
                }
                Ok(())
            }
            Stage::Known(_) => self.redact(from, at_ns, bytes, writer, counts),
            Stage::Lost => {
                self.untold += bytes.len() as u64;
                counts.lost.fetch_add(1, Ordering::Relaxed);
                counts.lost_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Bytes of a side that never came.
    pub(in crate::recording) fn missing(
        &mut self,
        from: Side,
        at_ns: u64,
        count: u64,
        writer: &mut Writer,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.sides[from as usize].total += count;
        writer.add_loss(&Loss {
            at_ns,
            connection: Some(self.row),
            why: "the writer was behind".to_owned(),
            count: 1,
            bytes: count,
        })?;
        let goes_on = match &mut self.stage {
            Stage::Detecting { .. } => self.rules.is_none(),
            Stage::Known(redactor) => redactor.gap(from, count),
            Stage::Lost => return Ok(()),
        };
        if goes_on {
            self.sides[from as usize].position += count;
            self.decoder.missing(from, at_ns, count, &mut self.calls);
            return self.tell_calls(writer, None);
        }
        self.stage = Stage::Lost;
        // What was held goes with it.
        let held = self.sides.iter_mut().flat_map(|sent| sent.pending.drain(..));
        self.untold += held.map(|(length, _)| length as u64).sum::<u64>();
        self.decoder.end(at_ns, End::Unsampled, &mut self.calls);
        self.tell_calls(writer, None)
    }

    /// Has its protocol been looked for too long?
    pub(in crate::recording) fn waits_too_long(&self, now_ns: u64) -> bool {
        matches!(&self.stage, Stage::Detecting { since_ns: Some(since), .. } if now_ns.saturating_sub(*since) > PATIENCE_NS)
    }

    /// Takes what was held for what it looks like so far.
    pub(in crate::recording) fn give_up_waiting(
        &mut self,
        writer: &mut Writer,
        counts: &Counts,
    ) -> Result<()> {
        self.decide(writer, counts)
    }

    /// It is over, or goes on without being recorded.
    pub(in crate::recording) fn end(
        &mut self,
        at_ns: Option<u64>,
        is_reset: bool,
        writer: &mut Writer,
        counts: &Counts,
    ) -> Result<()> {
        self.decide(writer, counts)?;
        if let Stage::Known(redactor) = &mut self.stage {
            let mut rest = [Vec::new(), Vec::new()];
            for side in [Side::Client, Side::Server] {
                redactor.end(side, &mut rest[side as usize]);
            }
            let keeps_length = redactor.keeps_length();
            for (side, bytes) in [Side::Client, Side::Server].into_iter().zip(rest) {
                self.keep(side, at_ns.unwrap_or(0), &bytes, keeps_length, writer, counts)?;
            }
        }
        let how = match (at_ns, is_reset) {
            (None, _) => (End::Unsampled, HowEnded::Open),
            (_, true) => (End::Reset, HowEnded::Reset),
            (_, false) => (End::Closed, HowEnded::Closed),
        };
        self.decoder.end(at_ns.unwrap_or(0), how.0, &mut self.calls);
        self.tell_calls(writer, Some(counts))?;
        let cut: u64 = self.cut.iter().sum();
        if cut > 0 {
            writer.add_loss(&Loss {
                at_ns: at_ns.unwrap_or(0),
                connection: Some(self.row),
                why: "beyond the body limit".to_owned(),
                count: 1,
                bytes: cut,
            })?;
        }
        if let Stage::Lost = self.stage {
            writer.add_loss(&Loss {
                at_ns: at_ns.unwrap_or(0),
                connection: Some(self.row),
                why: "after bytes that are missing, where secrets could not be told any more".to_owned(),
                count: 1,
                bytes: self.untold,
            })?;
        }
        let sent = [self.sides[0].total, self.sides[1].total];
        writer.end_connection(self.row, at_ns, how.1, sent)
    }

    /// What is spoken is known, or is not looked for any longer.
    fn decide(&mut self, writer: &mut Writer, counts: &Counts) -> Result<()> {
        let Stage::Detecting { probe, held, .. } = &mut self.stage else {
            return Ok(());
        };
        let (protocol, held) = (probe.protocol(), mem::take(held));
        self.stage = Stage::Known(redactor(protocol, &self.rules));
        for (from, at_ns, bytes) in held {
            self.redact(from, at_ns, &bytes, writer, counts)?;
        }
        Ok(())
    }

    fn redact(
        &mut self,
        from: Side,
        at_ns: u64,
        bytes: &[u8],
        writer: &mut Writer,
        counts: &Counts,
    ) -> Result<()> {
        let Stage::Known(redactor) = &mut self.stage else {
            return Ok(());
        };
        let sent = &mut self.sides[from as usize];
        let held: usize = sent.pending.iter().map(|(length, _)| length).sum();
        sent.pending.push_back((bytes.len(), at_ns));
        self.found.at(from, sent.position + held as u64);
        let mut out = Vec::with_capacity(bytes.len());
        redactor.take(from, bytes, &mut out, &mut self.found);
        let keeps_length = redactor.keeps_length();
        self.keep(from, at_ns, &out, keeps_length, writer, counts)
    }

    /// Writes what may be kept, cut as it came.
    fn keep(
        &mut self,
        from: Side,
        at_ns: u64,
        mut bytes: &[u8],
        keeps_length: bool,
        writer: &mut Writer,
        counts: &Counts,
    ) -> Result<()> {
        if !keeps_length {
            self.sides[from as usize].pending.clear();
            self.sides[from as usize].pending.push_back((bytes.len(), at_ns));
        }
        while !bytes.is_empty() {
            let sent = &mut self.sides[from as usize];
            let (length, at_ns) = match sent.pending.front_mut() {
                Some((left, at)) => {
                    let length = (*left).min(bytes.len());
                    let at = *at;
                    *left -= length;
                    if *left == 0 {
                        sent.pending.pop_front();
                    }
                    (length, at)
                }
                None => (bytes.len(), at_ns),
            };
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            self.write(from, at_ns, piece, writer, counts)?;
        }
        self.sides[from as usize]
            .pending
            .retain(|(length, _)| *length > 0);
        Ok(())
    }

    fn write(
        &mut self,
        from: Side,
        at_ns: u64,
        bytes: &[u8],
        writer: &mut Writer,
        counts: &Counts,
    ) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.sides[from.other() as usize].run = 0;
        let sent = &mut self.sides[from as usize];
        let room = self
            .body_limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(sent.run));
        sent.run += bytes.len() as u64;
        let kept = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        let position = sent.position;
        sent.position += bytes.len() as u64;
        if kept > 0 {
            let chunk = Chunk {
                position,
                at_ns,
                bytes: bytes[..kept].to_vec(),
            };
            writer.add_chunk(self.row, from, &chunk)?;
            counts.bytes.fetch_add(kept as u64, Ordering::Relaxed);
        }
        let cut = (bytes.len() - kept) as u64;
        self.cut[from as usize] += cut;
        counts.cut_bytes.fetch_add(cut, Ordering::Relaxed);
        self.decoder.data(from, at_ns, bytes, &mut self.calls);
        self.tell_protocol(writer)?;
        self.tell_calls(writer, Some(counts))
    }

    fn tell_protocol(&mut self, writer: &mut Writer) -> Result<()> {
        let now = self.decoder.protocol().map(crate::protocol::ProtocolName::as_str);
        if now.is_some() && now != self.protocol {
            self.protocol = now;
            writer.set_protocol(self.row, now.unwrap_or_default())?;
        }
        Ok(())
    }

    fn tell_calls(&mut self, writer: &mut Writer, counts: Option<&Counts>) -> Result<()> {
        for call in mem::take(&mut self.calls) {
            if let Some(counts) = counts {
                counts.calls.fetch_add(1, Ordering::Relaxed);
            }
            let (request_at, response_at) = (call.place.request.clone(), call.place.response.clone());
            let redactions =
                self.found
                    .of_call(call.from, &request_at, response_at.as_ref().unwrap_or(&(0..0)));
            let start_of =
                |range: &std::ops::Range<u64>| range.start..range.end.min(range.start + FIELDS_LIMIT);
            let request = writer.bytes(self.row, call.from, start_of(&request_at))?;
            let response = match &response_at {
                Some(range) => writer.bytes(self.row, call.from.other(), start_of(range))?,
                None => Vec::new(),
            };
            let (request, response) = fields::read(&call, &request, &response);
            writer.add_call(&NewCall {
                connection: self.row,
                protocol: call.protocol.as_str().to_owned(),
                from: call.from,
                operation: call.operation,
                target: call.target,
                status: call.status,
                failed: call.failed,
                complete: call.complete,
                started_ns: call.started_ns,
                sent_ns: call.sent_ns,
                first_byte_ns: call.first_byte_ns,
                ended_ns: call.ended_ns,
                request_at,
                response_at,
                stream: call.place.id,
                request,
                response,
                redactions,
            })?;
        }
        Ok(())
    }
}
