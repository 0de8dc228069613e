//! The running planes as the operator's verbs reach them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use spike_common::counter::Counter;
use spike_common::edge::{CLIENT, TCP};
use spike_common::rule::{REDIRECT, REDIRECT_DATAGRAMS};
use spike_common::task::Task;

use super::calls::Calls;
use super::captures::Captures;
use super::export::losses;
use super::known::{Known, Needs};
use super::map::MapKeeper;
use super::packets::Packets;
use super::recordings::Recordings;
use crate::capture::store::Kept;
use crate::control::{CaptureHandle, Planes};
use crate::exec::ExecTable;
use crate::export::{Exporter, Format};
use crate::fault::book::{ArmedFault, Book};
use crate::identity::{Cgroups, Services};
use crate::kernel::{Kernel, Refusal};
use crate::model::rule::{Capabilities, RuleSource, compile};
use crate::model::view::{CallEvent, CounterView, EdgeDetailView, ExecView, InterceptView, MapView, Status};
use crate::model::{CaptureSpec, Fault, FieldError, RecordingSpec, Selector, Tally, Thresholds, Window};
use crate::proxy::Proxy;
use crate::proxy::namespaces::Namespaces;
use crate::recording::{Redaction, live::Live};
use crate::replay::stub::Stubs;
use crate::topology::{Facts, Observed, RecentCall, Step};

/// Everything that runs.
pub(super) struct LivePlanes {
    pub(super) started: Instant,
    pub(super) cgroup: PathBuf,
    pub(super) kernel: Arc<Kernel>,
    pub(super) book: Arc<Book>,
    pub(super) stubs: Arc<Stubs>,
    pub(super) calls: Arc<Calls>,
    pub(super) map: Arc<MapKeeper>,
    pub(super) exporter: Arc<Exporter>,
    pub(super) services: Arc<Services>,
    pub(super) cgroups: Arc<Cgroups>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) capabilities: Capabilities,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) captures: Arc<Captures>,
    /// Those of earlier agents, until they are asked for.
    pub(super) captures_kept: Mutex<Vec<Arc<Kept>>>,
    pub(super) packets: Packets,
    pub(super) recordings: Arc<Recordings>,
    pub(super) execs: ExecTable,
    pub(super) known: Arc<Known>,
    /// Why SYNs are not held, when they are not.
    pub(super) holding: Option<String>,
    /// How often the rules were made, and how often that was asked for: who waits may find it done.
    pub(super) settled: AtomicU64,
    pub(super) asked: AtomicU64,
    /// One change of the kernel's rules at a time, each made from the book as it then is.
    pub(super) settling: tokio::sync::Mutex<HashMap<u64, (tokio::time::Instant, u64)>>,
}

