//! Keeps taps on the interfaces that running captures watch, and the kernel's rules in step with what they choose.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use spike_common::packet::{MAX_SLOTS, link_key};

use super::{Captures, Session};
use crate::capture::filter::Filter;
use crate::kernel::links::{Link, own_addresses};
use crate::kernel::tap::Tap;
use crate::model::Selector;
use crate::model::capture::MAX_SNAPLEN;
use crate::model::rule::{Compiled, compile_taps};

/// The captures that run, and what they have on interfaces.
#[derive(Default)]
pub(super) struct Running {
    pub(super) sessions: Vec<Arc<Session>>,
    /// By [`link_key`], with how many captures use it.
    taps: HashMap<u64, (Tap, u32)>,
    /// Number of each namespace that is watched, by its inode, with how many taps are in it.
    pub(super) slots: HashMap<u64, (u32, u32)>,
}

impl Captures {
    /// Takes packets for a session from now on.
    pub(super) fn add(&self, session: &Arc<Session>) -> Result<()> {
        let mut running = self.lock();
        if running.sessions.is_empty() {
            self.clock_offset
                .store(realtime_less_boottime(), Ordering::Relaxed);
        }
        *self.own_addresses.lock().unwrap_or_else(PoisonError::into_inner) = own_addresses();
        running.sessions.push(Arc::clone(session));
        let started = self
            .follow(&running)
            .and_then(|()| self.tap(&mut running, session));
        self.generation.fetch_add(1, Ordering::Release);
        drop(running);
        if started.is_err() {
            self.remove(&session.id);
        }
        started
    }

    /// Puts taps on the session's interfaces, unless they are there.
    fn tap(&self, running: &mut Running, session: &Session) -> Result<()> {
        let mut positions = HashMap::new();
        let outcome = (0..).zip(&session.links).try_for_each(|(position, link)| {
            let slot = running.slot(link)?;
            let key = link_key(slot, link.index);
            if let Some((_, users)) = running.taps.get_mut(&key) {
                *users += 1;
            } else {
                let tap = Tap::attach(&self.parts.kernel, link, slot, &self.parts.journal);
                let tap = tap.inspect_err(|_| running.leave(link))?;
                running.taps.insert(key, (tap, 1));
            }
            positions.insert(key, position);
            Ok(())
        });
        // What was tapped until a failure is given back by it.
        _ = session.positions.set(positions);
        outcome
    }

    /// Takes no more packets for a session.
    pub(super) fn remove(&self, id: &str) {
        let mut running = self.lock();
        let Some(position) = running.sessions.iter().position(|session| session.id == id) else {
            return;
        };
        let session = running.sessions.remove(position);
        for (key, position) in session.positions.get().into_iter().flatten() {
            if let Some((_, users)) = running.taps.get_mut(key) {
                *users -= 1;
                if *users == 0 {
                    running.taps.remove(key);
                }
            }
            running.leave(&session.links[*position as usize]);
        }
        if let Err(error) = self.follow(&running) {
            tracing::warn!("narrow the capture rules: {error:#}");
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Ends all that run, so that their files are whole and nothing stays on an interface.
    pub(in crate::app) async fn finish(&self, most: Duration) {
        for session in &self.lock().sessions {
            session.stop.cancel();
        }
        let all_ended = async {
            while !self.lock().sessions.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        _ = tokio::time::timeout(most, all_ended).await;
        let mut running = self.lock();
        running.sessions.clear();
        running.taps.clear();
    }

    /// Follows cgroups that come below selected ones.
    pub(in crate::app) fn refresh(&self) {
        let running = self.lock();
        if running
            .sessions
            .iter()
            .any(|session| session.selector.names_what_changes())
        {
            _ = self.follow(&running);
        }
    }

    /// Puts the rules of the running captures in force.
    fn follow(&self, running: &Running) -> Result<()> {
        let sessions = &running.sessions;
        let selectors: Vec<&Selector> = sessions.iter().map(|session| &session.selector).collect();
        let compiled = if selectors.is_empty() {
            Compiled::default()
        } else {
            compile_taps(
                &selectors,
                &|path: &str| self.parts.cgroups.leaves(path),
                &self.parts.capabilities,
                &*self.parts.known,
            )
        };
        // A filter sees what it looks at, however little is kept.
        let wanted = |session: &Arc<Session>| {
            let looked_at = session.filter.as_ref().map_or(0, Filter::looks_at);
            session.snaplen.max(looked_at).min(MAX_SNAPLEN)
        };
        let snaplen = sessions.iter().map(wanted).max().unwrap_or(0);
        let wants_own = sessions.iter().any(|session| session.legs.1);
        self.wants_own.store(wants_own, Ordering::Relaxed);
        self.parts.kernel.set_taps(&compiled, snaplen, !wants_own)
    }
}

impl Running {
    /// The number of an interface's namespace, for one more of its interfaces.
    fn slot(&mut self, link: &Link) -> Result<u32> {
        let Some(place) = &link.place else { return Ok(0) };
        if let Some((slot, users)) = self.slots.get_mut(&place.inode) {
            *users += 1;
            return Ok(*slot);
        }
        let taken: Vec<u32> = self.slots.values().map(|(slot, _)| *slot).collect();
        let Some(free) = (1..MAX_SLOTS as u32).find(|slot| !taken.contains(slot)) else {
            bail!(
                "watch {}: captures watch {} network namespaces, and no more can be; name fewer",
                link.shown(),
                MAX_SLOTS - 1
            );
        };
        self.slots.insert(place.inode, (free, 1));
        Ok(free)
    }

    /// One interface of its namespace less.
    fn leave(&mut self, link: &Link) {
        let Some(place) = &link.place else { return };
        if let Some((_, users)) = self.slots.get_mut(&place.inode) {
            *users -= 1;
            if *users == 0 {
                self.slots.remove(&place.inode);
            }
        }
    }
}

fn realtime_less_boottime() -> i64 {
    let nanoseconds = |clock| {
        let now = rustix::time::clock_gettime(clock);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    };
    let boot = nanoseconds(rustix::time::ClockId::Boottime);
    nanoseconds(rustix::time::ClockId::Realtime) - boot
}
