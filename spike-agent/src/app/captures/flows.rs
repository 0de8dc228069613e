//! What was decided for the packets of one direction of a connection, so that it is decided once and not for each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use spike_common::packet::{FLOW_OWN, FLOW_REDIRECTED, PacketHeader, TASK_KNOWN, TASK_SENDS, TASK_SERVES};

use crate::capture::record::About;

/// Bounds the memory; then all is decided anew.
const MOST: usize = 32_768;
/// Nanoseconds for which a decision holds: a process may become another program, a container may get its name.
const HOLDS_NS: u64 = 2_000_000_000;

/// What packets have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowId {
    link: u64,
    ends: Option<(SocketAddr, SocketAddr)>,
    flags: u32,
    tgid: u32,
    cookie: u64,
}

impl FlowId {
    pub(super) fn new(header: &PacketHeader, link: u64, ends: Option<(SocketAddr, SocketAddr)>) -> Self {
        const SAME: u32 = FLOW_OWN | FLOW_REDIRECTED | TASK_KNOWN | TASK_SENDS | TASK_SERVES;
        Self {
            link,
            ends,
            flags: header.flags & SAME,
            tgid: header.task.tgid,
            cookie: header.cookie,
        }
    }
}

/// What was decided.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) at_ns: u64,
    /// Captures by their place in the reader's list, and the interface's position in each.
    pub(super) chosen: Arc<[(usize, u32)]>,
    pub(super) about: Arc<About>,
}

/// The latest decisions.
#[derive(Debug, Default)]
pub(super) struct Flows(HashMap<FlowId, Decision>);

impl Flows {
    /// What was decided, if that still holds.
    pub(super) fn get(&self, id: &FlowId, now_ns: u64) -> Option<Decision> {
        let decision = self.0.get(id)?;
        (now_ns.saturating_sub(decision.at_ns) < HOLDS_NS).then(|| decision.clone())
    }

    /// What was known before of a flow, although it may not hold any more.
    pub(super) fn before(&self, id: &FlowId) -> Option<Arc<About>> {
        self.0.get(id).map(|decision| Arc::clone(&decision.about))
    }

    pub(super) fn put(&mut self, id: FlowId, decision: Decision) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(id, decision);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
