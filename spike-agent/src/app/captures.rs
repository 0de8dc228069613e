//! Runs captures: taps on while one wants them, each packet to the captures that chose it.
//!
//! kernel::packets --packets--> Reader --PacketRecord--> capture::session --pcapng--> the reader, or the disk

mod counts;
mod flows;
mod legs;
mod reader;
mod watch;
mod who;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result, bail};
use spike_common::packet::{MAX_SLOTS, link_key};
use tokio::sync::{mpsc, watch as watch_channel};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use crate::capture::filter::Filter;
use crate::capture::record::{Interface, LinkType, PacketRecord};
use crate::capture::session::{Controls, End, SessionSpec, Waiting, run};
use crate::capture::store::Store;
use crate::control::{CaptureCounts, CaptureHandle, CaptureOutput};
use crate::identity::{Cgroups, Processes, Services};
use crate::kernel::Kernel;
use crate::kernel::links::Link;
use crate::kernel::tap::Tap;
use crate::model::capture::{Legs as WantedLegs, MAX_SNAPLEN, Trigger};
use crate::model::rule::{Capabilities, Compiled, compile_taps};
use crate::model::{CaptureSpec, FieldError, Selector};
use crate::safety::Journal;
use counts::Counts;
use legs::Legs;
use reader::Reader;

/// Packets between the ring buffer and a session; beyond it they are dropped and counted.
const QUEUE: usize = 65_536;

/// What captures need of the rest of the agent.
pub(super) struct Parts {
    pub(super) kernel: Arc<Kernel>,
    pub(super) journal: Arc<Journal>,
    pub(super) processes: Arc<Processes>,
    pub(super) cgroups: Arc<Cgroups>,
    pub(super) services: Arc<Services>,
    pub(super) capabilities: Capabilities,
    pub(super) store: Arc<Store>,
}

/// The captures that run.
pub(super) struct Captures {
    parts: Parts,
    next: AtomicU64,
    /// `CLOCK_REALTIME` less `CLOCK_BOOTTIME`, nanoseconds, as of the oldest running capture's start.
    clock_offset: AtomicI64,
    running: Mutex<Running>,
    /// Grows with each capture that starts or ends.
    generation: AtomicU64,
    /// Some capture wants the agent's own legs of intercepted connections.
    wants_own: AtomicBool,
    legs: Legs,
    calls: OnceLock<Arc<Calls>>,
    /// Addresses of the agent's namespace, as of the latest start.
    own_addresses: Mutex<Vec<IpAddr>>,
}

#[derive(Default)]
struct Running {
    sessions: Vec<Arc<Session>>,
    /// By [`link_key`], with how many captures use it.
    taps: HashMap<u64, (Tap, u32)>,
    /// Number of each namespace that is watched, by its inode, with how many taps are in it.
    slots: HashMap<u64, (u32, u32)>,
}

/// One capture, as far as packets are chosen for it.
struct Session {
    id: String,
    selector: Selector,
    snaplen: u32,
    filter: Option<Filter>,
    sample: u32,
    duplicates: bool,
    /// The application's leg of intercepted connections, the agent's.
    legs: (bool, bool),
    secrets: bool,
    links: Vec<Link>,
    /// Position in the session's table by [`link_key`].
    positions: OnceLock<HashMap<u64, u32>>,
    link_types: Vec<LinkType>,
    packets_tx: mpsc::Sender<PacketRecord>,
    counts: Arc<Counts>,
    stop: CancellationToken,
}

impl Session {
    fn position(&self, link: u64) -> Option<u32> {
        self.positions.get()?.get(&link).copied()
    }
}

impl Captures {
    pub(super) fn new(parts: Parts) -> Result<Arc<Self>> {
        let captures = Arc::new(Self {
            next: AtomicU64::new(1),
            clock_offset: AtomicI64::new(0),
            running: Mutex::default(),
            generation: AtomicU64::new(1),
            wants_own: AtomicBool::new(false),
            legs: Legs::default(),
            calls: OnceLock::new(),
            own_addresses: Mutex::default(),
            parts,
        });
        let mut reader = Reader::new(Arc::downgrade(&captures));
        captures.parts.kernel.read_packets(move |packet| match packet {
            Some((header, bytes)) => {
                reader.packet(header, bytes);
                true
            }
            None => reader.rest(),
        })?;
        Ok(captures)
    }

    /// Where latencies and errors are to be had from, for captures that wait for them.
    pub(super) fn set_calls(&self, calls: Arc<Calls>) {
        _ = self.calls.set(calls);
    }

