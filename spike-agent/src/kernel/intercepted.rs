//! What the hooks tell of intercepted connections and datagrams, and of the names and addresses that selectors name.

use anyhow::{Context, Result};
use spike_common::config::{DatagramPorts, HOLDS};
use spike_common::held::{HeldSyn, PASS};
use spike_common::name::NameKey;
use spike_common::socket::{Binder, Flow, FlowKey, ServiceKey};
use tokio::io::unix::AsyncFd;

use super::Kernel;
use super::tables::plain;
use crate::lock::lock;

impl Kernel {
    /// Says whether SYNs may be held: only while somebody reads them and can let them go on.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn hold_syns(&self, holds: bool) -> Result<()> {
        self.configure(|config| {
            if holds {
                config.intercept_flags |= HOLDS;
            } else {
                config.intercept_flags &= !HOLDS;
            }
        })
    }

    /// Says whether the hooks tell of addresses that are bound.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn tell_binds(&self, tells: bool) -> Result<()> {
        self.configure(|config| config.tells_binds = u32::from(tells))
    }

    /// `hooks/held --HeldSyn--> proxy`, for as long as the agent lives.
    ///
    /// # Errors
    /// When they are already being read, or cannot be polled.
    pub fn read_syns(&self, mut each: impl FnMut(&HeldSyn) + Send + 'static) -> Result<()> {
        let ring = lock(&self.syns)
            .take()
            .context("the SYNs are already being read")?;
        // SAFETY: the ring owns its descriptor and keeps it until it is dropped.
        let mut ring = unsafe { AsyncFd::register(ring) }.context("poll the SYNs' ring buffer")?;
        tokio::spawn(async move {
            while let Ok(mut ready) = ring.readable_mut().await {
                while let Some(item) = ready.get_inner_mut().next() {
                    if let Some(syn) = plain::<HeldSyn>(&item) {
                        each(&syn);
                    }
                }
                ready.clear_ready();
            }
        });
        Ok(())
    }

    /// Lets a held SYN go on when TCP sends it again.
    pub fn pass_syn(&self, cookie: u64) {
        _ = lock(&self.released).insert(cookie, PASS, 0);
    }

    /// Lets the attempt of a held SYN time out, `milliseconds` after it began.
    pub fn time_out_syn(&self, cookie: u64, milliseconds: u32) {
        _ = lock(&self.released).insert(cookie, milliseconds.clamp(1, PASS - 1), 0);
    }

    /// Tells the hooks of the agent's ports for datagrams in a namespace.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_datagram_ports(&self, netns: u64, ports: DatagramPorts) -> Result<()> {
        lock(&self.datagram_listeners)
            .insert(netns, ports, 0)
            .with_context(|| {
                format!("note the ports for datagrams in network namespace {netns}; at most 16384 fit")
            })
    }

    /// Forgets a namespace's ports for datagrams.
    pub fn remove_datagram_ports(&self, netns: u64) {
        _ = lock(&self.datagram_listeners).remove(&netns);
    }

    /// Where datagrams that came to the agent were meant to go, and whose they are.
    pub fn datagram_flow(&self, key: &FlowKey) -> Option<Flow> {
        lock(&self.datagram_flows).get(key, 0).ok()
    }

    /// Who bound an address; the key's namespace is 0 where the kernel does not tell it to all hooks.
    pub fn binder(&self, key: &ServiceKey) -> Option<Binder> {
        let key = ServiceKey {
            netns: if self.features.netns_cookie { key.netns } else { 0 },
            ..*key
        };
        lock(&self.binders).get(&key, 0).ok()
    }

    /// Who bound which address, the latest of each.
    pub fn binders(&self) -> Vec<(ServiceKey, Binder)> {
        lock(&self.binders).iter().flatten().collect()
    }

    /// Notes who listens at an address.
    pub(super) fn set_binder(&self, key: ServiceKey, binder: Binder) {
        let key = ServiceKey {
            netns: if self.features.netns_cookie { key.netns } else { 0 },
            ..key
        };
        _ = lock(&self.binders).insert(key, binder, 0);
    }

    /// The number of the name that a cgroup last resolved to an address; 0 for none.
    pub fn resolved(&self, key: &NameKey) -> u64 {
        lock(&self.names).get(key, 0).unwrap_or(0)
    }

    /// Which cgroup resolved which address from which name, by its number.
    pub fn all_resolved(&self) -> Vec<(NameKey, u64)> {
        lock(&self.names).iter().flatten().collect()
    }
}
