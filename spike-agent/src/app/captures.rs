//! Runs captures: taps on while one wants them, each packet to the captures that chose it.
//!
//! kernel::tap --packets--> Captures::packet --PacketRecord--> capture::session --pcapng--> the reader

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use spike_common::address::Endpoint;
use spike_common::counter::Counter;
use spike_common::edge::TCP;
use spike_common::packet::{EGRESS, FLOW_REDIRECTED, PacketHeader, TASK_KNOWN, TASK_SENDS, TASK_SERVES};
use spike_common::socket::ServiceKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::known::Known;
use crate::capture::record::{Direction, DropCounts, Interface, LinkType, PacketRecord, Party};
use crate::capture::rewrite::{Rewrite, rewrite};
use crate::capture::session::{SessionSpec, run};
use crate::control::{CaptureCounts, CaptureHandle};
use crate::identity::Cgroups;
use crate::kernel::Kernel;
use crate::kernel::tap::{Link, Tap, index_table};
use crate::model::rule::{Capabilities, Compiled, compile_taps};
use crate::model::{Caller, CaptureSpec, Selector};
use crate::safety::Journal;

/// Packets between the ring buffer and a session; beyond it they are dropped and counted.
const QUEUE: usize = 16_384;

/// The captures that run.
pub(super) struct Captures {
    kernel: Arc<Kernel>,
    journal: Arc<Journal>,
    cgroups: Arc<Cgroups>,
    known: Arc<Known>,
    capabilities: Capabilities,
    own_netns: u64,
    next: AtomicU64,
    /// `CLOCK_REALTIME` less `CLOCK_BOOTTIME`, nanoseconds, as of the oldest running capture's start.
    clock_offset: AtomicI64,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    sessions: Vec<Arc<Session>>,
    /// By interface index, with how many captures use it.
    taps: HashMap<u32, (Tap, u32)>,
}

struct Session {
    id: String,
    selector: Selector,
    snaplen: u32,
    /// Position in the session's table by interface index.
    positions: HashMap<u32, u32>,
    link_types: Vec<LinkType>,
    packets_tx: mpsc::Sender<PacketRecord>,
    counts: Arc<Counts>,
}

/// What one capture got and lost.
struct Counts {
    kernel: Arc<Kernel>,
    /// The ring buffer's losses at the start: it is shared, so each capture counts all losses of its time.
    lost_before: u64,
    received: Vec<AtomicU64>,
    dropped: Vec<AtomicU64>,
    shown: Arc<CaptureCounts>,
}

impl Counts {
    fn lost_in_ring(&self) -> u64 {
        self.kernel
            .counter(Counter::TapRingFull)
            .saturating_sub(self.lost_before)
    }

    /// The ring buffer does not tell interfaces apart: the first one bears its losses.
    fn with_ring_losses(&self, counts: &[AtomicU64], interface: u32) -> u64 {
        let own = counts
            .get(interface as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed));
        own + if interface == 0 { self.lost_in_ring() } else { 0 }
    }
}

impl DropCounts for Counts {
    fn received(&self, interface: u32) -> u64 {
        self.with_ring_losses(&self.received, interface)
    }

    fn dropped(&self, interface: u32) -> u64 {
        self.with_ring_losses(&self.dropped, interface)
    }

    fn written(&self, _interface: u32, _wire_bytes: u32) {
        self.shown.packets.fetch_add(1, Ordering::Relaxed);
    }
}

