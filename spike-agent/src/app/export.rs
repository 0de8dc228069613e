//! Gives the exporter what the kernel side and the decoders have found out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use futures_util::stream::BoxStream;
use spike_common::counter::Counter;

use super::calls::Calls;
use crate::calls::Followed;
use crate::export::{EdgeCounts, Ends, ObservedEdge, Source};
use crate::kernel::Kernel;
use crate::model::view::{CounterView, DecodingView, EdgeView, Role};
use crate::protocol::Side;

/// The running agent.
pub(super) struct LiveSource {
    pub(super) kernel: Arc<Kernel>,
    pub(super) calls: Arc<Calls>,
}

impl Source for LiveSource {
    fn edges(&self) -> Result<Vec<ObservedEdge>> {
        let samples = self.kernel.edges()?;
        let decoded = self.calls.decoded(samples.iter().map(|sample| sample.id));
        let mut counts: HashMap<u64, EdgeCounts> = samples
            .iter()
            .map(|sample| {
                let decoded = decoded.get(&sample.id).copied().unwrap_or_default();
                (sample.id, EdgeCounts::new(&sample.stats.full(), &decoded))
            })
            .collect();
        let map = self.calls.draw(samples);
        let observed = map.edges.into_iter().filter_map(|edge| {
            let id = u64::from_str_radix(&edge.id, 16).ok()?;
            Some(ObservedEdge {
                id,
                counts: counts.remove(&id)?.open_now(edge.open),
                ends: ends(&edge),
                protocol: edge.protocol,
            })
        });
        Ok(observed.collect())
    }

    fn calls(&self) -> BoxStream<'static, Followed> {
        self.calls.feed()
    }

    fn decoding(&self) -> DecodingView {
        self.calls.view()
    }

    fn losses(&self) -> Vec<CounterView> {
        losses(&self.kernel, &Counter::ALL.map(|(counter, ..)| counter))
    }

    fn wall_clock(&self, monotonic_ns: u64) -> SystemTime {
        self.kernel.wall_clock(monotonic_ns)
    }
}

/// Counters of what was lost or let through.
pub(super) fn losses(kernel: &Kernel, counters: &[Counter]) -> Vec<CounterView> {
    let wanted = Counter::ALL
        .into_iter()
        .filter(|(counter, ..)| counters.contains(counter));
    let view = |(counter, name, description): (_, &str, &str)| CounterView {
        name: name.to_owned(),
        description: description.to_owned(),
        count: kernel.counter(counter),
    };
    wanted.map(view).collect()
}

fn ends(edge: &EdgeView) -> Ends {
    let unknown = || "unknown".to_owned();
    let client = match (&edge.caller, &edge.peer) {
        (Some(caller), _) => caller.service.clone(),
        (None, Some(peer)) => peer.clone(),
        (None, None) => unknown(),
    };
    let destination = &edge.destination;
    let address = destination.name.as_ref().unwrap_or(&destination.address);
    let process = destination.process.as_ref();
    let own = std::process::id();
    Ends {
        client,
        server: process.map_or(address, |process| &process.service).clone(),
        address: address.clone(),
        port: destination.port,
        seen_at: match edge.role {
            Role::Client => Side::Client,
            Role::Server => Side::Server,
        },
        server_is_here: process.is_some(),
        is_own: edge.caller.as_ref().is_some_and(|caller| caller.pid == own),
    }
}
