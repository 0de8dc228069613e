//! Reads what the hooks counted and noted; tells them what the agent knows.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use aya::maps::MapError;
use spike_common::config::Listener;
use spike_common::counter::Counter;
use spike_common::edge::{Edge, EdgeStats};
use spike_common::event::NamespaceWanted;
use spike_common::socket::{Flow, FlowKey, ServiceKey};
use spike_common::task::Task;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::Kernel;
use crate::lock::lock;
use crate::model::edge::{Compact, EdgeSample};

/// Nanoseconds of `CLOCK_MONOTONIC`, the hooks' clock.
pub(super) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl Kernel {
    /// Tells the hooks that the agent is alive; due every half second.
    pub fn beat(&self) {
        _ = lock(&self.heartbeat).set(0, monotonic_ns(), 0);
    }

    /// The hooks' clock `ahead` from now.
    pub fn deadline_ns(&self, ahead: Duration) -> u64 {
        monotonic_ns() + u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// When it was, by the wall clock, at a moment of the hooks' clock.
    pub fn wall_clock(&self, monotonic: u64) -> SystemTime {
        let ago = Duration::from_nanos(monotonic_ns().saturating_sub(monotonic));
        SystemTime::now()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The hooks' clock at a moment that is past by the wall clock.
    pub fn monotonic_at(&self, wall: SystemTime) -> u64 {
        let ago = SystemTime::now().duration_since(wall).unwrap_or_default();
        monotonic_ns().saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Tells the connect hook of the agent's listener in a namespace; ports 0 for "none can be".
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_listener(&self, netns: u64, port4: u16, port6: u16) -> Result<()> {
        lock(&self.listeners)
            .insert(netns, Listener { port4, port6 }, 0)
            .with_context(|| format!("note the listener of network namespace {netns}; at most 16384 fit"))
    }

    /// Forgets a namespace.
    pub fn remove_listener(&self, netns: u64) {
        _ = lock(&self.listeners).remove(&netns);
    }

    /// Finds and forgets where a redirected flow was meant to go.
    pub fn take_redirect(&self, key: &FlowKey) -> Option<Flow> {
        let mut redirects = lock(&self.redirects);
        let flow = redirects.get(key, 0).ok()?;
        _ = redirects.remove(key);
        Some(flow)
    }

    /// The owner of a flow.
    pub fn flow(&self, key: &FlowKey) -> Option<Flow> {
        lock(&self.flows).get(key, 0).ok()
    }

    /// What an edge is between.
    pub fn edge(&self, id: u64) -> Option<Edge> {
        let here = lock(&self.edges).get(&id, 0).ok();
        here.or_else(|| lock(&self.retired).get(id).map(|kept| kept.edge))
    }

    /// Who answers at an address.
    pub fn service(&self, key: &ServiceKey) -> Option<Task> {
        lock(&self.services).get(key, 0).ok()
    }

    /// Everyone who answers on this host, as far as seen.
    pub fn services(&self) -> Vec<(ServiceKey, Task)> {
        lock(&self.services).iter().flatten().collect()
    }

    /// Notes who answers at an address.
    pub(super) fn set_service(&self, key: ServiceKey, task: Task) {
        _ = lock(&self.services).insert(key, task, 0);
    }

    /// Notes the owner of a flow.
    pub(super) fn set_flow(&self, key: FlowKey, flow: Flow) {
        _ = lock(&self.flows).insert(key, flow, 0);
    }

    /// All edges.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn edges(&self) -> Result<Vec<EdgeSample>> {
        // An edge is kept before anyone else may look: it would be seen twice, or not at all.
        let retired = lock(&self.retired);
        let mut rows = Vec::new();
        for (id, edge, mut stats) in self.hooks_edges()? {
            if let Some(earlier) = retired.get(id) {
                stats.add(&earlier.stats.full());
            }
            let stats = Compact::from(&stats);
            rows.push(EdgeSample { id, edge, stats });
        }
        if retired.ids().next().is_some() {
            let here: HashSet<u64> = rows.iter().map(|row| row.id).collect();
            rows.extend(retired.iter().filter(|kept| !here.contains(&kept.id)).cloned());
        }
        Ok(rows)
    }

    /// The edges in the hooks' table.
    pub(super) fn hooks_edges(&self) -> Result<Vec<(u64, Edge, EdgeStats)>> {
        let edges = lock(&self.edges);
        let mut rows = Vec::new();
        for item in edges.iter() {
            let (id, edge) = match item {
                Ok(item) => item,
                Err(MapError::KeyNotFound | MapError::ElementNotFound) => continue,
                Err(error) => return Err(error).context("read the edges"),
            };
            if let Some(stats) = self.hooks_stats(id) {
                rows.push((id, edge, stats));
            }
        }
        Ok(rows)
    }

    /// What the hooks have counted of an edge, over all CPUs.
    pub(super) fn hooks_stats(&self, id: u64) -> Option<EdgeStats> {
        let per_cpu = lock(&self.stats).get(&id, 0).ok()?;
        let mut sum = EdgeStats::default();
        for part in per_cpu.iter() {
            sum.add(part);
        }
        Some(sum)
    }

    /// How many edges there are.
    pub fn edge_count(&self) -> u64 {
        let retired = lock(&self.retired);
        let here: HashSet<u64> = lock(&self.edges).keys().flatten().collect();
        let others = retired.ids().filter(|id| !here.contains(id)).count();
        (here.len() + others) as u64
    }

    /// Counts one more open connection on an edge, which is made if need be.
    pub(super) fn add_open(&self, edge: &Edge) -> Result<u64> {
        let id = edge.id();
        let mut stats = lock(&self.stats);
        let mut per_cpu = match stats.get(&id, 0) {
            Ok(values) => values.iter().copied().collect(),
            Err(_) => vec![EdgeStats::default(); aya::util::nr_cpus().map_err(|(_, error)| error)?],
        };
        per_cpu[0].opened += 1;
        stats.insert(id, aya::maps::PerCpuValues::try_from(per_cpu)?, 0)?;
        lock(&self.edges).insert(id, edge, 0)?;
        Ok(id)
    }

    /// One of the hooks' counters, over all CPUs.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters
            .get(&(counter as u32), 0)
            .map_or(0, |values| values.iter().sum())
    }

    /// `hooks/connect --NamespaceWanted--> proxy/namespaces`, until the receiver goes.
    ///
    /// # Errors
    /// When it is already being read, or cannot be polled.
    pub fn read_events(&self, wanted_tx: mpsc::UnboundedSender<NamespaceWanted>) -> Result<()> {
        let ring = lock(&self.events)
            .take()
            .context("the events are already being read")?;
        // SAFETY: the ring owns its descriptor and keeps it until it is dropped.
        let mut ring = unsafe { AsyncFd::register(ring) }.context("poll the events' ring buffer")?;
        tokio::spawn(async move {
            while let Ok(mut ready) = ring.readable_mut().await {
                while let Some(item) = ready.get_inner_mut().next() {
                    if let Some(event) = plain::<NamespaceWanted>(&item)
                        && wanted_tx.send(event).is_err()
                    {
                        return;
                    }
                }
                ready.clear_ready();
            }
        });
        Ok(())
    }
}

/// A shared type at the start of bytes from a ring buffer.
pub(super) fn plain<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    (bytes.len() >= size_of::<T>()).then(|| {
        // SAFETY: long enough, and a Pod is valid for any bytes.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    })
}
