//! Draws the service map from what the kernel counted.

mod services;

pub use services::services;

use std::{cmp::Reverse, collections::HashMap, time::SystemTime};

use spike_common::{
    edge::{EdgeStats, Failure, SERVER, UDP},
    histogram::{BUCKETS, bounds},
    socket::ServiceKey,
    task::Task,
};

use crate::{
    identity::{Names, Processes, Services},
    model::edge::{Decoded, EdgeSample},
    model::view::{
        BucketView, DestinationView, EdgeDecodingView, EdgeView, EndView, FailuresView, LatencyView, MapView,
        Role,
    },
};

/// The map as of now: the edges that were used, those with most calls first and among equals the oldest.
///
/// `listeners` says who listens where. A client's edge names the process there; a server's edge is of that process,
/// and its caller is out of sight. `decoded` tells what was found out about an edge, by its number.
pub fn service_map(
    mut samples: Vec<EdgeSample>,
    listeners: &[(ServiceKey, Task)],
    who: &Who<'_>,
    decoded: impl Fn(u64) -> Option<Decoded>,
) -> MapView {
    samples.retain(|sample| sample.stats.opened > 0 || failures(&sample.stats) > 0);
    samples.sort_by_key(|sample| (Reverse(sample.stats.calls), sample.edge.since_ns, sample.id));
    who.services.learn_listeners(listeners);
    let listeners: HashMap<ServiceKey, Task> = listeners.iter().copied().collect();
    MapView {
        at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        edges: samples
            .iter()
            .map(|sample| edge_view(sample, &listeners, decoded(sample.id), who))
            .collect(),
        losses: Vec::new(),
    }
}

/// What is known of processes and addresses.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The processes of this host.
    pub processes: &'a Processes,
    /// The services that they are of.
    pub services: &'a Services,
    /// The names that were resolved on this host.
    pub names: &'a Names,
}

fn edge_view(
    sample: &EdgeSample,
    listeners: &HashMap<ServiceKey, Task>,
    decoded: Option<Decoded>,
    who: &Who<'_>,
) -> EdgeView {
    let EdgeSample { id, edge, stats } = sample;
    let local = end_view(&edge.task, who);
    let is_datagrams = edge.transport == UDP;
    let (role, caller, process) = if edge.role == SERVER {
        (Role::Server, None, Some(local))
    } else {
        // Who listens is noted for TCP alone.
        let listener = listeners
            .get(&ServiceKey::new(edge.netns, edge.destination))
            .filter(|_| !is_datagrams);
        (
            Role::Client,
            Some(local),
            listener.map(|task| end_view(task, who)),
        )
    };
    let protocol = decoded.as_ref().and_then(|decoded| decoded.protocol);
    let name = (edge.name != 0).then(|| who.names.get(edge.name)).flatten();
    EdgeView {
        id: format!("{id:016x}"),
        caller,
        peer: (edge.role == SERVER).then(|| edge.peer.address.ip().to_string()),
        destination: DestinationView {
            address: edge.destination.address.ip().to_string(),
            port: edge.destination.port,
            name: name.map(|name| name.to_string()),
            process,
        },
        role,
        protocol: protocol
            .unwrap_or(if is_datagrams { "udp" } else { "tcp" })
            .to_owned(),
        opened: stats.opened,
        failed: failures(stats),
        failures: failures_view(stats),
        reset: stats.reset,
        // The counts are read while they change, each by itself. A UDP socket's end is not seen.
        open: if is_datagrams {
            0
        } else {
            stats.opened.saturating_sub(stats.closed)
        },
        calls: stats.calls,
        bytes_out: stats.bytes_out,
        bytes_in: stats.bytes_in,
        latency: latency_view(stats),
        retransmits: stats.retransmits,
        rtt_us: (stats.rtt_count > 0).then(|| stats.rtt_sum / stats.rtt_count),
        decoding: decoded.map(|decoded| decoding_view(&decoded, stats)),
    }
}

fn failures(stats: &EdgeStats) -> u64 {
    stats.failed.iter().sum()
}

fn failures_view(stats: &EdgeStats) -> FailuresView {
    let count = |failure: Failure| stats.failed[failure as usize];
    FailuresView {
        refused: count(Failure::Refused),
        timed_out: count(Failure::TimedOut),
        unreachable: count(Failure::Unreachable),
        aborted: count(Failure::Aborted),
        other: count(Failure::Other),
    }
}

