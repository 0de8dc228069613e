//! Tells who is at the ends of a packet: process, service, container, names of addresses, and where they log TLS secrets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use spike_common::address::Endpoint;
use spike_common::packet::{FLOW_OWN, PacketHeader, TASK_KNOWN, TASK_SENDS, TASK_SERVES};
use spike_common::socket::{FlowKey, ServiceKey};
use spike_common::task::Task;

use super::Captures;
use crate::capture::record::{About, Party};
use crate::capture::secrets::{KeyLog, KeyLogId};

/// Digits of a container's id that are shown when it has no name, as Docker does.
const SHORT_ID: usize = 12;

/// What is remembered from one connection to the next.
#[derive(Debug, Default)]
pub(super) struct Who {
    key_logs: HashMap<KeyLogId, Weak<KeyLog>>,
    hostname: Option<String>,
}

impl Who {
    /// What is known of the packets of a flow.
    pub(super) fn about(
        &mut self,
        captures: &Captures,
        header: &PacketHeader,
        ends: Option<(SocketAddr, SocketAddr)>,
        secrets: bool,
    ) -> About {
        let Some((source, destination)) = ends else {
            return About::default();
        };
        let parts = &captures.parts;
        let netns = captures.netns(header.slot);
        let at = |endpoint: Endpoint| parts.kernel.service(&ServiceKey::new(netns, endpoint));
        let sends = header.flags & TASK_SENDS != 0;
        let owner = if header.flags & FLOW_OWN != 0 {
            let remote = if sends { destination } else { source };
            Some((None, at(remote.into())))
        } else if header.flags & TASK_KNOWN != 0 {
            let other = match header.flags & TASK_SERVES {
                0 => at(header.original),
                _ => None,
            };
            Some((Some(header.task), other))
        } else {
            None
        };
        let (sender, receiver) = match owner {
            Some((own, other)) if sends => (own, other),
            Some((own, other)) => (other, own),
            None => (at(source.into()), at(destination.into())),
        };
        let own_leg = (header.flags & FLOW_OWN != 0).then(|| Party {
            pid: std::process::id(),
            process: "spike".to_owned(),
            ..Party::default()
        });
        let party = |task: &Task| party(captures, task);
        let (mut from, mut to) = (sender.as_ref().map(party), receiver.as_ref().map(party));
        if own_leg.is_some() {
            if sends { from = own_leg } else { to = own_leg }
        }
        let mut about = About::new(from.as_ref(), to.as_ref());
        let shown_destination = if header.flags & TASK_KNOWN != 0 && sends {
            header.original.socket_addr().ip()
        } else {
            destination.ip()
        };
        let shown_source = if header.flags & TASK_KNOWN != 0 && !sends {
            header.original.socket_addr().ip()
        } else {
            source.ip()
        };
        for (address, party) in [(shown_source, &from), (shown_destination, &to)] {
            let name = self.name(captures, address, party.as_ref());
            let name = name.or_else(|| resolved(captures, netns, header, ends, address));
            if let Some(name) = name {
                about.names.push((address.to_canonical(), name));
            }
        }
        if secrets {
            for task in [sender, receiver].iter().flatten().filter(|task| task.tgid != 0) {
                about.key_logs.extend(self.key_log(task.tgid));
            }
        }
        about
    }

    /// The name of an address, where it has one of its own: an address of the host has many services.
    fn name(&mut self, captures: &Captures, address: IpAddr, party: Option<&Party>) -> Option<String> {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            return None;
        }
        if captures.is_own_address(address) {
            let hostname = self
                .hostname
                .get_or_insert_with(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
            return Some(hostname.clone());
        }
        let party = party?;
        Some(party.service.as_ref().unwrap_or(&party.process).clone())
    }

    /// Where a process logs its TLS secrets; the same for processes that log to the same file.
    fn key_log(&mut self, pid: u32) -> Option<Arc<KeyLog>> {
        let log = KeyLog::of(pid)?;
        let id = log.id()?;
        if let Some(known) = self.key_logs.get(&id).and_then(Weak::upgrade) {
            return Some(known);
        }
        self.key_logs.retain(|_, log| log.strong_count() > 0);
        let log = Arc::new(log);
        self.key_logs.insert(id, Arc::downgrade(&log));
        Some(log)
    }
}

fn party(captures: &Captures, task: &Task) -> Party {
    let service = captures.parts.services.of(task);
    let process = task.name().to_owned();
    let short = |id: &String| id.get(..SHORT_ID).unwrap_or(id).to_owned();
    Party {
        pid: task.tgid,
        service: Some(service.name.clone()).filter(|name| !name.is_empty() && *name != process),
        container: service
            .container
            .clone()
            .or_else(|| service.container_id.as_ref().map(short)),
        process,
    }
}

/// The name that led the caller to an address.
fn resolved(
    captures: &Captures,
    netns: u64,
    header: &PacketHeader,
    ends: Option<(SocketAddr, SocketAddr)>,
    address: IpAddr,
) -> Option<String> {
    let (source, destination) = ends?;
    if header.flags & TASK_KNOWN == 0
        || header.flags & TASK_SERVES != 0
        || header.original.socket_addr().ip() != address
        || address.to_canonical().is_loopback()
    {
        return None;
    }
    let (local, remote) = if header.flags & TASK_SENDS != 0 {
        (source, destination)
    } else {
        (destination, source)
    };
    let kernel = &captures.parts.kernel;
    let flow = kernel.flow(&FlowKey::new(netns, local.into(), remote.into()))?;
    let number = kernel.edge(flow.edge)?.name;
    let names = captures.calls.get()?.resolved_names();
    (number != 0)
        .then(|| names.get(number))
        .flatten()
        .map(|name| name.to_string())
}

impl Captures {
    /// The cookie of a namespace by its number.
    pub(super) fn netns(&self, slot: u32) -> u64 {
        if slot == 0 {
            return self.parts.kernel.own_netns();
        }
        let running = self.lock();
        let inode = running
            .slots
            .iter()
            .find(|(_, (number, _))| *number == slot)
            .map(|(inode, _)| *inode);
        let places = running
            .sessions
            .iter()
            .flat_map(|session| &session.links)
            .filter_map(|link| link.place.as_ref());
        let mut places = places.filter(|place| Some(place.inode) == inode);
        places.next().map_or(0, |place| place.cookie)
    }
}
