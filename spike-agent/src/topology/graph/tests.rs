//! Maps that are made up, for tests here and of what reads them.

use super::*;
use crate::model::view::DestinationView;
use crate::topology::DecodedCounts;

/// A service with a process of its own; what begins with a digit is an address elsewhere.
fn end(name: &str) -> Option<EndView> {
    let (service, instance) = name.split_once('#').unwrap_or((name, "1"));
    let is_here = !name.starts_with(|first: char| first.is_ascii_digit());
    let seed = service.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte)) % 60_000
    });
    is_here.then(|| EndView {
        pid: 100 + seed * 10 + instance.parse::<u32>().unwrap_or(1),
        executable: format!("/usr/bin/{service}"),
        name: service.to_owned(),
        service: service.to_owned(),
        kind: ServiceKind::Executable,
        cgroup: format!("/{service}/{instance}"),
    })
}

/// A flow such as `a -> b`, `a -> b#2` for b's second instance, with so many calls of so many microseconds.
pub(in crate::topology) fn flow(from: &str, to: &str, protocol: &str, calls: u64, micros: u64) -> Flow {
    let (caller, process) = (end(from), end(to));
    let port = 1000 + u16::try_from(process.as_ref().map_or(80, |end| end.pid % 50_000)).unwrap_or(0);
    let id = format!("{from}{to}{protocol}").bytes().fold(11_u64, |sum, byte| {
        sum.wrapping_mul(1_099_511_628_211) ^ u64::from(byte)
    });
    let mut latency = spike_common::edge::EdgeStats::default();
    latency.latency[spike_common::histogram::bucket(micros * 1000) as usize] = calls;
    let counts = Counts {
        opened: 1,
        open: 1,
        calls,
        bytes_out: calls * 100,
        bytes_in: calls * 200,
        latency_sum: calls * micros * 1000,
        latency: (&latency).into(),
        decoded: Some(DecodedCounts {
            calls,
            segments: calls * 2,
            ..DecodedCounts::default()
        }),
        ..Counts::default()
    };
    let mut view = EdgeView {
        id: format!("{id:016x}"),
        peer: caller.is_none().then(|| from.to_owned()),
        caller,
        destination: DestinationView {
            address: if process.is_some() { "127.0.0.1" } else { to }.to_owned(),
            port,
            name: None,
            process,
        },
        protocol: protocol.to_owned(),
        ..EdgeView::default()
    };
    counts.fill(&mut view);
    Flow {
        id,
        view,
        counts,
        ..Flow::default()
    }
}

/// Flows observed for 100 s.
pub(in crate::topology) fn observed(flows: Vec<Flow>) -> Observed {
    Observed {
        from: SystemTime::UNIX_EPOCH,
        to: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
        flows,
        ..Observed::default()
    }
}

fn shop() -> Observed {
    observed(vec![
        flow("web", "cart", "http", 100, 2_000),
        flow("web#2", "cart#2", "http", 300, 2_000),
        flow("cart", "redis", "redis", 500, 100),
        flow("cart", "10.0.0.9", "tcp", 50, 100),
    ])
}

#[test]
fn services_are_joined_and_processes_are_not() {
    let shop = shop();
    let view = |group| Graph::new(&shop, group, "here").view(&shop, group, |_| true);
    let services = view(Group::Service);
    let names: Vec<(&str, u64)> = services
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node.instances))
        .collect();
    assert_eq!(names, [("10.0.0.9", 1), ("cart", 2), ("redis", 1), ("web", 0)]);
    let edges: Vec<(&str, &str, u64, f64, usize)> = services
        .edges
        .iter()
        .map(|edge| (&*edge.from, &*edge.to, edge.calls, edge.rate, edge.edges.len()))
        .collect();
    assert_eq!(
        edges,
        [
            ("cart", "redis", 500, 5.0, 1),
            ("web", "cart", 400, 4.0, 2),
            ("cart", "10.0.0.9", 50, 0.5, 1),
        ]
    );
    assert_eq!(services.edges[1].open, 2);
    let latency = services.edges[1].latency.unwrap();
    assert!((1_900..2_100).contains(&latency.p50_us), "{latency:?}");
    assert_eq!(services.nodes[1].rate_in, 4.0);
    assert_eq!(services.nodes[1].rate_out, 5.5);

    let processes = view(Group::Process);
    assert_eq!((processes.nodes.len(), processes.edges.len()), (6, 4));
    assert!(
        processes.nodes[1].id.starts_with("cart["),
        "{:?}",
        processes.nodes[1]
    );
    let hosts = view(Group::Host);
    let ids: Vec<&str> = hosts.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["10.0.0.9", "here"]);
    assert_eq!(hosts.edges[0].from, hosts.edges[0].to);
}

#[test]
fn edges_that_are_not_kept_take_their_nodes_along() {
    let shop = shop();
    let graph = Graph::new(&shop, Group::Service, "here");
    let view = graph.view(&shop, Group::Service, |link| link.protocol == "redis");
    let ids: Vec<&str> = view.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!((ids, view.edges.len()), (vec!["cart", "redis"], 1));
}

#[test]
fn two_of_one_name_are_told_apart() {
    let mut other = flow("web", "redis", "redis", 1, 1);
    other.view.destination.process.as_mut().unwrap().kind = ServiceKind::Container;
    let both = observed(vec![flow("web", "redis", "redis", 1, 1), other]);
    let graph = Graph::new(&both, Group::Service, "here");
    assert!(graph.find("redis (container)").is_some());
    assert!(graph.find("redis (executable)").is_some());
    assert_eq!(graph.find("redis"), None, "which?");
    assert!(graph.find("web").is_some());
}
