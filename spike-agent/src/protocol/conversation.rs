//! One connection's decoder.

mod read;

use super::{
    Call, End, Kind, Losses, Protocol, ProtocolName, Side,
    calls::Calls,
    detect::{Detector, Found},
    kind,
    messages::Event,
    stream::{Before, Mode, Stream},
};

/// One connection's decoder.
///
/// The bytes and gaps of both directions must come in the order in which they were captured. Each direction buffers
/// at most 64 KiB, and only the heads of messages; at most 1,024 calls are open at a time.
///
/// Where responses are matched by order, a gap in anything but a body makes it unknown how many requests are in
/// flight. Calls are given out again only from a request on that started when nothing was: the other direction is
/// between messages, and as quiet as the protocol asks for.
pub struct Conversation {
    kinds: &'static [Kind],
    server_port: u16,
    phase: Phase,
    streams: [Stream; 2],
    calls: Calls,
    /// Reused for each step.
    events: Vec<Event>,
    failures: u32,
    losses: Losses,
    /// Who sent last, and when.
    last: Option<(Option<Side>, u64)>,
}

enum Phase {
    Detecting(Detector),
    Known(ProtocolName, Box<dyn Protocol>),
    /// Costs nothing more.
    Opaque,
}

impl Conversation {
    /// A connection that was just opened. For one that is older, [`missing`](Self::missing) comes first, with an
    /// unknown count for each side.
    pub fn new(server_port: u16) -> Self {
        Self::of(kind::ALL, server_port)
    }

    pub(super) fn of(kinds: &'static [Kind], server_port: u16) -> Self {
        Self {
            kinds,
            server_port,
            phase: Phase::Detecting(Detector::new(kinds, server_port)),
            streams: [Stream::new(), Stream::new()],
            calls: Calls::new(),
            events: Vec::new(),
            failures: 0,
            losses: Losses::default(),
            last: None,
        }
    }

    /// What is spoken, once that is known; none, too, after decoding failed too often.
    pub fn protocol(&self) -> Option<ProtocolName> {
        match self.phase {
            Phase::Known(name, _) => Some(name),
            Phase::Detecting(_) | Phase::Opaque => None,
        }
    }

    /// Whether nothing more will come of it, so that it needn't be fed.
    pub fn is_opaque(&self) -> bool {
        matches!(self.phase, Phase::Opaque)
    }

    /// What was not decoded so far.
    pub fn losses(&self) -> Losses {
        Losses {
            resyncs: self.losses.resyncs + self.calls.unpaired,
            calls: self.calls.dropped,
            ..self.losses
        }
    }

    /// Bytes of one direction, of a packet that came at `at` (nanoseconds of `CLOCK_MONOTONIC`).
    pub fn data(&mut self, from: Side, at: u64, bytes: &[u8], out: &mut Vec<Call>) {
        if self.is_opaque() || bytes.is_empty() {
            return;
        }
        let before = Before {
            side: self.last.and_then(|(side, _)| side),
            quiet_ns: self.last.map_or(0, |(_, last)| at.saturating_sub(last)),
        };
        self.last = Some((Some(from), at));
        self.streams[from as usize].came(bytes.len(), at, before);
        if let Phase::Detecting(_) = self.phase {
            self.streams[from as usize].held.extend_from_slice(bytes);
            self.detect(out);
        } else {
            self.feed(from, bytes, out);
        }
    }

    /// `count` bytes of one direction passed by uncopied, the last of them at `at`; none if it isn't known how many.
    pub fn missing(&mut self, from: Side, at: u64, count: Option<u64>, out: &mut Vec<Call>) {
        if self.is_opaque() || count == Some(0) {
            return;
        }
        // Who sent last isn't known of a connection that is joined in its middle.
        let joined = count.is_none() && matches!(self.phase, Phase::Detecting(_));
        self.last = Some(((!joined).then_some(from), at));
        let stream = &mut self.streams[from as usize];
        let mut lost = count.unwrap_or(0);
        match stream.mode {
            Mode::Rest => return self.pass(from, lost, at),
            Mode::Skip(left) if count.is_some() => {
                let body = left.min(lost);
                self.pass(from, body, at);
                self.skipped(from, left - body, at, out);
                lost -= body;
                if lost == 0 {
                    return;
                }
            }
            Mode::Skip(_) | Mode::Framed | Mode::Unsynced => {}
        }
        self.lose(from);
        self.losses.bytes = self.losses.bytes.saturating_add(lost);
        self.streams[from as usize].pass(at, lost);
    }

    /// The connection is over, or no longer looked at. Nothing may follow.
    pub fn end(&mut self, at: u64, how: End, out: &mut Vec<Call>) {
        if how == End::Closed {
            for side in [Side::Client, Side::Server] {
                if self.streams[side as usize].mode == Mode::Rest {
                    self.skipped(side, 0, at, out);
                }
            }
        }
        match how {
            End::Closed => self.calls.end(at, "closed", false, out),
            End::Reset => self.calls.end(at, "reset", true, out),
            End::Unsampled => self.calls.drop_all(),
        }
        self.give_up();
    }

    /// Bytes that are buffered, in both directions.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.streams.iter().map(|stream| stream.held.len()).sum()
    }

    fn give_up(&mut self) {
        self.calls.drop_all();
        self.streams = [Stream::new(), Stream::new()];
        self.phase = Phase::Opaque;
    }

    fn detect(&mut self, out: &mut Vec<Call>) {
        let Phase::Detecting(detector) = &mut self.phase else {
            return;
        };
        match detector.look(&mut self.streams) {
            Found::NotYet => {}
            Found::Nothing => self.give_up(),
            Found::Kind(kind) => self.start(kind, out),
        }
    }

    fn start(&mut self, kind: &Kind, out: &mut Vec<Call>) {
        let mut protocol = (kind.start)();
        for side in [Side::Client, Side::Server] {
            let stream = &mut self.streams[side as usize];
            if stream.mode == Mode::Unsynced {
                protocol.lost(side);
                self.calls.paired = false;
                if !stream.held.is_empty() {
                    stream.mode = Mode::Framed;
                }
            }
        }
        self.phase = Phase::Known(kind.name, protocol);
        self.feed_held(out);
    }

    /// Reads what both directions hold, the one that spoke first first.
    fn feed_held(&mut self, out: &mut Vec<Call>) {
        let mut sides = [Side::Client, Side::Server];
        sides.sort_by_key(|side| self.streams[*side as usize].first_at());
        for side in sides {
            self.feed(side, &[], out);
        }
    }
}
