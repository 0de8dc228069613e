//! Series only grow and stay few, whatever the kernel side forgets and whoever calls.

use std::time::{Duration, Instant};

use super::{EdgeLedger, IDLE};
use crate::{
    export::{
        family::{Attribute, Family, Value},
        testing::edge,
    },
    protocol::Side,
};

/// The points of a metric: the values of an attribute, and theirs.
fn points(ledger: &EdgeLedger, metric: &str, attribute: &str) -> Vec<(String, u64)> {
    let family = family(ledger, metric);
    let mut points: Vec<(String, u64)> = family
        .points
        .iter()
        .map(|point| {
            let (_, value) = point
                .attributes
                .iter()
                .find(|(name, _)| *name == attribute)
                .unwrap();
            let Attribute::Text(name) = value else {
                panic!("{value:?}")
            };
            let count = match &point.value {
                Value::Count(count) => *count,
                Value::Histogram(histogram) => histogram.count(),
                Value::Float(_) => panic!("no count"),
            };
            (name.clone(), count)
        })
        .collect();
    points.sort();
    points
}

/// Five of each edge where they are told apart by reason.
fn most(family: &Family) -> usize {
    let by_reason = family.metric.name == "spike.connections.failed";
    if by_reason { 5 * 2001 } else { 2001 }
}

fn family(ledger: &EdgeLedger, metric: &str) -> Family {
    let families = ledger.families();
    let mut families = families.into_iter();
    families.find(|family| family.metric.name == metric).unwrap()
}

fn calls(ledger: &EdgeLedger) -> Vec<(String, u64)> {
    points(ledger, "spike.calls", "client")
}

fn told(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = expected.iter().map(|(name, count)| ((*name).to_owned(), *count));
    owned.collect()
}

#[test]
fn ten_thousand_edges_stay_in_bounds_and_nothing_is_lost() {
    let mut ledger = EdgeLedger::new(2000);
    let name = |id: u64| format!("client-{id}");
    let edges: Vec<_> = (1..=10_000).map(|id| edge(id, &name(id), "web", id)).collect();
    let total: u64 = (1..=10_000).sum();
    for round in 1..=3 {
        ledger.update(edges.clone(), Instant::now());
        for family in ledger.families() {
            assert!(
                family.points.len() <= most(&family),
                "{} in round {round}",
                family.metric.name
            );
        }
    }
    for metric in ["spike.calls", "traces_service_graph_request_server_seconds"] {
        let points = points(&ledger, metric, "client");
        assert_eq!(points.len(), 2001);
        assert_eq!(
            points.iter().map(|(_, count)| count).sum::<u64>(),
            total,
            "{metric}"
        );
        let other = points.iter().find(|(client, _)| client == "other").unwrap();
        assert_eq!(other.1, (1..=8000).sum::<u64>(), "those with least traffic");
    }
    let Value::Count(folded) = family(&ledger, "spike.edges.folded").points[0].value else {
        panic!("no count");
    };
    assert_eq!(folded, 8000);
}

#[test]
fn a_busy_newcomer_waits_for_an_idle_place_and_no_series_falls() {
    let mut ledger = EdgeLedger::new(2);
    let start = Instant::now();
    ledger.update(vec![edge(1, "a", "web", 5), edge(2, "b", "web", 4)], start);
    let later = start + Duration::from_secs(1);
    ledger.update(vec![edge(1, "a", "web", 6), edge(3, "c", "web", 900)], later);
    assert_eq!(calls(&ledger), told(&[("a", 6), ("b", 4), ("other", 900)]));
    let idle = start + IDLE + Duration::from_secs(5);
    ledger.update(vec![edge(1, "a", "web", 6), edge(3, "c", "web", 1000)], idle);
    assert_eq!(calls(&ledger), told(&[("a", 6), ("c", 100), ("other", 900)]));
}

#[test]
fn what_the_kernel_side_forgot_stays_counted() {
    let mut ledger = EdgeLedger::new(10);
    let now = Instant::now();
    ledger.update(vec![edge(1, "a", "web", 50)], now);
    ledger.update(vec![], now);
    assert_eq!(calls(&ledger), told(&[("a", 50)]));
    // Missed by one read of the table: not counted twice.
    ledger.update(vec![edge(1, "a", "web", 53)], now);
    assert_eq!(calls(&ledger), told(&[("a", 53)]));
    // Forgotten, and used again.
    ledger.update(vec![edge(1, "a", "web", 2)], now);
    assert_eq!(calls(&ledger), told(&[("a", 55)]));
}

#[test]
fn a_name_that_becomes_known_takes_over_from_then_on() {
    let mut ledger = EdgeLedger::new(10);
    let now = Instant::now();
    ledger.update(vec![edge(1, "10.0.0.7", "web", 3)], now);
    ledger.update(vec![edge(1, "shop", "web", 8)], now);
    assert_eq!(calls(&ledger), told(&[("10.0.0.7", 3), ("shop", 5)]));
    let open = points(&ledger, "spike.connections.open", "client");
    assert_eq!(open, told(&[("10.0.0.7", 0), ("shop", 1)]));
}

#[test]
fn the_service_graph_joins_ports_and_knows_both_ends() {
    let mut ledger = EdgeLedger::new(10);
    let mut second = edge(2, "shop", "web", 4);
    second.ends.port = 81;
    let mut remote = edge(3, "10.0.0.9", "web", 2);
    remote.ends.seen_at = Side::Server;
    let mut database = edge(4, "shop", "db", 1);
    database.protocol = "redis".to_owned();
    let edges = vec![edge(1, "shop", "web", 3), second, remote, database];
    ledger.update(edges, Instant::now());
    let graph = |metric: &str, attribute| points(&ledger, metric, attribute);
    assert_eq!(
        graph("traces_service_graph_request_total", "connection_type"),
        told(&[("", 7), ("database", 1), ("virtual_node", 2)])
    );
    assert_eq!(
        graph("traces_service_graph_request_client_seconds", "client"),
        told(&[("shop", 1), ("shop", 7)]),
        "not where the client was out of sight"
    );
    assert_eq!(
        graph("traces_service_graph_request_server_seconds", "client"),
        told(&[("10.0.0.9", 2), ("shop", 1), ("shop", 7)])
    );
}
