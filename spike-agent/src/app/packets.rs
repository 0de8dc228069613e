//! Carries packet faults out: finds their interfaces, and keeps hooks, queues and maps in step with the book.
//!
//! An interface is looked up when its fault is armed, and is touched only while it has one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use spike_common::packet_fault::{CORRUPT, LINK_CORRUPTS, MAX_LINK_FAULTS, PacketFault};

use super::planes::kernel_id;
use crate::fault::book::ArmedFault;
use crate::identity::Cgroups;
use crate::kernel::Kernel;
use crate::kernel::packet_faults::{Hook, Site};
use crate::model::rule::Capabilities;
use crate::model::{FieldError, PacketEffect, packet_rule};
use crate::safety::Journal;

/// The packet faults in force.
pub(super) struct Packets {
    kernel: Arc<Kernel>,
    journal: Arc<Journal>,
    cgroups: Arc<Cgroups>,
    capabilities: Capabilities,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were armed.
    placed: Vec<Placed>,
    hooks: HashMap<Site, Hook>,
}

/// A fault and where it is in force.
struct Placed {
    armed: Arc<ArmedFault>,
    compiled: PacketFault,
    waits: bool,
    sites: Vec<Site>,
}

impl Packets {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        journal: Arc<Journal>,
        cgroups: Arc<Cgroups>,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            kernel,
            journal,
            cgroups,
            capabilities,
            state: Mutex::default(),
        }
    }

    /// Follows the book: what is no longer in it, or was changed, ends; what is new comes into force.
    ///
    /// # Errors
    /// The first fault that cannot be carried out, with a [`FieldError`] where another request could be; the others are.
    pub(super) fn follow(&self, faults: &[Arc<ArmedFault>]) -> Result<()> {
        let mut state = self.lock();
        let wanted = |placed: &Placed| faults.iter().any(|armed| Arc::ptr_eq(armed, &placed.armed));
        if !state.placed.iter().all(wanted) {
            let (kept, gone) = std::mem::take(&mut state.placed).into_iter().partition(wanted);
            state.placed = kept;
            self.release(&mut state, gone);
        }
        let mut outcome = Ok(());
        for armed in faults {
            let Some(effect) = armed.fault.packet() else {
                continue;
            };
            if state
                .placed
                .iter()
                .any(|placed| Arc::ptr_eq(armed, &placed.armed))
            {
                continue;
            }
            let placed = self.place(&mut state, armed, effect);
            outcome = outcome.and(placed.with_context(|| format!("fault {}", armed.fault.name)));
        }
        self.list_cgroups(&state);
        outcome
    }

    /// Packets matched and affected by a fault.
    pub(super) fn counts(&self, fault_id: u64) -> Option<(u64, u64)> {
        self.kernel.packet_counts(kernel_id(fault_id))
    }

    fn place(&self, state: &mut State, armed: &Arc<ArmedFault>, effect: &PacketEffect) -> Result<()> {
        let left = armed
            .deadline
            .saturating_duration_since(tokio::time::Instant::now());
        let compiled = packet_rule::compile(
            &armed.fault,
            effect,
            self.kernel.deadline_ns(left),
            self.capabilities.executable,
        )?;
        let mut sites = Site::all(&self.kernel, effect, &armed.fault.selector)?;
        let mut seen = Vec::new();
        // Two names may mean one interface.
        sites.retain(|site| !seen.contains(site) && (seen.push(site.clone()), true).1);
        for site in &sites {
            let users = state.placed.iter().filter(|placed| placed.sites.contains(site));
            if users.count() >= MAX_LINK_FAULTS {
                let message = format_args!(
                    "{} has {MAX_LINK_FAULTS} packet faults already, and no more can be; remove one first",
                    site.name()
                );
                return Err(FieldError::new("effect.interfaces", message).into());
            }
        }
        let placed = Placed {
            armed: Arc::clone(armed),
            compiled,
            waits: effect.waits(),
            sites,
        };
        let started = self.start(state, &placed, effect);
        if started.is_ok() {
            state.placed.push(placed);
        } else {
            self.release(state, vec![placed]);
        }
        started
    }

    fn start(&self, state: &mut State, placed: &Placed, effect: &PacketEffect) -> Result<()> {
        for site in &placed.sites {
            let hook = match state.hooks.entry(site.clone()) {
                Entry::Occupied(hook) => hook.into_mut(),
                Entry::Vacant(place) => place.insert(Hook::attach(&self.kernel, site, &self.journal)?),
            };
            if placed.waits {
                hook.keep_packets(effect)?;
            }
        }
        let id = kernel_id(placed.armed.id);
        self.kernel.set_packet_cgroups(id, &self.cgroups_of(placed))?;
        self.kernel.add_packet_fault(id, placed.compiled)?;
        for site in &placed.sites {
            self.write_link(state, site, Some(placed))?;
        }
        Ok(())
    }

    /// Takes faults out of force that are no longer placed, then what they alone needed off the interfaces.
    fn release(&self, state: &mut State, gone: Vec<Placed>) {
        for placed in &gone {
            self.kernel.remove_packet_fault(kernel_id(placed.armed.id));
            for site in &placed.sites {
                if let Err(error) = self.write_link(state, site, None) {
                    tracing::warn!("end a packet fault on {}: {error:#}", site.name());
                }
            }
        }
        let State { placed, hooks } = state;
        hooks.retain(|site, hook| {
            let mut users = placed
                .iter()
                .filter(|placed| placed.sites.contains(site))
                .peekable();
            if users.peek().is_none() {
                return false;
            }
            if !users.any(|placed| placed.waits) {
                hook.restore_queue();
            }
            true
        });
    }

    /// Tells the hooks which faults an interface has: those that are placed, and one more.
    fn write_link(&self, state: &State, site: &Site, more: Option<&Placed>) -> Result<()> {
        let here = || {
            let all = state.placed.iter().chain(more);
            all.filter(|placed| placed.sites.contains(site))
        };
        let ids: Vec<u32> = here().map(|placed| kernel_id(placed.armed.id)).collect();
        let corrupts = here().any(|placed| placed.compiled.kind == CORRUPT);
        self.kernel
            .set_packet_link(site, &ids, if corrupts { LINK_CORRUPTS } else { 0 })
    }

    /// Follows cgroups that come below selected ones.
    fn list_cgroups(&self, state: &State) {
        for placed in &state.placed {
            let id = kernel_id(placed.armed.id);
            if let Err(error) = self.kernel.set_packet_cgroups(id, &self.cgroups_of(placed)) {
                tracing::warn!(
                    "follow the cgroups of fault {}: {error:#}",
                    placed.armed.fault.name
                );
            }
        }
    }

    fn cgroups_of(&self, placed: &Placed) -> Vec<u64> {
        let path = placed.armed.fault.selector.from.cgroup.as_deref();
        path.filter(|path| *path != "/")
            .map_or_else(Vec::new, |path| self.cgroups.leaves(path))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
