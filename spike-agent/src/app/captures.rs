//! Runs captures: taps on while one wants them, each packet to the captures that chose it.
//!
//! kernel::packets --packets--> Reader --PacketRecord--> capture::session --pcapng--> the reader, or the disk

mod counts;
mod flows;
mod legs;
mod packet;
mod reader;
mod taps;
mod watch;
mod who;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch as watch_channel};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::known::Known;
use crate::capture::filter::Filter;
use crate::capture::record::{Interface, LinkType, PacketRecord};
use crate::capture::session::{Controls, End, SessionSpec, Waiting, run};
use crate::capture::store::Store;
use crate::control::{CaptureCounts, CaptureHandle, CaptureOutput};
use crate::identity::{Cgroups, Services};
use crate::kernel::Kernel;
use crate::kernel::links::Link;
use crate::model::capture::{Legs as WantedLegs, Trigger};
use crate::model::rule::Capabilities;
use crate::model::{CaptureSpec, FieldError, Selector};
use crate::safety::Journal;
use counts::Counts;
use legs::Legs;
use reader::Reader;
use taps::Running;

/// Packets between the ring buffer and a session; beyond it they are dropped and counted.
const QUEUE: usize = 65_536;

/// What captures need of the rest of the agent.
pub(super) struct Parts {
    pub(super) kernel: Arc<Kernel>,
    pub(super) journal: Arc<Journal>,
    pub(super) cgroups: Arc<Cgroups>,
    pub(super) services: Arc<Services>,
    pub(super) known: Arc<Known>,
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
                None
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
