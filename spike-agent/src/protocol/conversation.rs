//! One connection's decoder.

use std::mem;

use super::{
    Call, End, Kind, Losses, Messages, Next, Protocol, ProtocolName, Side, Step,
    calls::Calls,
    detect::{Detector, Found},
    kind,
    messages::Event,
    stream::{Before, HEAD_LIMIT, Mode, Stream},
};

/// Messages in a row that can't be decoded, with no call in between, after which it is not tried any more.
const FAILURES_LIMIT: u32 = 8;
/// Bytes kept while the next message is looked for, as its start may be in them.
const SEARCH_LIMIT: usize = 1024;

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
        self.streams[from as usize].pass(at);
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
        self.phase = Phase::Known(kind.name, (kind.start)());
        for stream in &mut self.streams {
            if stream.mode == Mode::Unsynced {
                self.calls.paired = false;
                if !stream.held.is_empty() {
                    stream.mode = Mode::Framed;
                }
            }
        }
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

    fn feed(&mut self, side: Side, bytes: &[u8], out: &mut Vec<Call>) {
        let mut held = mem::take(&mut self.streams[side as usize].held);
        let input = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        let mut used = 0;
        while let Some(count) = self.advance(side, &input[used..], out) {
            used += count;
        }
        match self.phase {
            Phase::Opaque => {}
            Phase::Known(..) => self.streams[side as usize].hold(held, bytes, used),
            // The protocol was left, for one that isn't known.
            Phase::Detecting(_) => {
                self.streams[side as usize].hold(held, bytes, used);
                self.detect(out);
            }
        }
    }

    /// Goes as far in `input` as one step leads: none if more bytes are needed.
    fn advance(&mut self, side: Side, input: &[u8], out: &mut Vec<Call>) -> Option<usize> {
        let Phase::Known(name, protocol) = &mut self.phase else {
            return None;
        };
        let stream = &mut self.streams[side as usize];
        if input.is_empty() || input.len() < stream.need {
            return None;
        }
        match stream.mode {
            Mode::Skip(left) => {
                let body = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                let at = self.take(side, body as u64);
                self.skipped(side, left - body as u64, at, out);
                Some(body)
            }
            Mode::Rest => {
                self.take(side, input.len() as u64);
                Some(input.len())
            }
            Mode::Unsynced => Some(self.search(side, input)?),
            Mode::Framed => {
                let head = &input[..input.len().min(HEAD_LIMIT)];
                let (asked, events) = (self.calls.asked(side), &mut self.events);
                let step = protocol.read(side, head, &mut Messages { events, asked });
                let name = *name;
                self.step(side, name, head, step, out)
            }
        }
    }

    fn step(
        &mut self,
        side: Side,
        name: ProtocolName,
        head: &[u8],
        step: Step,
        out: &mut Vec<Call>,
    ) -> Option<usize> {
        let (bytes, skip, switch) = match step {
            Step::Took { bytes, skip } => (bytes, Mode::Skip(skip), None),
            Step::TookRest { bytes } => (bytes, Mode::Rest, None),
            Step::Switch { bytes, next } => (bytes, Mode::Skip(0), Some(next)),
            Step::More | Step::Need(_) | Step::Lost => {
                self.events.clear();
                let need = if let Step::Need(need) = step { need } else { 0 };
                if step == Step::Lost || head.len() >= HEAD_LIMIT || need > HEAD_LIMIT {
                    return self.undecodable(side);
                }
                self.streams[side as usize].need = need;
                return None;
            }
        };
        if bytes == 0 || bytes > head.len() {
            self.events.clear();
            return self.undecodable(side);
        }
        self.apply_starts(side, name, out);
        let at = self.take(side, bytes as u64);
        self.streams[side as usize].mode = skip;
        if skip == Mode::Skip(0) {
            self.skipped(side, 0, at, out);
        }
        if let Some(next) = switch {
            self.switch(side, next);
        }
        Some(bytes)
    }

    /// Applies what starts in a step, and keeps what ends with it until its body has passed.
    fn apply_starts(&mut self, side: Side, name: ProtocolName, out: &mut Vec<Call>) {
        let asks = |event: &Event| matches!(event, Event::Request(super::Key::Order, _));
        if !self.calls.paired && self.events.iter().any(asks) && self.settled(side) {
            self.pair(side);
        }
        let at = self.streams[side as usize].first_at();
        let mut part = None;
        for event in self.events.drain(..) {
            if event.is_end() {
                self.streams[side as usize].ends.push(event);
            } else {
                let about = self.calls.apply(name, side, at, event, out);
                part = part.or(about);
            }
        }
        let part = part.or_else(|| {
            let ends = &self.streams[side as usize].ends;
            ends.first().and_then(|event| self.calls.about(side, event))
        });
        self.streams[side as usize].part = part.or_else(|| self.calls.current(side));
    }

    /// Whether a request that starts now is the only one in flight.
    fn settled(&self, side: Side) -> bool {
        let Phase::Known(_, protocol) = &self.phase else {
            return false;
        };
        let before = self.streams[side as usize].before(side);
        let other = &self.streams[side.other() as usize];
        let between = match other.mode {
            Mode::Framed => other.held.is_empty() && self.calls.idle(side),
            Mode::Unsynced => true,
            Mode::Skip(_) | Mode::Rest => false,
        };
        between && before.side != Some(side) && before.quiet_ns >= protocol.quiet_ns()
    }

    /// Nothing is in flight: the next byte of the other side starts a response, and the order is known.
    fn pair(&mut self, side: Side) {
        self.calls.drop_unpaired();
        self.calls.paired = true;
        let other = &mut self.streams[side.other() as usize];
        if other.mode == Mode::Unsynced {
            self.losses.bytes = self.losses.bytes.saturating_add(other.forget());
            other.mode = Mode::Framed;
        }
    }

    /// Goes past bytes that were captured, and counts them for the message that they are of.
    fn take(&mut self, side: Side, count: u64) -> u64 {
        let stream = &mut self.streams[side as usize];
        if let Some(part) = stream.part {
            self.calls.count(part, count);
        }
        stream.consume(count)
    }

    /// Goes past bytes of a body that were not captured.
    fn pass(&mut self, side: Side, count: u64, at: u64) {
        let stream = &mut self.streams[side as usize];
        if let Some(part) = stream.part {
            self.calls.count(part, count);
        }
        stream.pass(at);
    }

    /// `left` bytes of the body still come; if none, what ends with it ends at `at`.
    fn skipped(&mut self, side: Side, left: u64, at: u64, out: &mut Vec<Call>) {
        let stream = &mut self.streams[side as usize];
        if left > 0 {
            stream.mode = Mode::Skip(left);
            return;
        }
        stream.mode = Mode::Framed;
        stream.part = None;
        let Phase::Known(name, _) = self.phase else {
            return;
        };
        let known = out.len();
        for event in stream.ends.drain(..) {
            self.calls.apply(name, side, at, event, out);
        }
        if out.len() > known {
            self.failures = 0;
        }
    }

    fn undecodable(&mut self, side: Side) -> Option<usize> {
        self.losses.undecodable += 1;
        self.failures += 1;
        if self.failures >= FAILURES_LIMIT {
            self.give_up();
            return None;
        }
        self.lose(side);
        // Whatever starts here is not what it was taken for.
        self.losses.bytes = self.losses.bytes.saturating_add(1);
        self.streams[side as usize].consume(1);
        Some(1)
    }

    /// Where the next message of `side` starts is no longer known.
    fn lose(&mut self, side: Side) {
        let stream = &mut self.streams[side as usize];
        if stream.mode != Mode::Unsynced {
            self.losses.resyncs += 1;
        }
        self.losses.bytes = self.losses.bytes.saturating_add(stream.lose());
        self.calls.lost(side);
        if let Phase::Known(_, protocol) = &mut self.phase {
            protocol.lost(side);
        }
    }

    /// Looks for the next message; what is before it is passed over.
    fn search(&mut self, side: Side, input: &[u8]) -> Option<usize> {
        let Phase::Known(_, protocol) = &mut self.phase else {
            return None;
        };
        let stream = &mut self.streams[side as usize];
        let found = protocol.resync(side, input).filter(|at| *at < input.len());
        let passed = found.unwrap_or_else(|| input.len().saturating_sub(SEARCH_LIMIT));
        if found.is_some() {
            stream.mode = Mode::Framed;
            // Responses to these may have been in the gap.
            self.calls.drop_unpaired();
        } else if passed == 0 {
            return None;
        }
        self.losses.bytes = self.losses.bytes.saturating_add(passed as u64);
        stream.consume(passed as u64);
        Some(passed)
    }

    fn switch(&mut self, side: Side, next: Next) {
        self.calls.drop_all();
        let kind = match next {
            Next::Protocol(name) => self.kinds.iter().find(|kind| kind.name == name),
            Next::Opaque | Next::Unknown => None,
        };
        match (kind, next) {
            (Some(kind), _) => self.phase = Phase::Known(kind.name, (kind.start)()),
            (None, Next::Unknown) => {
                self.phase = Phase::Detecting(Detector::new(self.kinds, self.server_port));
            }
            (None, _) => return self.give_up(),
        }
        self.calls.paired = true;
        let other = &mut self.streams[side.other() as usize];
        other.ends.clear();
        other.part = None;
        other.need = 0;
        other.mode = Mode::Framed;
    }
}