impl Planes for LivePlanes {
    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            cgroup: self.cgroup.display().to_string(),
            kernel_release: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            hooks: self.kernel.hooks().to_vec(),
            intercept: InterceptView {
                armed: !self.book.list().is_empty()
                    || !self.recordings.selectors().is_empty()
                    || !self.stubs.list().is_empty(),
                namespaces: self.namespaces.view(),
                not_held: self.holding.clone(),
            },
            edges: self.kernel.edge_count(),
            decoding: self.calls.view(),
            otlp: self.exporter.otlp(),
            losses: losses(&self.kernel, &Counter::ALL.map(|(counter, ..)| counter)),
            ..Status::default()
        }
    }

    fn service_map(&self) -> Result<MapView> {
        let mut map = self.calls.service_map()?;
        map.losses = self.map_losses();
        Ok(map)
    }

    fn observed(&self, window: Window, steps: bool) -> Result<Observed> {
        let mut observed = self.map.observed(window, steps)?;
        observed.losses = self.map_losses();
        Ok(observed)
    }

    fn edge_steps(&self, id: u64, window: Window) -> Result<Vec<Step>> {
        self.map.edge_steps(id, window)
    }

    fn recent(&self, window: Window) -> (Vec<RecentCall>, BTreeMap<u64, Facts>) {
        self.map.recent(window)
    }

    fn thresholds(&self) -> Thresholds {
        self.map.thresholds()
    }

    fn host(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn edge(&self, id: u64) -> Result<Option<EdgeDetailView>> {
        self.calls.edge(id)
    }

    fn calls(&self) -> BoxStream<'static, CallEvent> {
        self.calls.follow()
    }

    fn metrics(&self, format: Format) -> BoxFuture<'_, Result<String>> {
        self.exporter.scrape(format).boxed()
    }

    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
            let mut deadlines = self.settling.lock().await;
            // Somebody else has made them meanwhile, from a book that is as new.
            if self.settled.load(Ordering::Acquire) >= number {
                return Ok(());
            }
            let asked = self.asked.load(Ordering::Acquire);
            let all = self.book.list();
            self.packets.follow(&all)?;
            // A dry run gets in nobody's way; a relay's connections come by themselves.
            let faults: Vec<_> = all
                .iter()
                .filter(|armed| {
                    let fault = &armed.fault;
                    !fault.dry_run && fault.relay.is_none() && fault.packet().is_none()
                })
                .collect();
            let stubs = self.stubs.list();
            let recorded = self.recordings.selectors();
            // Read once: the same clock read again would say something else.
            let mut ends = HashMap::with_capacity(faults.len());
            for armed in faults.iter() {
                let known = deadlines.get(&armed.id).copied();
                // A changed fault has another deadline than it had.
                let known = known.filter(|(deadline, _)| *deadline == armed.deadline);
                let end = known.unwrap_or_else(|| (armed.deadline, self.deadline_ns(armed)));
                ends.insert(armed.id, end);
            }
            *deadlines = ends;
            let deadline_ns = |id: u64| {
                deadlines
                    .get(&id)
                    .map_or(u64::MAX, |(_, nanoseconds)| *nanoseconds)
            };
            let stubbed = || stubs.iter().flat_map(|armed| &armed.selectors);
            let of_recordings = || recorded.iter().map(|selector| &**selector);
            let of_faults = || faults.iter().map(|armed| &armed.fault.selector);
            let selectors = || of_faults().chain(of_recordings()).chain(stubbed());
            let needs = Needs::of(selectors());
            self.known.set_needs(needs);
            self.kernel.tell_binds(needs.called())?;
            let named = selectors().flat_map(|selector| [&selector.from.host, &selector.to.host]);
            let named: Vec<_> = named.flatten().collect();
            self.known.hosts.refresh(&named).await;
            // Names are a part of what is recorded, and of what is stood in for.
            let mut of_dns: Vec<Selector> = of_recordings().filter_map(Selector::of_dns).collect();
            of_dns.extend(stubs.iter().flat_map(|armed| armed.datagrams.iter().cloned()));
            let datagrams = faults.iter().any(|armed| armed.fault.is_on_datagrams());
            self.namespaces.want_datagrams(datagrams || !of_dns.is_empty());
            let needs_proxy =
                !stubs.is_empty() || !recorded.is_empty() || faults.iter().any(|armed| !self.refuses(armed));
            if needs_proxy {
                // Listeners first: a rule without one lets calls escape.
                self.namespaces.set_armed(true).await?;
            }
            let of_faults = faults.iter().map(|armed| RuleSource {
                selector: &armed.fault.selector,
                kernel_fault: self.refuses(armed).then(|| kernel_id(armed.id)),
                datagrams: armed.fault.is_on_datagrams(),
                deadline_ns: deadline_ns(armed.id),
            });
            let other = |selector, datagrams| RuleSource {
                selector,
                kernel_fault: None,
                datagrams,
                deadline_ns: u64::MAX,
            };
            let of_others = of_recordings()
                .chain(stubbed())
                .map(|selector| other(selector, false));
            let of_names = of_dns.iter().map(|selector| other(selector, true));
            let sources: Vec<RuleSource<'_>> = of_faults.chain(of_others).chain(of_names).collect();
            let compiled = compile(&sources, &*self.known, &self.capabilities);
            let answered: HashSet<u32> = compiled
                .exact
                .values()
                .chain(compiled.prefix.values())
                .flat_map(|value| value.refusals)
                .collect();
            let mut refusals = Vec::new();
            for armed in &faults {
                let in_kernel = answered.contains(&kernel_id(armed.id));
                armed.decided_in_kernel.store(in_kernel, Ordering::Relaxed);
                if in_kernel {
                    refusals.push(refusal(armed, deadline_ns(armed.id)));
                }
            }
            let mut values = compiled.exact.values().chain(compiled.prefix.values());
            let redirects = values.any(|value| value.flags & (REDIRECT | REDIRECT_DATAGRAMS) != 0);
            if redirects && !needs_proxy {
                self.namespaces.set_armed(true).await?;
            }
            self.kernel.set_rules(&compiled, &refusals)?;
            if !redirects && !needs_proxy {
                self.namespaces.set_armed(false).await?;
            }
            self.settled.store(asked, Ordering::Release);
            Ok(())
        }
        .boxed()
    }

    fn kernel_counts(&self, fault_id: u64) -> Option<(u64, u64)> {
        let packets = self.packets.counts(fault_id);
        packets.or_else(|| self.kernel.refusal_counts(kernel_id(fault_id)))
    }

    fn can_close(&self) -> Result<()> {
        self.kernel.can_close()
    }

    fn prepare(&self, fault: &Fault) -> BoxFuture<'_, Result<()>> {
        let is_on_packets = fault.packet().is_some() && !fault.dry_run;
        let kernel = Arc::clone(&self.kernel);
        async move {
            if is_on_packets {
                tokio::task::spawn_blocking(move || kernel.load_packet_faults()).await??;
            }
            Ok(())
        }
        .boxed()
    }

    fn close_existing(&self, armed: Arc<ArmedFault>) -> BoxFuture<'_, Result<u64>> {
        let through_proxy = self.proxy.close(&armed.fault.selector, armed.id);
        let (kernel, known) = (Arc::clone(&self.kernel), Arc::clone(&self.known));
        let cgroup = self.cgroup.clone();
        // It reads /proc, and enters namespaces.
        let closing = tokio::task::spawn_blocking(move || {
            kernel.close(&cgroup, |task: &Task, destination| {
                let selector = &armed.fault.selector;
                let netns = kernel.own_netns();
                let called = known.describe(&selector.to, netns, task, destination, TCP);
                selector.matches(&known.process(task), &called)
            })
        });
        async move { Ok(through_proxy + closing.await??) }.boxed()
    }

    fn tally(&self, selector: &Selector) -> Result<Tally> {
        let mut edges = self.kernel.edges()?;
        edges.retain(|sample| {
            let edge = &sample.edge;
            let is_meant = || {
                let address = edge.destination.socket_addr();
                let netns = self.kernel.own_netns();
                let called = self.known.describe(&selector.to, netns, &edge.task, address, TCP);
                selector.matches(&self.known.process(&edge.task), &called)
            };
            edge.role == CLIENT && edge.transport == TCP && is_meant()
        });
        let decoded = self.calls.decoded(edges.iter().map(|sample| sample.id));
        let mut tally = Tally::default();
        for sample in &edges {
            let decoded = decoded.get(&sample.id);
            tally.add(
                &sample.stats.full(),
                decoded.map_or((0, 0), |decoded| (decoded.calls, decoded.failed)),
            );
        }
        Ok(tally)
    }

    fn capture_start(&self, spec: CaptureSpec) -> BoxFuture<'_, Result<CaptureHandle>> {
        let started = self.captures.start(spec);
        async { started }.boxed()
    }

    fn captures_kept(&self) -> Vec<Arc<Kept>> {
        std::mem::take(&mut *self.captures_kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn recording_start(&self, spec: RecordingSpec, redaction: Redaction) -> BoxFuture<'_, Result<Arc<Live>>> {
        async move {
            let live = self.recordings.start(spec, redaction)?;
            if let Err(error) = self.settle().await {
                self.recordings.remove(&live);
                live.stop();
                _ = self.settle().await;
                return Err(error);
            }
            Ok(live)
        }
        .boxed()
    }

    fn recording_stop(&self, live: Arc<Live>) -> BoxFuture<'_, Result<()>> {
        async move {
            self.recordings.remove(&live);
            live.stop();
            live.ended().await;
            self.settle().await
        }
        .boxed()
    }

    fn exec_begin(&self, pid: u32, client_pid: u32) -> Result<ExecView> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let own = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or("/");
        if !self.cgroups.directory(own).starts_with(&self.cgroup) {
            let observed = self.cgroup.display();
            return Err(FieldError::new("pid", format!(
                "the command runs in cgroup {own:?}, outside of {observed}, which is all that this agent observes; start it inside, or the agent without --cgroup"
            )).into());
        }
        self.execs.exec_begin(pid, client_pid)
    }

    fn exec_end(&self, id: &str) -> Result<()> {
        self.execs.exec_end(id)
    }

    fn check_cgroup(&self, path: &str) -> Result<(), FieldError> {
        if self.cgroups.directory(path).join("cgroup.procs").is_file() {
            return Ok(());
        }
        let mount = self.cgroups.directory("/");
        let hint = format!(
            "there is no cgroup {path:?} below {}; /proc/PID/cgroup tells a process's",
            mount.display()
        );
        Err(FieldError::new("cgroup", hint))
    }

    fn check_user(&self, name: &str) -> Result<(), FieldError> {
        if self.known.has_user(name) {
            return Ok(());
        }
        let hint =
            format!("there is no user {name:?} in /etc/passwd; one of another directory is named by number");
        Err(FieldError::new("user", hint))
    }
}

