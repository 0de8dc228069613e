//! Goes through the bytes of a direction, step by step.

use std::mem;

use super::{Conversation, Phase};
use crate::protocol::{
    Call, Key, Messages, Next, ProtocolName, Side, Step,
    detect::Detector,
    messages::Event,
    stream::{HEAD_LIMIT, Mode},
};

/// Messages in a row that can't be decoded, with no call in between, after which it is not tried any more.
const FAILURES_LIMIT: u32 = 8;
/// Bytes kept while the next message is looked for, as its start may be in them.
const SEARCH_LIMIT: usize = 1024;

impl Conversation {
    /// Reads what is held of a side, and then `bytes`.
    pub(super) fn feed(&mut self, side: Side, bytes: &[u8], out: &mut Vec<Call>) {
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
        let asks = |event: &Event| matches!(event, Event::Request(Key::Order, _));
        if !self.calls.paired && self.events.iter().any(asks) && self.settled(side) {
            self.pair(side);
        }
        let stream = &self.streams[side as usize];
        let (at, place) = (stream.first_at(), stream.place());
        let mut part = None;
        for event in self.events.drain(..) {
            if event.is_end() {
                self.streams[side as usize].ends.push(event);
            } else {
                let about = self.calls.apply(name, side, (at, place), event, out);
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
            self.calls
                .count(part, count, stream.place().saturating_add(count));
        }
        stream.consume(count)
    }

    /// Goes past bytes of a body that were not captured.
    pub(super) fn pass(&mut self, side: Side, count: u64, at: u64) {
        let stream = &mut self.streams[side as usize];
        if let Some(part) = stream.part {
            self.calls
                .count(part, count, stream.place().saturating_add(count));
        }
        stream.pass(at, count);
    }

    /// `left` bytes of the body still come; if none, what ends with it ends at `at`.
    pub(super) fn skipped(&mut self, side: Side, left: u64, at: u64, out: &mut Vec<Call>) {
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
        let (known, place) = (out.len(), stream.place());
        for event in stream.ends.drain(..) {
            self.calls.apply(name, side, (at, place), event, out);
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
    pub(super) fn lose(&mut self, side: Side) {
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
        match next {
            Next::Upgraded(name, id) => self.calls.upgrade(side, name, id),
            _ => self.calls.drop_all(),
        }
        let kind = match next {
            Next::Protocol(name) | Next::Upgraded(name, _) => {
                self.kinds.iter().find(|kind| kind.name == name)
            }
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
