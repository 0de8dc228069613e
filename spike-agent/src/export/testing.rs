//! Edges and calls for the tests, and an agent that has seen them.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, stream::BoxStream};
use spike_common::{edge::EdgeStats, histogram::bucket};

use super::{EdgeCounts, Ends, Host, ObservedEdge, Source};
use crate::{
    calls::{EdgeCall, Followed},
    model::{
        edge::Decoded,
        view::{CounterView, DecodingView},
    },
    protocol::{Call, Details, Place, ProtocolName, Side},
};

pub(super) fn ends(client: &str, server: &str) -> Ends {
    Ends {
        client: client.to_owned(),
        server: server.to_owned(),
        address: "10.0.0.1".to_owned(),
        port: 80,
        seen_at: Side::Client,
        server_is_here: true,
        is_own: false,
    }
}

/// An edge with so many calls of 1 ms and 100 bytes each way, on one connection that is open.
pub(super) fn edge(id: u64, client: &str, server: &str, calls: u64) -> ObservedEdge {
    let mut stats = EdgeStats {
        opened: 1,
        calls,
        bytes_out: calls * 100,
        bytes_in: calls * 100,
        latency_sum: calls * 1_000_000,
        ..EdgeStats::default()
    };
    stats.latency[bucket(1_000_000) as usize] = calls;
    ObservedEdge {
        id,
        ends: ends(client, server),
        protocol: "http".to_owned(),
        counts: EdgeCounts::new(&stats, &Decoded::default()).open_now(1),
    }
}

/// A call that took 20 ms, from 1 s after the clock's start.
pub(super) fn call(protocol: ProtocolName, operation: &str, target: &str, status: Option<&str>) -> Call {
    Call {
        protocol,
        from: Side::Client,
        operation: operation.to_owned(),
        target: target.to_owned(),
        status: status.map(str::to_owned),
        failed: false,
        started_ns: 1_000_000_000,
        sent_ns: Some(1_000_001_000),
        first_byte_ns: Some(1_010_000_000),
        ended_ns: 1_020_000_000,
        request_bytes: 100,
        response_bytes: 200,
        complete: true,
        trace: None,
        details: Details::default(),
        place: Place::default(),
    }
}

pub(super) fn host() -> Host {
    Host {
        name: "host-1".to_owned(),
        agent: "00000000000000ab".to_owned(),
        kernel: "6.1.0".to_owned(),
    }
}

/// What it is given; the calls come once.
#[derive(Default)]
pub(super) struct TestSource {
    pub(super) edges: Mutex<Vec<ObservedEdge>>,
    pub(super) calls: Mutex<Vec<EdgeCall>>,
}

impl Source for TestSource {
    fn edges(&self) -> anyhow::Result<Vec<ObservedEdge>> {
        Ok(self.edges.lock().unwrap().clone())
    }

    fn calls(&self) -> BoxStream<'static, Followed> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let calls = calls.into_iter().map(|call| Followed::Call(call.into()));
        futures_util::stream::iter(calls)
            .chain(futures_util::stream::pending())
            .boxed()
    }

    fn decoding(&self) -> DecodingView {
        DecodingView {
            budget_percent: 5.0,
            sampled_percent: 100.0,
            segments: 7,
            ..DecodingView::default()
        }
    }

    fn losses(&self) -> Vec<CounterView> {
        vec![CounterView {
            name: "map_full".to_owned(),
            description: "no room".to_owned(),
            count: 3,
        }]
    }

    fn wall_clock(&self, monotonic_ns: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_nanos(monotonic_ns)
    }
}