impl LivePlanes {
    /// Has the service of each end named.
    pub(super) fn name_all(&self) {
        let listeners = self.kernel.services();
        self.services.learn_listeners(&listeners);
        let edges = self.kernel.edges().unwrap_or_default();
        let ends = edges.iter().map(|sample| &sample.edge.task);
        for task in ends.chain(listeners.iter().map(|(_, task)| task)) {
            self.services.of(task);
        }
    }

    /// What is not on the map; only what was seen to be lost.
    fn map_losses(&self) -> Vec<CounterView> {
        let counters = [Counter::EdgesFull, Counter::PacketUnread, Counter::SampleRingFull];
        let mut losses = losses(&self.kernel, &counters);
        losses.retain(|loss| loss.count > 0);
        losses
    }

    /// Whether the kernel answers this fault's calls itself.
    fn refuses(&self, armed: &ArmedFault) -> bool {
        armed.fault.is_decided_in_kernel()
    }

    /// Does a fault name what comes and goes?
    pub(super) fn names_what_changes(&self) -> bool {
        let (faults, stubs, recorded) = (self.book.list(), self.stubs.list(), self.recordings.selectors());
        let of_faults = faults.iter().map(|armed| &armed.fault.selector);
        let of_stubs = stubs.iter().flat_map(|armed| &armed.selectors);
        of_faults
            .chain(recorded.iter().map(|selector| &**selector))
            .chain(of_stubs)
            .any(Selector::names_what_changes)
    }

    /// When the kernel stops to carry a fault out, even if nobody tells it to.
    fn deadline_ns(&self, armed: &ArmedFault) -> u64 {
        let left = armed
            .deadline
            .saturating_duration_since(tokio::time::Instant::now());
        self.kernel.deadline_ns(left)
    }
}

fn refusal(armed: &ArmedFault, deadline_ns: u64) -> Refusal {
    Refusal {
        id: kernel_id(armed.id),
        seed: armed.fault.seed,
        percent: armed.fault.percent,
        deadline_ns,
    }
}

/// A fault's number in the kernel's maps, where 0 means none. Numbers start at 1 and would take 2^32 faults to repeat.
pub(super) fn kernel_id(id: u64) -> u32 {
    (id & u64::from(u32::MAX)).max(1) as u32
}
