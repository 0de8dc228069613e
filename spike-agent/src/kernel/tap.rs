//! Attaches the packet programs to interfaces while a capture runs.

use std::sync::Arc;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, TcAttachType};
use spike_common::packet::{TapLink, link_key};

use super::attach::classifier;
use super::links::Link;
use super::{Kernel, clsact};
use crate::lock::lock;
use crate::safety::netns::inside;
use crate::safety::{Direction, Entry, EntryId, Journal, current_netns};

/// The programs that choose and copy packets.
const INGRESS: &str = "spike_tap_ingress";
const EGRESS: &str = "spike_tap_egress";

/// The packet programs on one interface; dropping it takes them off.
pub struct Tap {
    kernel: Arc<Kernel>,
    link: Link,
    slot: u32,
    attached: Vec<Attached>,
    /// Where a clsact qdisc would be written down that was put there for this or for packet faults: goes with the last
    /// of them.
    journal: Arc<Journal>,
}

enum Attached {
    /// Detached by the drop.
    Tcx { _link: FdLink },
    /// A filter of a clsact qdisc (before kernel 6.6), which would outlive the agent: noted in the journal.
    Netlink {
        link: Option<SchedClassifierLink>,
        journal: Arc<Journal>,
        entry: EntryId,
    },
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Tap {
    /// Puts the packet programs on an interface. `slot` is the number of its namespace, 0 for the agent's own.
    ///
    /// # Errors
    /// Names the interface and the step; nothing stays attached.
    pub fn attach(kernel: &Arc<Kernel>, link: &Link, slot: u32, journal: &Arc<Journal>) -> Result<Self> {
        let mut tap = Self {
            kernel: Arc::clone(kernel),
            link: link.clone(),
            slot,
            attached: Vec::new(),
            journal: Arc::clone(journal),
        };
        let place = link.place.as_ref();
        let note = TapLink {
            netns: place.map_or(kernel.own_netns, |place| place.cookie),
            header: if link.ethernet { 14 } else { 0 },
            padding: 0,
        };
        lock(&kernel.tap_links)
            .insert(link_key(slot, link.index), note, 0)
            .context("note the interface's kind")?;
        match place {
            Some(place) => inside(&place.file, || tap.attach_here(journal))
                .with_context(|| format!("enter network namespace {}", place.name))??,
            None => tap.attach_here(journal)?,
        }
        Ok(tap)
    }

    /// In the interface's namespace.
    fn attach_here(&mut self, journal: &Arc<Journal>) -> Result<()> {
        let (kernel, link) = (&self.kernel, &self.link);
        let tcx = kernel.features.tcx && std::env::var_os("SPIKE_NO_TCX").is_none();
        if !tcx {
            clsact::ensure(&link.name, link.index, journal)?;
        }
        // What leaves through the loopback device arrives through it: once is enough.
        let directions: &[_] = if link.loopback {
            &[Direction::Ingress]
        } else {
            &[Direction::Ingress, Direction::Egress]
        };
        for direction in directions {
            let attached = attach_one(kernel, link, self.slot, *direction, tcx, journal)
                .with_context(|| format!("attach the {direction:?} tap to {}", link.shown()))?;
            self.attached.push(attached);
        }
        Ok(())
    }

    /// In the interface's namespace.
    fn detach_here(&mut self) {
        for attached in self.attached.drain(..) {
            if let Attached::Netlink { link, journal, entry } = attached {
                drop(link);
                _ = journal.done(entry);
            }
        }
        clsact::release(self.link.index, &self.journal);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        match self.link.place.clone() {
            // A namespace that cannot be entered any more has no interfaces either.
            Some(place) => _ = inside(&place.file, || self.detach_here()),
            None => self.detach_here(),
        }
        _ = lock(&self.kernel.tap_links).remove(&link_key(self.slot, self.link.index));
    }
}

fn attach_one(
    kernel: &Kernel,
    link: &Link,
    slot: u32,
    direction: Direction,
    tcx: bool,
    journal: &Arc<Journal>,
) -> Result<Attached> {
    let (name, attach_type) = match direction {
        Direction::Ingress => (INGRESS, TcAttachType::Ingress),
        Direction::Egress => (EGRESS, TcAttachType::Egress),
    };
    let mut programs = lock(&kernel.programs);
    let name = match (slot, direction) {
        (0, _) => name.to_owned(),
        (_, Direction::Ingress) => format!("spike_tap_in_{slot}"),
        (_, Direction::Egress) => format!("spike_tap_out_{slot}"),
    };
    if slot != 0 {
        go_on_to_the_tap(kernel, &mut programs)?;
    }
    let program = classifier(&mut programs, &name)?;
    if tcx {
        let id = program.attach_with_options(
            &link.name,
            attach_type,
            TcAttachOptions::TcxOrder(LinkOrder::default()),
        )?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        return Ok(Attached::Tcx { _link: link });
    }
    let entry = journal.record(Entry::TcFilter {
        netns: current_netns()?,
        ifindex: link.index,
        ifname: link.name.clone(),
        direction,
        name: name.clone(),
        handle: 0,
        priority: 0,
    })?;
    let id = program.attach_with_options(
        &link.name,
        attach_type,
        TcAttachOptions::Netlink(NlOptions::default()),
    )?;
    let link = program.take_link(id)?;
    Ok(Attached::Netlink {
        link: Some(link),
        journal: Arc::clone(journal),
        entry,
    })
}

/// Lets taps of other namespaces find the programs that do the work.
fn go_on_to_the_tap(kernel: &Kernel, programs: &mut Ebpf) -> Result<()> {
    let mut table = lock(&kernel.tap_programs);
    for (index, name) in [(0, EGRESS), (1, INGRESS)] {
        let program = classifier(programs, name)?;
        table
            .set(index, program.fd()?, 0)
            .with_context(|| format!("lead taps to {name}"))?;
    }
    Ok(())
}