fn decoding_view(decoded: &Decoded, stats: &EdgeStats) -> EdgeDecodingView {
    let share = |part: u64, lost: u64| {
        if part + lost == 0 {
            1.0
        } else {
            part as f64 / (part + lost) as f64
        }
    };
    let lost_calls = decoded.lost_calls + decoded.undecodable;
    let confidence = share(stats.sampled, stats.unsampled) * share(decoded.calls, lost_calls);
    EdgeDecodingView {
        calls: decoded.calls,
        failed: decoded.failed,
        segments: stats.sampled,
        lost_segments: stats.unsampled,
        lost_calls: decoded.lost_calls,
        undecodable: decoded.undecodable,
        resyncs: decoded.resyncs,
        confidence_percent: (confidence * 1000.0).round() / 10.0,
    }
}

fn end_view(task: &Task, who: &Who<'_>) -> EndView {
    let service = who.services.of(task);
    let caller = who.processes.caller(task.tgid, task.cgroup, task.name());
    EndView {
        pid: caller.pid,
        name: caller.exe.rsplit('/').next().unwrap_or_default().to_owned(),
        service: service.name.clone(),
        kind: service.kind,
        executable: caller.exe,
        cgroup: caller.cgroup,
    }
}

/// Quantiles are the middles of the buckets that they fall into, within 3.2 % of the truth from 1 us to 68 s; the
/// maximum is the end of the highest bucket in use, at most 6.3 % above the truth. The mean is exact.
fn latency_view(stats: &EdgeStats) -> Option<LatencyView> {
    let count: u64 = stats.latency.iter().sum();
    let slowest = stats.latency.iter().rposition(|&count| count > 0)?;
    let quantile = |percent: u64| {
        let rank = (u128::from(count) * u128::from(percent)).div_ceil(100);
        let mut below = 0;
        let bucket = stats.latency.iter().position(|&count| {
            below += u128::from(count);
            below >= rank
        });
        let (low, high) = limits(bucket.unwrap_or(slowest));
        microseconds(low.midpoint(high))
    };
    let mean_us = microseconds(stats.latency_sum / count);
    Some(LatencyView {
        p50_us: quantile(50),
        p90_us: quantile(90),
        p99_us: quantile(99),
        // The last bucket has no end, so its values may be far above its start.
        max_us: microseconds(limits(slowest).1).max(mean_us),
        mean_us,
    })
}

/// The latencies of an edge: the buckets that are not empty, in order.
pub fn histogram(stats: &EdgeStats) -> Vec<BucketView> {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let buckets = stats.latency.iter().enumerate().filter(|(_, calls)| **calls > 0);
    buckets
        .map(|(bucket, &calls)| {
            let (low, high) = bounds(bucket);
            BucketView {
                from_us: microseconds(low),
                to_us: (bucket != BUCKETS - 1).then(|| microseconds(high)),
                calls,
            }
        })
        .collect()
}

/// The bounds of a bucket; those of the last one, which is open, are both its start.
fn limits(bucket: usize) -> (u64, u64) {
    let (low, high) = bounds(bucket);
    if bucket == BUCKETS - 1 {
        (low, low)
    } else {
        (low, high)
    }
}

