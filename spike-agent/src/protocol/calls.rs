//! The open calls of a conversation: which response answers which request.

use std::collections::VecDeque;

use super::{Call, Details, Key, Place, ProtocolName, Side, call, messages::Event};

/// Bounds the memory of a connection whose requests are never answered.
const OPEN_LIMIT: usize = 1024;

/// A message that bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    serial: u64,
    response: bool,
}

struct Open {
    serial: u64,
    key: Key,
    call: Call,
    /// Whether its response is surely the one that comes in its turn.
    paired: bool,
    answered: bool,
}

pub(super) struct Calls {
    open: VecDeque<Open>,
    serial: u64,
    /// Whether the number of requests in flight is known, so that responses in order find theirs.
    pub(super) paired: bool,
    /// The request in order that is being sent, for each side.
    sending: [Option<u64>; 2],
    /// Whether a response in order is being sent, by each side.
    responding: [bool; 2],
    /// Calls that were given up.
    pub(super) dropped: u64,
    /// How often `paired` was lost by what the messages say.
    pub(super) unpaired: u64,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            open: VecDeque::new(),
            serial: 0,
            paired: true,
            sending: [None; 2],
            responding: [false; 2],
            dropped: 0,
            unpaired: 0,
        }
    }

    /// Whether nothing is in flight between requests of `from` and the responses, as far as was seen.
    pub(super) fn idle(&self, from: Side) -> bool {
        let in_order = |open: &Open| open.key == Key::Order;
        !self.responding[from.other() as usize] && !self.open.iter().any(in_order)
    }

    /// The operation that the next response in order from `side` answers.
    pub(super) fn asked(&self, side: Side) -> Option<&str> {
        let index = self.find(Key::Order, side.other(), true)?;
        Some(&self.open[index].call.operation)
    }

    /// The message in order that `side` is in the middle of.
    pub(super) fn current(&self, side: Side) -> Option<Part> {
        if let Some(serial) = self.sending[side as usize] {
            return Some(Part {
                serial,
                response: false,
            });
        }
        let index = self.find(Key::Order, side.other(), true)?;
        let open = &self.open[index];
        (self.responding[side as usize] && open.call.first_byte_ns.is_some()).then_some(Part {
            serial: open.serial,
            response: true,
        })
    }

    /// Counts `bytes` bytes, the last of which is before the position `end`, for a message.
    pub(super) fn count(&mut self, part: Part, bytes: u64, end: u64) {
        if let Some(open) = self.open.iter_mut().find(|open| open.serial == part.serial) {
            let Call { place, .. } = &mut open.call;
            let size = if part.response {
                let begun = end.saturating_sub(bytes);
                place.response.get_or_insert(begun..begun).end = end;
                &mut open.call.response_bytes
            } else {
                place.request.end = place.request.end.max(end);
                &mut open.call.request_bytes
            };
            *size = size.saturating_add(bytes);
        }
    }

    /// Takes what happened on `side` at `at`, and at the position `place`, into account, and names the message that it is
    /// about.
    pub(super) fn apply(
        &mut self,
        protocol: ProtocolName,
        side: Side,
        (at, place): (u64, u64),
        event: Event,
        out: &mut Vec<Call>,
    ) -> Option<Part> {
        match event {
            Event::Request(key, request) => {
                self.make_room(key, side);
                self.serial += 1;
                let mut call = new_call(protocol, side, at);
                call.place.request = place..place;
                call.place.id = match key {
                    Key::Order => None,
                    Key::Id(id) => Some(id),
                };
                request.describe(&mut call);
                let serial = self.serial;
                self.open.push_back(Open {
                    serial,
                    key,
                    call,
                    paired: self.paired || key != Key::Order,
                    answered: true,
                });
                if key == Key::Order {
                    self.sending[side as usize] = Some(serial);
                }
                Some(self.open.len() - 1).map(|index| self.part(index, false))
            }
            Event::Describe(key, request) => {
                let own = self.find(key, side, false);
                let index = own.or_else(|| self.find(key, side.other(), true))?;
                request.describe(&mut self.open[index].call);
                Some(self.part(index, own.is_none()))
            }
            Event::NoResponse(key) => self.find(key, side, false).map(|index| {
                self.open[index].answered = false;
                self.part(index, false)
            }),
            Event::RequestEnd(key) => {
                let index = self.find(key, side, false)?;
                if key == Key::Order {
                    self.sending[side as usize] = None;
                }
                let open = &mut self.open[index];
                open.call.sent_ns = Some(at);
                let part = self.part(index, false);
                if !self.open[index].answered {
                    self.finish(index, at, true, out);
                }
                Some(part)
            }
            Event::Cancel(key) => {
                let index = self.find(key, side, false)?;
                let part = self.part(index, false);
                self.open[index].call.status = Some("cancelled".to_owned());
                self.finish(index, at, false, out);
                Some(part)
            }
            Event::Response(key) => {
                let found = self.find(key, side.other(), true);
                // What began before its request answers another one.
                let index = found.filter(|index| self.open[*index].call.started_ns <= at);
                if key == Key::Order {
                    self.responding[side as usize] = true;
                    if index.is_none() {
                        self.unpair();
                    }
                } else if index.is_none() {
                    let wrong = found.map(|index| self.open[index].serial);
                    self.drop_if(|open| Some(open.serial) == wrong);
                }
                index.map(|index| {
                    let call = &mut self.open[index].call;
                    call.first_byte_ns.get_or_insert(at);
                    call.place.response.get_or_insert(place..place);
                    self.part(index, true)
                })
            }
            Event::Status(key, status, failed) => self.find(key, side.other(), true).map(|index| {
                let call = &mut self.open[index].call;
                call.status = Some(call::bounded(status));
                call.failed = failed;
                self.part(index, true)
            }),
            Event::ResponseEnd(key) => {
                if key == Key::Order {
                    self.responding[side as usize] = false;
                }
                let index = self.find(key, side.other(), true)?;
                let part = self.part(index, true);
                if self.open[index].call.first_byte_ns.is_some() {
                    self.finish(index, at, true, out);
                } else {
                    // The end of a response to an older request: this one is not in its turn.
                    self.unpair();
                }
                Some(part)
            }
            Event::Skipped(key, status, failed) => {
                let asked = self.find(key, side.other(), true);
                let index = asked.or_else(|| self.find(key, side, false))?;
                let part = self.part(index, asked.is_some());
                let call = &mut self.open[index].call;
                call.status = Some(call::bounded(status));
                call.failed = failed;
                self.finish(index, at, false, out);
                Some(part)
            }
        }
    }

    /// The message that `event`, of `side`, will end.
    pub(super) fn about(&self, side: Side, event: &Event) -> Option<Part> {
        let (key, response) = match event {
            Event::RequestEnd(key) | Event::Cancel(key) => (*key, false),
            Event::ResponseEnd(key) => (*key, true),
            _ => return None,
        };
        let from = if response { side.other() } else { side };
        Some(self.part(self.find(key, from, response)?, response))
    }

    /// A part of the stream of `side` is gone.
    pub(super) fn lost(&mut self, side: Side) {
        self.responding[side as usize] = false;
        self.paired = false;
        // A call with an id goes on if none of it can have been in the gap.
        self.drop_if(|open| {
            let asked_by_it = open.call.from == side;
            open.key == Key::Order || !asked_by_it || open.call.sent_ns.is_none()
        });
    }

    /// Gives up the calls in order that were begun while it wasn't known what was before them.
    pub(super) fn drop_unpaired(&mut self) {
        self.drop_if(|open| !open.paired);
    }

    pub(super) fn drop_all(&mut self) {
        self.drop_if(|_| true);
        self.sending = [None; 2];
        self.responding = [false; 2];
    }

    /// Only the request that `side` answers next stays open, as one of another protocol.
    pub(super) fn upgrade(&mut self, side: Side, protocol: ProtocolName, id: u64) {
        let kept = self
            .find(Key::Order, side.other(), true)
            .and_then(|index| self.open.remove(index));
        self.drop_all();
        self.open.extend(kept.map(|mut open| {
            open.key = Key::Id(id);
            open.call.protocol = protocol;
            open
        }));
    }

    /// The connection is over: what is open is given out as it stands.
    pub(super) fn end(&mut self, at: u64, status: &str, failed: bool, out: &mut Vec<Call>) {
        while let Some(open) = self.open.front_mut() {
            open.call.failed |= failed;
            open.call.status.get_or_insert_with(|| status.to_owned());
            self.finish(0, at, false, out);
        }
    }

    fn part(&self, index: usize, response: bool) -> Part {
        let serial = self.open[index].serial;
        Part { serial, response }
    }

    /// The open call that a message is about: of those that `from` began, the one that its request, or the next
    /// response, belongs to.
    fn find(&self, key: Key, from: Side, response: bool) -> Option<usize> {
        let sending = self.sending[from as usize];
        self.open.iter().position(|open| {
            let in_turn = match (key, response) {
                (Key::Id(_), _) => true,
                (Key::Order, true) => open.answered,
                (Key::Order, false) => sending == Some(open.serial),
            };
            open.call.from == from && open.key == key && in_turn
        })
    }

    fn finish(&mut self, index: usize, at: u64, complete: bool, out: &mut Vec<Call>) {
        let Some(mut open) = self.open.remove(index) else {
            return;
        };
        self.no_longer_sent(open.serial);
        if open.paired {
            // What ends it may have been sent before the first byte of an answer that was read earlier.
            let begun = open.call.first_byte_ns.unwrap_or(open.call.started_ns);
            open.call.ended_ns = at.max(begun);
            open.call.complete = complete;
            out.push(open.call);
        } else {
            self.dropped += 1;
        }
    }

    fn no_longer_sent(&mut self, serial: u64) {
        for sending in &mut self.sending {
            sending.take_if(|sending| *sending == serial);
        }
    }

    fn make_room(&mut self, key: Key, from: Side) {
        if key != Key::Order {
            // An id that is used again: its first response never came.
            self.drop_if(|open| open.key == key && open.call.from == from);
        }
        if self.open.len() >= OPEN_LIMIT {
            if key == Key::Order {
                self.unpair();
            }
            let oldest = self.open.front().map(|open| open.serial);
            self.drop_if(|open| Some(open.serial) == oldest);
        }
    }

    /// The order turned out to be wrong.
    fn unpair(&mut self) {
        if self.paired {
            self.paired = false;
            self.unpaired += 1;
        }
        self.drop_if(|open| open.key == Key::Order);
    }

    fn drop_if(&mut self, drop: impl Fn(&Open) -> bool) {
        let before = self.open.len();
        self.open.retain(|open| !drop(open));
        self.dropped += (before - self.open.len()) as u64;
        let open = &self.open;
        for sending in &mut self.sending {
            sending.take_if(|serial| !open.iter().any(|open| open.serial == *serial));
        }
    }
}

fn new_call(protocol: ProtocolName, from: Side, at: u64) -> Call {
    Call {
        protocol,
        from,
        operation: String::new(),
        target: String::new(),
        status: None,
        failed: false,
        started_ns: at,
        sent_ns: None,
        first_byte_ns: None,
        ended_ns: at,
        request_bytes: 0,
        response_bytes: 0,
        complete: false,
        trace: None,
        details: Details::default(),
        place: Place::default(),
    }
}