    /// Starts a capture; it takes packets when this returns.
    pub(super) fn start(self: &Arc<Self>, spec: CaptureSpec) -> Result<CaptureHandle> {
        let filter = spec.filter.as_deref().map(Filter::compile).transpose();
        let filter = filter.map_err(|message| FieldError::new("filter", message))?;
        let links = self.parts.kernel.links(&spec.interfaces);
        let links = links.map_err(|error| FieldError::new("interfaces", format_args!("{error:#}")))?;
        let interfaces: Vec<Interface> = links.iter().map(|link| interface(link, &spec)).collect();
        let shown = Arc::<CaptureCounts>::default();
        let counts = Arc::new(Counts::new(
            &self.parts.kernel,
            interfaces.len(),
            Arc::clone(&shown),
        ));
        let (packets_tx, packets) = mpsc::channel(QUEUE);
        let (bytes_tx, bytes) = mpsc::channel(16);
        let (id, output) = self.output(&spec, bytes)?;
        let stop = CancellationToken::new();
        let watches_loopback = links.iter().any(|link| link.loopback);
        let session = Arc::new(Session {
            id: id.clone(),
            selector: spec.selector.clone(),
            snaplen: spec.snaplen,
            filter,
            sample: spec.sample,
            duplicates: spec.duplicates,
            legs: (
                spec.legs != WantedLegs::Agent,
                // Without a loopback device there is only the agent's leg to see.
                spec.legs != WantedLegs::Application || !watches_loopback,
            ),
            secrets: spec.secrets,
            links,
            positions: OnceLock::new(),
            link_types: interfaces.iter().map(|interface| interface.link_type).collect(),
            packets_tx,
            counts: Arc::clone(&counts),
            stop: stop.clone(),
        });
        if let Err(error) = self.add(&session) {
            if let CaptureOutput::Kept(kept) = &output {
                kept.remove();
            }
            return Err(error);
        }
        let (trigger, trigger_rx) = watch_channel::channel(None);
        self.watch(&session, &spec, &trigger);
        let session_spec = SessionSpec {
            interfaces,
            count: spec.count,
            duration: spec.duration,
            size: spec.size,
            file_size: spec.rotation.map(|rotation| rotation.file_size),
            wait: spec.wait.as_ref().map(|wait| Waiting {
                before: wait.before,
                after: wait.after,
                for_reset: wait.on.contains(&Trigger::Reset),
            }),
            holds: spec.legs == WantedLegs::Both,
        };
        let controls = Controls {
            stop: stop.clone(),
            trigger: trigger_rx,
        };
        let captures = Arc::clone(self);
        let name = id.clone();
        tokio::spawn(async move {
            let summary = run(
                session_spec,
                packets,
                bytes_tx.clone(),
                controls,
                Arc::<Counts>::clone(&counts),
            )
            .await;
            counts.end(summary.dropped);
            captures.remove(&name);
            tracing::debug!(capture = name, ?summary, "capture ended");
            if summary.end == End::Size {
                tracing::info!(capture = name, "the capture has the size that was asked for");
            }
            drop(bytes_tx);
        });
        Ok(CaptureHandle {
            id,
            interfaces: session.links.iter().map(Link::shown).collect(),
            spec,
            counts: shown,
            output,
            stop,
            trigger,
        })
    }

    /// Where the packets of a capture go, and its name.
    fn output(
        &self,
        spec: &CaptureSpec,
        bytes: mpsc::Receiver<bytes::Bytes>,
    ) -> Result<(String, CaptureOutput)> {
        if !spec.keep {
            let id = format!("live-{}", self.next.fetch_add(1, Ordering::Relaxed));
            return Ok((id, CaptureOutput::Stream(bytes)));
        }
        let id = self.parts.store.new_id();
        let kept = self.parts.store.create(id.clone());
        let kept = kept.map_err(|error| FieldError::new("keep", error))?;
        let files = spec.rotation.and_then(|rotation| rotation.files);
        kept.write(bytes, files)
            .context("start the thread that writes the capture")?;
        Ok((id, CaptureOutput::Kept(kept)))
    }

    fn add(&self, session: &Arc<Session>) -> Result<()> {
        let mut running = self.lock();
        if running.sessions.is_empty() {
            self.clock_offset
                .store(realtime_less_boottime(), Ordering::Relaxed);
        }
        *self.own_addresses.lock().unwrap_or_else(PoisonError::into_inner) =
            crate::kernel::links::own_addresses();
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

    fn remove(&self, id: &str) {
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
    pub(super) async fn finish(&self, most: std::time::Duration) {
        for session in &self.lock().sessions {
            session.stop.cancel();
        }
        let all_ended = async {
            while !self.lock().sessions.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        _ = tokio::time::timeout(most, all_ended).await;
        let mut running = self.lock();
        running.sessions.clear();
        running.taps.clear();
    }

    /// Follows cgroups that come below selected ones.
    pub(super) fn refresh(&self) {
        let running = self.lock();
        if running
            .sessions
            .iter()
            .any(|session| session.selector.from.cgroup.is_some())
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

    /// Learns that the agent goes on to `remote` from `local` for the connection that came from `client`.
    pub(super) fn carried(
        &self,
        netns: u64,
        client: (std::net::SocketAddr, std::net::SocketAddr),
        upstream: (std::net::SocketAddr, std::net::SocketAddr),
    ) {
        if self.wants_own.load(Ordering::Relaxed) {
            self.legs.learn(&self.parts, netns, client, upstream);
        }
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        let own = self.own_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        own.contains(&address)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
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

fn interface(link: &Link, spec: &CaptureSpec) -> Interface {
    Interface {
        name: link.shown(),
        link_type: link_type(link),
        snaplen: spec.snaplen,
        filter: spec.filter.clone(),
    }
}

fn link_type(link: &Link) -> LinkType {
    if link.ethernet {
        LinkType::Ethernet
    } else {
        LinkType::Raw
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