fn microseconds(nanoseconds: u64) -> u64 {
    nanoseconds.saturating_add(500) / 1000
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use spike_common::{address::Endpoint, edge::CLIENT, histogram::bucket, task::padded};

    use spike_common::edge::Edge;

    use super::*;
    use crate::identity::{Cgroups, Engine};
    use crate::model::ServiceKind;

    fn stats(latencies_us: impl IntoIterator<Item = u64>) -> EdgeStats {
        let mut stats = EdgeStats {
            opened: 1,
            ..EdgeStats::default()
        };
        for latency in latencies_us {
            stats.calls += 1;
            stats.latency_sum += latency * 1000;
            stats.latency[bucket(latency * 1000) as usize] += 1;
        }
        stats
    }

    fn task(name: &str) -> Task {
        Task {
            executable: padded(name).unwrap(),
            ..Task::default()
        }
    }

    fn sample(id: u64, to: &str, stats: EdgeStats) -> EdgeSample {
        let destination = Endpoint::from(to.parse::<SocketAddr>().unwrap());
        let edge = Edge {
            netns: 7,
            task: task("curl"),
            destination,
            role: CLIENT,
            ..Edge::default()
        };
        EdgeSample { id, edge, stats }
    }

    fn map(samples: Vec<EdgeSample>, services: &[(ServiceKey, Task)]) -> MapView {
        let cgroups = Arc::new(Cgroups::new("/nowhere".into()));
        let processes = Processes::new(Arc::clone(&cgroups));
        let names = Services::new(cgroups, Vec::new(), Engine::absent());
        let who = Who {
            processes: &processes,
            services: &names,
            names: &Names::default(),
        };
        service_map(samples, services, &who, |_| None)
    }

    #[track_caller]
    fn assert_near(measured: u64, truth: u64) {
        let off = measured.abs_diff(truth) as f64 / truth as f64;
        assert!(off < 0.065, "{measured} is {off} off {truth}");
    }

    #[test]
    fn quantiles_are_those_of_the_calls() {
        let latency = latency_view(&stats(1..=10_000)).unwrap();
        assert_near(latency.p50_us, 5_000);
        assert_near(latency.p90_us, 9_000);
        assert_near(latency.p99_us, 9_900);
        assert_near(latency.max_us, 10_000);
        assert!(latency.max_us >= 10_000);
        assert_eq!(latency.mean_us, 5_001, "5000.5 rounded");
        let one = latency_view(&stats([200_000])).unwrap();
        assert_near(one.p50_us, 200_000);
        assert_eq!(
            (one.p50_us, one.p90_us, one.mean_us),
            (one.p99_us, one.p99_us, 200_000)
        );
        let rare = latency_view(&stats([100; 99].into_iter().chain([1_000_000]))).unwrap();
        assert_near(rare.p99_us, 100);
        assert_near(rare.max_us, 1_000_000);
    }

    #[test]
    fn no_call_has_no_latency_and_the_open_bucket_has_a_maximum() {
        assert_eq!(latency_view(&stats([])), None);
        let slow = latency_view(&stats([100_000_000])).unwrap();
        assert_eq!((slow.p50_us, slow.max_us), (68_719_477, 100_000_000));
    }

    #[test]
    fn the_busiest_edges_come_first_and_unused_ones_are_left_out() {
        let unused = EdgeStats::default();
        let failed = EdgeStats {
            failed: [1, 0, 1, 0, 0],
            ..EdgeStats::default()
        };
        let map = map(
            vec![
                sample(4, "10.0.0.1:1", failed),
                sample(3, "10.0.0.1:2", unused),
                sample(2, "10.0.0.1:3", failed),
                sample(1, "10.0.0.1:4", stats([5, 6])),
            ],
            &[],
        );
        let ids: Vec<&str> = map.edges.iter().map(|edge| edge.id.as_str()).collect();
        assert_eq!(ids, ["0000000000000001", "0000000000000002", "0000000000000004"]);
    }

    #[test]
    fn the_service_is_named_in_its_own_namespace() {
        let local = "127.0.0.1:80";
        let key =
            |netns, text: &str| ServiceKey::new(netns, Endpoint::from(text.parse::<SocketAddr>().unwrap()));
        let services = [
            (key(7, local), task("nginx")),
            (key(8, local), task("other")),
            (key(9, "10.0.0.1:80"), task("db")),
        ];
        let used = EdgeStats {
            opened: 3,
            closed: 1,
            ..EdgeStats::default()
        };
        let mut at_server = sample(3, local, used);
        at_server.edge.role = SERVER;
        let map = map(
            vec![sample(1, local, used), sample(2, "10.0.0.1:80", used), at_server],
            &services,
        );
        let name = |end: &Option<EndView>| {
            let end = end.as_ref()?;
            assert_eq!((&end.service, end.kind), (&end.name, ServiceKind::Executable));
            Some(end.name.clone())
        };
        let shown: Vec<_> = map
            .edges
            .iter()
            .map(|edge| {
                (
                    edge.role,
                    name(&edge.caller),
                    name(&edge.destination.process),
                    edge.open,
                )
            })
            .collect();
        let (curl, nginx, db) = (
            Some("curl".to_owned()),
            Some("nginx".to_owned()),
            Some("db".to_owned()),
        );
        assert_eq!(
            shown,
            [
                (Role::Client, curl.clone(), nginx, 2),
                (Role::Client, curl.clone(), db, 2),
                (Role::Server, None, curl, 2),
            ]
        );
        assert_eq!(map.edges[1].destination.address, "10.0.0.1");
    }
}
