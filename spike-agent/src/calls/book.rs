//! What decoding has found out, by edge.

use std::collections::{BTreeMap, HashMap};

use crate::model::edge::MOST_EDGES;
use crate::protocol::{Call, Losses, ProtocolName};

/// What decoding has found out since the agent's start.
#[derive(Clone, Debug, Default)]
pub struct Book {
    edges: HashMap<u64, EdgeProtocol>,
    /// Samples that were dropped because too many connections were followed.
    pub not_followed: u64,
    /// Samples that were looked at.
    pub samples: u64,
}

/// What decoding has found out about an edge.
#[derive(Clone, Debug, Default)]
pub struct EdgeProtocol {
    /// Sampled connections by what they speak.
    connections: BTreeMap<ProtocolName, u64>,
    /// Calls that were decoded.
    pub calls: u64,
    /// Of these, the failed ones.
    pub failed: u64,
    /// What could not be decoded.
    pub losses: Losses,
}

impl EdgeProtocol {
    /// What most of its connections speak, if that is known.
    pub fn protocol(&self) -> Option<ProtocolName> {
        let most = self.connections.iter().max_by_key(|(_, count)| **count);
        most.map(|(name, _)| *name)
    }
}

impl Book {
    /// What is known of an edge.
    pub fn edge(&self, id: u64) -> Option<&EdgeProtocol> {
        self.edges.get(&id)
    }

    /// Forgets edges that are no more.
    pub fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.edges.retain(|id, _| is_there(*id));
    }

    pub(super) fn count(&mut self, edge: u64, call: &Call) {
        let Some(entry) = self.entry(edge) else { return };
        entry.calls += 1;
        entry.failed += u64::from(call.failed);
    }

    /// Takes in what a connection speaks and lost, beyond what it had told before.
    pub(super) fn learn(
        &mut self,
        edge: u64,
        before: (Option<ProtocolName>, Losses),
        now: (Option<ProtocolName>, Losses),
    ) {
        let Some(entry) = self.entry(edge) else { return };
        if let Some(name) = now.0
            && before.0 != now.0
        {
            *entry.connections.entry(name).or_default() += 1;
        }
        let (before, now) = (before.1, now.1);
        entry.losses.undecodable += now.undecodable - before.undecodable;
        entry.losses.bytes += now.bytes - before.bytes;
        entry.losses.resyncs += now.resyncs - before.resyncs;
        entry.losses.calls += now.calls - before.calls;
    }

    fn entry(&mut self, edge: u64) -> Option<&mut EdgeProtocol> {
        if self.edges.len() >= MOST_EDGES && !self.edges.contains_key(&edge) {
            return None;
        }
        Some(self.edges.entry(edge).or_default())
    }
}
