//! Gives each packet to the captures that chose it; runs on the thread that empties the ring buffer.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use spike_common::counter::Counter;
use spike_common::edge::TCP;
use spike_common::packet::{
    EGRESS, FLOW_OWN, FLOW_REDIRECTED, PacketHeader, TASK_KNOWN, TASK_SENDS, TASK_SERVES, link_key,
};

use super::flows::{Decision, FlowId, Flows};
use super::packet::{as_the_application_saw, ends, is_sampled, resets, slice, wants};
use super::who::Who;
use super::{Captures, Session};
use crate::capture::once::Once;
use crate::capture::record::{About, Direction, LinkType, PacketRecord};

/// Packets of the agent's own connections of which it is not known yet whom they are for.
const MOST_UNDECIDED: usize = 4096;
/// How long the thread waits for packets before it looks whether it is still wanted.
const REST: Duration = Duration::from_millis(500);
/// The same, while there is something to decide.
const SOON: Duration = Duration::from_millis(20);
/// Nanoseconds after which it will not be known any more.
const UNDECIDED_NS: u64 = 10_000_000_000;

/// The thread's state.
pub(super) struct Reader {
    captures: Weak<Captures>,
    /// As of which generation the list below is.
    generation: u64,
    watched: Vec<Watched>,
    /// Those of any capture.
    link_types: HashMap<u64, LinkType>,
    flows: Flows,
    who: Who,
    undecided: VecDeque<(PacketHeader, Box<[u8]>)>,
    legs_learned: u64,
    lost_in_ring: u64,
}

/// A capture, and what is remembered of its packets.
struct Watched {
    session: Arc<Session>,
    /// None where there is one interface, or none of this is wanted.
    once: Option<Once>,
    /// Lost since the last packet that was not, by interface.
    lost: Vec<u32>,
}

/// What is read of a packet.
struct Packet {
    link: u64,
    ends: Option<(SocketAddr, SocketAddr)>,
    resets: bool,
}

impl Reader {
    pub(super) fn new(captures: Weak<Captures>) -> Self {
        Self {
            captures,
            generation: 0,
            watched: Vec::new(),
            link_types: HashMap::new(),
            flows: Flows::default(),
            who: Who::default(),
            undecided: VecDeque::new(),
            legs_learned: 0,
            lost_in_ring: 0,
        }
    }