impl Captures {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        journal: Arc<Journal>,
        cgroups: Arc<Cgroups>,
        known: Arc<Known>,
        capabilities: Capabilities,
        own_netns: u64,
    ) -> Result<Arc<Self>> {
        let captures = Arc::new(Self {
            kernel: Arc::clone(&kernel),
            journal,
            cgroups,
            known,
            capabilities,
            own_netns,
            next: AtomicU64::new(1),
            clock_offset: AtomicI64::new(0),
            running: Mutex::default(),
        });
        let reader = Arc::clone(&captures);
        kernel.read_packets(move |header, bytes| reader.packet(header, bytes))?;
        Ok(captures)
    }

    /// Starts a capture; it takes packets when this returns.
    pub(super) fn start(self: &Arc<Self>, spec: CaptureSpec) -> Result<CaptureHandle> {
        let links: Vec<Link> = if spec.interfaces.is_empty() {
            Link::all_up()?
        } else {
            spec.interfaces
                .iter()
                .map(|name| Link::named(name))
                .collect::<Result<_>>()?
        };
        let id = format!("capture-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let shown = Arc::<CaptureCounts>::default();
        let zeroes = || links.iter().map(|_| AtomicU64::new(0)).collect();
        let counts = Arc::new(Counts {
            kernel: Arc::clone(&self.kernel),
            lost_before: self.kernel.counter(Counter::TapRingFull),
            received: zeroes(),
            dropped: zeroes(),
            shown: Arc::clone(&shown),
        });
        let interfaces: Vec<Interface> = links.iter().map(|link| interface(link, spec.snaplen)).collect();
        let (packets_tx, packets) = mpsc::channel(QUEUE);
        let session = Arc::new(Session {
            id: id.clone(),
            selector: spec.selector.clone(),
            snaplen: spec.snaplen,
            positions: index_table(&links),
            link_types: interfaces.iter().map(|interface| interface.link_type).collect(),
            packets_tx,
            counts: Arc::clone(&counts),
        });
        self.add(session, &links)?;

        let (bytes_tx, bytes) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let session_spec = SessionSpec {
            interfaces,
            count: spec.count,
            duration: spec.duration,
        };
        let captures = Arc::clone(self);
        let (name, stopped) = (id.clone(), stop.clone());
        tokio::spawn(async move {
            let summary = run(
                session_spec,
                packets,
                bytes_tx.clone(),
                stopped,
                Arc::<Counts>::clone(&counts),
            )
            .await;
            counts.shown.dropped.store(summary.dropped, Ordering::Relaxed);
            captures.remove(&name);
            drop(bytes_tx);
        });
        let interfaces = links.into_iter().map(|link| link.name).collect();
        Ok(CaptureHandle {
            id,
            spec,
            interfaces,
            counts: shown,
            bytes,
            stop,
        })
    }

    fn add(&self, session: Arc<Session>, links: &[Link]) -> Result<()> {
        let mut running = self.lock();
        if running.sessions.is_empty() {
            self.clock_offset
                .store(realtime_less_boottime(), Ordering::Relaxed);
        }
        let id = session.id.clone();
        running.sessions.push(session);
        let started = self.follow(&running).and_then(|()| {
            for link in links {
                if let Some((_, users)) = running.taps.get_mut(&link.index) {
                    *users += 1;
                } else {
                    running
                        .taps
                        .insert(link.index, (Tap::attach(&self.kernel, link, &self.journal)?, 1));
                }
            }
            Ok(())
        });
        drop(running);
        if started.is_err() {
            self.remove(&id);
        }
        started
    }

    fn remove(&self, id: &str) {
        let mut running = self.lock();
        let Some(position) = running.sessions.iter().position(|session| session.id == id) else {
            return;
        };
        let session = running.sessions.remove(position);
        for index in session.positions.keys() {
            if let Some((_, users)) = running.taps.get_mut(index) {
                *users -= 1;
                if *users == 0 {
                    running.taps.remove(index);
                }
            }
        }
        if let Err(error) = self.follow(&running) {
            tracing::warn!("narrow the capture rules: {error:#}");
        }
    }

    /// Follows cgroups that come below selected ones.
    pub(super) fn refresh(&self) {
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
        let selectors: Vec<&Selector> = running.sessions.iter().map(|session| &session.selector).collect();
        let compiled = if selectors.is_empty() {
            Compiled::default()
        } else {
            compile_taps(
                &selectors,
                &|path: &str| self.cgroups.leaves(path),
                &self.capabilities,
                &*self.known,
            )
        };
        let snaplen = running
            .sessions
            .iter()
            .map(|session| session.snaplen)
            .max()
            .unwrap_or(0);
        // Where the loopback device is watched, intercepted calls are seen as the application makes them.
        let skips_own = running
            .sessions
            .iter()
            .all(|session| session.positions.contains_key(&1));
        self.kernel.set_taps(&compiled, snaplen, skips_own)
    }

    /// Gives a packet to the captures that chose it.
    fn packet(&self, header: &PacketHeader, bytes: &[u8]) {
        let sessions: Vec<Arc<Session>> = {
            let running = self.lock();
            running
                .sessions
                .iter()
                .filter(|session| session.positions.contains_key(&header.ifindex))
                .cloned()
                .collect()
        };
        let Some(first) = sessions.first() else { return };
        let position = first.positions[&header.ifindex];
        let link_type = first.link_types[position as usize];
        let ends = ends(bytes, link_type);
        let known = header.flags & TASK_KNOWN != 0;
        let caller = (known && header.flags & TASK_SERVES == 0).then(|| {
            let mut caller = self.known.process(&header.task);
            caller.source = ends.map(|(source, destination)| {
                if header.flags & TASK_SENDS != 0 {
                    source
                } else {
                    destination
                }
            });
            caller
        });
        let mut chosen = sessions
            .into_iter()
            .filter(|session| self.wants(&session.selector, header, caller.as_ref(), ends))
            .peekable();
        if chosen.peek().is_none() {
            return;
        }
        let mut frame = bytes.to_vec();
        if header.flags & FLOW_REDIRECTED != 0 {
            as_the_application_saw(&mut frame, link_type, header, ends);
        }
        let data = Bytes::from(frame);
        let (sender, receiver) = self.parties(header, ends);
        let offset = self.clock_offset.load(Ordering::Relaxed);
        for session in chosen {
            let Some(&interface) = session.positions.get(&header.ifindex) else {
                continue;
            };
            let kept = data.len().min(session.snaplen as usize);
            let record = PacketRecord {
                timestamp_ns: header.boot_ns.saturating_add_signed(offset),
                interface,
                direction: if header.flags & EGRESS != 0 {
                    Direction::Out
                } else {
                    Direction::In
                },
                original_len: header.length,
                data: data.slice(..kept),
                sender: sender.clone(),
                receiver: receiver.clone(),
            };
            session.counts.received[interface as usize].fetch_add(1, Ordering::Relaxed);
            if session.packets_tx.try_send(record).is_err() {
                session.counts.dropped[interface as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Who sends and who receives, as far as known.
    fn parties(
        &self,
        header: &PacketHeader,
        ends: Option<(SocketAddr, SocketAddr)>,
    ) -> (Option<Party>, Option<Party>) {
        let sends = header.flags & TASK_SENDS != 0;
        let service = |endpoint: Endpoint| {
            let task = self.kernel.service(&ServiceKey::new(self.own_netns, endpoint))?;
            Some(Party {
                pid: task.tgid,
                process: task.name().into(),
            })
        };
        if header.flags & TASK_KNOWN == 0 {
            let Some((source, destination)) = ends else {
                return (None, None);
            };
            return (service(source.into()), service(destination.into()));
        }
        let owner = Some(Party {
            pid: header.task.tgid,
            process: header.task.name().into(),
        });
        let other = if header.flags & TASK_SERVES != 0 {
            None
        } else {
            service(header.original)
        };
        if sends { (owner, other) } else { (other, owner) }
    }

    /// The agent's fine decision, where the kernel may have chosen too much.
    fn wants(
        &self,
        selector: &Selector,
        header: &PacketHeader,
        caller: Option<&Caller>,
        ends: Option<(SocketAddr, SocketAddr)>,
    ) -> bool {
        if selector.is_empty() {
            return true;
        }
        let nobody = Caller::default();
        let called = |address| {
            self.known
                .describe(&selector.to, self.own_netns, &header.task, address, TCP)
        };
        if header.flags & TASK_KNOWN != 0 {
            let destination = called(header.original.socket_addr());
            return selector.matches(caller.unwrap_or(&nobody), &destination);
        }
        ends.is_some_and(|(source, destination)| {
            selector.matches(&nobody, &called(destination)) || selector.matches(&nobody, &called(source))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the address that the application asked for in the place of the agent's listener.
fn as_the_application_saw(
    frame: &mut [u8],
    link_type: LinkType,
    header: &PacketHeader,
    ends: Option<(SocketAddr, SocketAddr)>,
) {
    let Some((source, destination)) = ends else { return };
    let listener = if header.flags & TASK_SENDS != 0 {
        destination
    } else {
        source
    };
    let original = header.original.socket_addr();
    let change = Rewrite {
        from: (listener.ip(), listener.port()),
        to: (original.ip(), original.port()),
    };
    rewrite(frame, link_type, &change);
}

fn interface(link: &Link, snaplen: u32) -> Interface {
    let link_type = if link.ethernet {
        LinkType::Ethernet
    } else {
        LinkType::Raw
    };
    Interface {
        name: link.name.clone(),
        link_type,
        snaplen,
    }
}

/// Source and destination of an IP packet; ports 0 where it has none.
fn ends(bytes: &[u8], link_type: LinkType) -> Option<(SocketAddr, SocketAddr)> {
    let packet = match link_type {
        LinkType::Ethernet => LaxSlicedPacket::from_ethernet(bytes).ok()?,
        LinkType::Raw => LaxSlicedPacket::from_ip(bytes).ok()?,
    };
    let (source, destination) = match packet.net? {
        LaxNetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        LaxNetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        _ => return None,
    };
    let (from, to) = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => (0, 0),
    };
    Some((SocketAddr::new(source, from), SocketAddr::new(destination, to)))
}

fn realtime_less_boottime() -> i64 {
    let nanoseconds = |clock| {
        let now = rustix::time::clock_gettime(clock);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    };
    let boot = nanoseconds(rustix::time::ClockId::Boottime);
    nanoseconds(rustix::time::ClockId::Realtime) - boot
}
