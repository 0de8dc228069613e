//! Draws the service map from what the kernel counted.

mod analysis;
mod counts;
mod diff;
mod graph;
mod history;
mod latency;
mod recent;
mod recorder;
mod render;
mod services;

pub use analysis::{Input as AnalysisInput, analyze};
pub use counts::{Counts, DecodedCounts};
pub use diff::{StepCalls, diff};
pub use graph::{Flow, Graph, Link, Node, Observed, link_of_flow};
pub use history::{History, HistoryError, Step};
use latency::latency_view;
pub use latency::{Histogram, histogram};
pub use recent::{Facts, Recent, RecentCall};
pub use recorder::Recorder;
pub use render::{Format as DrawFormat, render};
pub use services::services;

use std::{cmp::Reverse, collections::HashMap, time::SystemTime};

use spike_common::{
    edge::{EdgeStats, Failure, SERVER, UDP},
    socket::ServiceKey,
    task::Task,
};

use crate::{
    identity::{Names, Processes, Services},
    model::edge::{Counted, Decoded, EdgeSample},
    model::view::{DestinationView, EdgeDecodingView, EdgeView, EndView, FailuresView, MapView, Role},
};

/// The map as of now: the edges that were used, those with most calls first and among equals the oldest.
///
/// `listeners` says who listens where. A client's edge names the process there; a server's edge is of that process,
/// and its caller is out of sight. `decoded` tells what was found out about an edge, by its number.
pub fn service_map(
    samples: Vec<EdgeSample>,
    listeners: &[(ServiceKey, Task)],
    who: &Who<'_>,
    decoded: impl Fn(u64) -> Option<Decoded>,
) -> MapView {
    MapView {
        at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        edges: draw(samples, listeners, who, decoded, |_, _, view| view),
        losses: Vec::new(),
    }
}

/// The edges of [`service_map`] with what happened on them since they are there.
pub fn flows(
    samples: Vec<EdgeSample>,
    listeners: &[(ServiceKey, Task)],
    who: &Who<'_>,
    decoded: impl Fn(u64) -> Option<Decoded>,
) -> Vec<Flow> {
    draw(samples, listeners, who, decoded, |sample, decoded, view| Flow {
        id: sample.id,
        counts: Counts {
            open: view.open,
            ..Counts::new(&sample.stats.full(), decoded.as_ref())
        },
        view,
        counted: Counted {
            stats: sample.stats,
            decoded,
        },
    })
}

fn draw<T>(
    samples: Vec<EdgeSample>,
    listeners: &[(ServiceKey, Task)],
    who: &Who<'_>,
    decoded: impl Fn(u64) -> Option<Decoded>,
    make: impl Fn(EdgeSample, Option<Decoded>, EdgeView) -> T,
) -> Vec<T> {
    let in_order = samples.into_iter().filter_map(|sample| {
        let stats = sample.stats.full();
        let is_used = stats.opened > 0 || failures(&stats) > 0;
        is_used.then_some((Reverse(stats.calls), sample.edge.since_ns, sample))
    });
    let mut in_order: Vec<_> = in_order.collect();
    in_order.sort_by_key(|(calls, since, sample)| (*calls, *since, sample.id));
    who.services.learn_listeners(listeners);
    let listeners: HashMap<ServiceKey, Task> = listeners.iter().copied().collect();
    // One process has many edges, and to look at it takes longer than to draw them.
    let mut seen: HashMap<Task, EndView> = HashMap::new();
    let mut end = |task: &Task| seen.entry(*task).or_insert_with(|| end_view(task, who)).clone();
    let made = in_order.into_iter().map(|(.., sample)| {
        let decoded = decoded(sample.id);
        let view = edge_view(&sample, &listeners, decoded, who.names, &mut end);
        make(sample, decoded, view)
    });
    made.collect()
}

/// Whether what an edge speaks is not known: it is named by its transport.
pub fn is_transport(protocol: &str) -> bool {
    matches!(protocol, "tcp" | "udp")
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
    names: &Names,
    end: &mut impl FnMut(&Task) -> EndView,
) -> EdgeView {
    let EdgeSample { id, edge, stats } = sample;
    let stats = &stats.full();
    let local = end(&edge.task);
    let is_datagrams = edge.transport == UDP;
    let (role, caller, process) = if edge.role == SERVER {
        (Role::Server, None, Some(local))
    } else {
        // Who listens is noted for TCP alone.
        let listener = listeners
            .get(&ServiceKey::new(edge.netns, edge.destination))
            .filter(|_| !is_datagrams);
        (Role::Client, Some(local), listener.map(end))
    };
    let protocol = decoded.as_ref().and_then(|decoded| decoded.protocol);
    let name = (edge.name != 0).then(|| names.get(edge.name)).flatten();
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

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use spike_common::{address::Endpoint, edge::CLIENT, histogram::bucket, task::padded};

    use spike_common::edge::Edge;

    use super::*;
    use crate::identity::{Cgroups, Engine};
    use crate::model::ServiceKind;
    use crate::model::edge::Compact;

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
        let stats = Compact::from(&stats);
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