    /// Between two batches of packets; how long to wait for the next, none when there will be no captures any more.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        let captures = self.captures.upgrade()?;
        if self.watched.is_empty() {
            return Some(REST);
        }
        let lost = captures.parts.kernel.counter(Counter::TapRingFull);
        let new = u32::try_from(lost.saturating_sub(self.lost_in_ring)).unwrap_or(u32::MAX);
        self.lost_in_ring = lost;
        if new > 0 {
            for watched in &mut self.watched {
                if let Some(first) = watched.lost.first_mut() {
                    *first = first.saturating_add(new);
                }
            }
        }
        let learned = captures.legs.learned();
        if learned != self.legs_learned {
            self.legs_learned = learned;
            for (header, bytes) in std::mem::take(&mut self.undecided) {
                self.take(&captures, &header, &bytes);
            }
        }
        Some(if self.undecided.is_empty() { REST } else { SOON })
    }

    /// Takes a packet.
    pub(super) fn packet(&mut self, header: &PacketHeader, bytes: &[u8]) {
        if let Some(captures) = self.captures.upgrade() {
            self.take(&captures, header, bytes);
        }
    }

    fn take(&mut self, captures: &Arc<Captures>, header: &PacketHeader, bytes: &[u8]) {
        let generation = captures.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.reload(captures, generation);
        }
        let link = link_key(header.slot, header.ifindex);
        let Some(&link_type) = self.link_types.get(&link) else {
            return;
        };
        let sliced = slice(bytes, link_type);
        let packet = Packet {
            link,
            ends: sliced.as_ref().and_then(ends),
            resets: sliced.as_ref().is_some_and(resets),
        };
        let id = FlowId::new(header, link, packet.ends);
        let decision = match self.flows.get(&id, header.boot_ns) {
            Some(decision) => decision,
            None => match self.decide(captures, header, &packet, &id) {
                Some(decision) => {
                    self.flows.put(id, decision.clone());
                    decision
                }
                None => {
                    self.keep_undecided(header, bytes);
                    return;
                }
            },
        };
        if decision.chosen.is_empty() {
            return;
        }
        if header.flags & FLOW_OWN != 0
            && decision.about.leg.get().is_none()
            && let Some(leg) = packet.ends.and_then(|ends| captures.legs.find(ends))
        {
            _ = decision.about.leg.set(leg.cookie);
        }
        let data = if header.flags & FLOW_REDIRECTED != 0 {
            let mut frame = bytes.to_vec();
            as_the_application_saw(&mut frame, link_type, header, packet.ends);
            Bytes::from(frame)
        } else {
            Bytes::copy_from_slice(bytes)
        };
        let offset = captures.clock_offset.load(Ordering::Relaxed);
        let timestamp_ns = header.boot_ns.saturating_add_signed(offset);
        let place = (header.ifindex | header.slot << 24, header.flags & EGRESS != 0);
        for &(index, interface) in decision.chosen.iter() {
            let Some(watched) = self.watched.get_mut(index) else {
                continue;
            };
            let session = &watched.session;
            if let Some(filter) = &session.filter
                && !filter.passes(link_type, header.length, &data)
            {
                continue;
            }
            if let (Some(once), Some(sliced)) = (&mut watched.once, &sliced)
                && !once.is_new(sliced, header.boot_ns, place)
            {
                continue;
            }
            let kept = data.len().min(session.snaplen as usize);
            let lost = watched.lost.get_mut(interface as usize);
            let lost = lost.map_or(0, std::mem::take);
            let record = PacketRecord {
                timestamp_ns,
                interface,
                direction: if place.1 { Direction::Out } else { Direction::In },
                original_len: header.length,
                data: data.slice(..kept),
                dropped: lost,
                resets: packet.resets,
                about: Arc::clone(&decision.about),
            };
            session.counts.chose(interface);
            if session.packets_tx.try_send(record).is_err() {
                session.counts.lost(interface);
                if let Some(count) = watched.lost.get_mut(interface as usize) {
                    *count = lost.saturating_add(1);
                }
            }
        }
    }

    fn keep_undecided(&mut self, header: &PacketHeader, bytes: &[u8]) {
        let is_old = |(first, _): &(PacketHeader, Box<[u8]>)| {
            header.boot_ns.saturating_sub(first.boot_ns) > UNDECIDED_NS
        };
        while self.undecided.len() >= MOST_UNDECIDED || self.undecided.front().is_some_and(is_old) {
            self.undecided.pop_front();
        }
        self.undecided.push_back((*header, bytes.into()));
    }

    /// Which captures want the packets of a flow, and what is known of it; none when that will be known later.
    fn decide(
        &mut self,
        captures: &Captures,
        header: &PacketHeader,
        packet: &Packet,
        id: &FlowId,
    ) -> Option<Decision> {
        let is_own = header.flags & FLOW_OWN != 0;
        let leg = packet
            .ends
            .filter(|_| is_own)
            .and_then(|ends| captures.legs.find(ends));
        let known = header.flags & TASK_KNOWN != 0;
        let caller = (known && header.flags & TASK_SERVES == 0).then(|| {
            let mut caller = captures.parts.known.process(&header.task);
            caller.source = packet.ends.map(|(source, destination)| {
                if header.flags & TASK_SENDS != 0 {
                    source
                } else {
                    destination
                }
            });
            caller
        });
        let netns = captures.netns(header.slot);
        let mut chosen = Vec::new();
        for (index, watched) in self.watched.iter().enumerate() {
            let session = &watched.session;
            let Some(position) = session.position(packet.link) else {
                continue;
            };
            let (application, agent) = session.legs;
            let is_wanted = if is_own {
                match &leg {
                    _ if !agent => false,
                    None if session.selector.is_empty() => true,
                    None => return None,
                    Some(leg) => {
                        let known = &captures.parts.known;
                        let to = &session.selector.to;
                        let called = known.describe(to, leg.netns, &leg.task, leg.original, TCP);
                        session.selector.matches(&leg.caller, &called)
                    }
                }
            } else {
                let is_intercepted = header.flags & FLOW_REDIRECTED != 0;
                let called = |address| {
                    let known = &captures.parts.known;
                    known.describe(&session.selector.to, netns, &header.task, address, TCP)
                };
                (application || !is_intercepted)
                    && wants(&session.selector, header, caller.as_ref(), packet.ends, called)
            };
            if is_wanted && is_sampled(session.sample, header, leg.as_deref(), packet.ends) {
                chosen.push((index, position));
            }
        }
        let about = if chosen.is_empty() {
            Arc::new(About::default())
        } else {
            let secrets = chosen
                .iter()
                .any(|(index, _)| self.watched[*index].session.secrets);
            let about = self.who.about(captures, header, packet.ends, secrets);
            match leg.as_ref().map(|leg| leg.cookie) {
                Some(cookie) => _ = about.leg.set(cookie),
                None if header.flags & FLOW_REDIRECTED != 0 => _ = about.leg.set(header.cookie),
                None => {}
            }
            // What was said of it need not be said again.
            match self.flows.before(id) {
                Some(before)
                    if before.comment == about.comment
                        && before.names == about.names
                        && before.leg == about.leg =>
                {
                    before
                }
                _ => Arc::new(about),
            }
        };
        Some(Decision {
            at_ns: header.boot_ns,
            chosen: chosen.into(),
            about,
        })
    }

    /// Follows captures that started and ended.
    fn reload(&mut self, captures: &Captures, generation: u64) {
        let sessions = captures.lock().sessions.clone();
        if self.watched.is_empty() {
            self.lost_in_ring = captures.parts.kernel.counter(Counter::TapRingFull);
        }
        let mut before = std::mem::take(&mut self.watched);
        self.link_types.clear();
        for session in sessions {
            for (link, position) in session.positions.get().into_iter().flatten() {
                self.link_types
                    .insert(*link, session.link_types[*position as usize]);
            }
            let known = before
                .iter()
                .position(|watched| Arc::ptr_eq(&watched.session, &session));
            self.watched.push(match known {
                Some(index) => before.swap_remove(index),
                None => Watched {
                    once: (session.links.len() > 1 && !session.duplicates).then(Once::default),
                    lost: vec![0; session.links.len()],
                    session,
                },
            });
        }
        self.flows.clear();
        self.undecided.clear();
        self.generation = generation;
    }
}
