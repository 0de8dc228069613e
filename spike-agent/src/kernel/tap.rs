//! Attaches the packet programs to interfaces while a capture runs, and reads what they copy.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use aya::programs::links::FdLink;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, Program, SchedClassifier, TcAttachType};
use spike_common::packet::PacketHeader;
use tokio::io::unix::AsyncFd;

use super::tables::plain;
use super::{Kernel, clsact, lock};
use crate::safety::{Direction, Entry, EntryId, Journal, current_netns};

/// `ARPHRD_ETHER`, `ARPHRD_LOOPBACK`: interfaces whose packets start with an Ethernet header.
const ETHERNET_KINDS: [u32; 2] = [1, 772];

/// An interface of the agent's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Whether its packets start with an Ethernet header; else with the IP header.
    pub ethernet: bool,
    /// Whether it is the loopback device, which shows each packet leaving and arriving.
    pub loopback: bool,
}

impl Link {
    /// Finds an interface by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self> {
        let c_name = CString::new(name)?;
        // SAFETY: a NUL-terminated string.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(anyhow!("there is no interface {name:?}; `ip link` lists them"));
        }
        let read =
            |what: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/{what}")).unwrap_or_default();
        let kind: u32 = read("type").trim().parse().unwrap_or(1);
        Ok(Self {
            name: name.to_owned(),
            index,
            ethernet: ETHERNET_KINDS.contains(&kind),
            loopback: kind == 772,
        })
    }

    /// All interfaces that are up.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn all_up() -> Result<Vec<Self>> {
        let mut links = Vec::new();
        for entry in std::fs::read_dir("/sys/class/net")
            .context("list the interfaces")?
            .flatten()
        {
            let flags = std::fs::read_to_string(entry.path().join("flags")).unwrap_or_default();
            let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
            if flags & libc::IFF_UP.cast_unsigned() != 0
                && let Some(link) = entry.file_name().to_str().and_then(|name| Self::named(name).ok())
            {
                links.push(link);
            }
        }
        links.sort_by_key(|link| link.index);
        Ok(links)
    }
}

/// The packet programs on one interface; dropping it takes them off.
pub struct Tap {
    kernel: Arc<Kernel>,
    index: u32,
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
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Tap {
    /// Puts the packet programs on an interface.
    ///
    /// # Errors
    /// Names the interface and the step; nothing stays attached.
    pub fn attach(kernel: &Arc<Kernel>, link: &Link, journal: &Arc<Journal>) -> Result<Self> {
        let mut tap = Self {
            kernel: Arc::clone(kernel),
            index: link.index,
            attached: Vec::new(),
            journal: Arc::clone(journal),
        };
        let header = if link.ethernet { 14 } else { 0 };
        lock(&kernel.tap_links)
            .insert(link.index, header, 0)
            .context("note the interface's kind")?;
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
            let attached = attach_one(kernel, link, *direction, tcx, journal)
                .with_context(|| format!("attach the {direction:?} tap to {}", link.name))?;
            tap.attached.push(attached);
        }
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        for attached in self.attached.drain(..) {
            if let Attached::Netlink { link, journal, entry } = attached {
                drop(link);
                _ = journal.done(entry);
            }
        }
        clsact::release(self.index, &self.journal);
        _ = lock(&self.kernel.tap_links).remove(&self.index);
    }
}

fn attach_one(
    kernel: &Kernel,
    link: &Link,
    direction: Direction,
    tcx: bool,
    journal: &Arc<Journal>,
) -> Result<Attached> {
    let (name, attach_type) = match direction {
        Direction::Ingress => ("spike_tap_ingress", TcAttachType::Ingress),
        Direction::Egress => ("spike_tap_egress", TcAttachType::Egress),
    };
    let mut programs = lock(&kernel.programs);
    let Some(Program::SchedClassifier(program)) = programs.program_mut(name) else {
        return Err(anyhow!("kernel object has no program {name}"));
    };
    let program: &mut SchedClassifier = program;
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
        name: name.to_owned(),
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

impl Kernel {
    /// `hooks/tap --packets--> handle`, for as long as the agent runs.
    ///
    /// # Errors
    /// When they are already being read, or cannot be polled.
    pub fn read_packets(&self, handle: impl Fn(&PacketHeader, &[u8]) + Send + 'static) -> Result<()> {
        let ring = lock(&self.packets)
            .take()
            .context("the packets are already being read")?;
        // SAFETY: the ring owns its descriptor and keeps it until it is dropped.
        let mut ring = unsafe { AsyncFd::register(ring) }.context("poll the packets' ring buffer")?;
        tokio::spawn(async move {
            while let Ok(mut ready) = ring.readable_mut().await {
                let mut budget = 1024;
                while let Some(item) = ready.get_inner_mut().next() {
                    if let Some(header) = plain::<PacketHeader>(&item)
                        && let Some(bytes) = item.get(size_of::<PacketHeader>()..)
                    {
                        let length = bytes.len().min(header.captured as usize);
                        handle(&header, &bytes[..length]);
                    }
                    budget -= 1;
                    if budget == 0 {
                        drop(item);
                        break;
                    }
                }
                if budget == 0 {
                    // Still ready; let others run.
                    drop(ready);
                    tokio::task::yield_now().await;
                } else {
                    ready.clear_ready();
                }
            }
        });
        Ok(())
    }
}

/// Names of interfaces by index, for those who sort packets.
pub fn index_table(links: &[Link]) -> HashMap<u32, u32> {
    (0_u32..)
        .zip(links)
        .map(|(position, link)| (link.index, position))
        .collect()
}
