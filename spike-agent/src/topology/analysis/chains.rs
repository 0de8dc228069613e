//! Calls in a row, each of which waits for the next: how many, and where the time goes.

use std::collections::{BTreeSet, HashMap};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::{Context, finding, suggest, waits};
use crate::model::{
    human::micros,
    view::{FindingKind, FindingView, Severity},
};
use crate::topology::Link;

/// Chains that are told at most, each from another start.
const MOST: usize = 3;

pub(super) fn find(context: &Context<'_>) -> Vec<FindingView> {
    let mut findings = longest(context);
    findings.extend(slowest(context));
    findings
}

/// The links on which the caller waits, the busiest one between two services.
fn waiting<'a>(context: &Context<'a>) -> DiGraph<(), &'a Link> {
    let mut busiest: HashMap<(NodeIndex, NodeIndex), &'a Link> = HashMap::new();
    for (from, to, link) in context.links().filter(|(.., link)| waits(link)) {
        let known = busiest.entry((from, to)).or_insert(link);
        if link.counts.calls > known.counts.calls {
            *known = link;
        }
    }
    let mut graph = DiGraph::with_capacity(context.graph.net.node_count(), busiest.len());
    for _ in context.graph.net.node_indices() {
        graph.add_node(());
    }
    let mut pairs: Vec<_> = busiest.into_iter().collect();
    pairs.sort_by_key(|(pair, _)| *pair);
    for ((from, to), link) in pairs {
        graph.add_edge(from, to, link);
    }
    graph
}

fn longest(context: &Context<'_>) -> Vec<FindingView> {
    let graph = waiting(context);
    // Rings have no longest way; within one, no call is counted.
    let rings = tarjan_scc(&graph);
    let mut ring_of = vec![0; graph.node_count()];
    for (number, ring) in rings.iter().enumerate() {
        for node in ring {
            ring_of[node.index()] = number;
        }
    }
    // Tarjan gives a ring after all that it leads to: the calls in a row from each service on, and the next one.
    let mut further: Vec<(usize, Option<NodeIndex>)> = vec![(0, None); graph.node_count()];
    for ring in &rings {
        for node in ring {
            let steps = graph
                .neighbors(*node)
                .filter(|next| ring_of[next.index()] != ring_of[node.index()])
                .map(|next| (further[next.index()].0 + 1, Some(next)));
            further[node.index()] = steps.max().unwrap_or((0, None));
        }
    }
    let mut starts: Vec<NodeIndex> = context.entries.clone();
    starts.sort_by_key(|node| (usize::MAX - further[node.index()].0, node.index()));
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for start in starts {
        let length = further[start.index()].0;
        if length < context.input.thresholds.chain_length || findings.len() == MOST {
            break;
        }
        let mut path = vec![start];
        while let Some(next) = path.last().and_then(|node| further[node.index()].1) {
            path.push(next);
        }
        // Clients of the same chain are no other chain.
        if !seen.insert(path.get(1..).unwrap_or_default().to_vec()) {
            continue;
        }
        let links: Vec<&Link> = steps(&graph, &path);
        let names: Vec<String> = path.iter().map(|node| context.id(*node).to_owned()).collect();
        let p99 = links.first().and_then(|link| link.counts.latency.quantile(990));
        let mut found = finding(
            FindingKind::LongChain,
            Severity::Medium,
            format!("{length} calls in a row: {}", names.join(" -> ")),
            names,
            &[
                ("calls_in_a_row", length as f64),
                ("p99_us", p99.unwrap_or(0) as f64 / 1000.0),
            ],
        );
        found.edges = context.edge_ids(links.iter().copied());
        "Each adds its time, and the whole is available only when all are.".clone_into(&mut found.why);
        "Have the first ask the last itself, answer from a cache on the way, or make a step asynchronous; give each \
         call a time-out shorter than its caller's."
            .clone_into(&mut found.advice);
        found.test = links
            .last()
            .map_or_else(String::new, |link| suggest::latency(context, link, "500ms"));
        findings.push(found);
    }
    findings
}

fn slowest(context: &Context<'_>) -> Vec<FindingView> {
    let graph = waiting(context);
    let limit = context.input.thresholds.slow_chain.as_nanos();
    let mut findings = Vec::new();
    let mut starts: Vec<(u64, NodeIndex, NodeIndex)> = Vec::new();
    for entry in &context.entries {
        for edge in graph.edges(*entry) {
            let p99 = edge.weight().counts.latency.quantile(990).unwrap_or(0);
            if u128::from(p99) >= limit && edge.weight().counts.calls >= context.input.thresholds.least_calls
            {
                starts.push((p99, *entry, edge.target()));
            }
        }
    }
    starts.sort_by_key(|(p99, ..)| u64::MAX - p99);
    for (p99, entry, first) in starts.into_iter().take(MOST) {
        // From each service on to the one that it waits longest for.
        let mut path = vec![entry, first];
        while let Some(node) = path.last().copied() {
            let slowest = graph
                .edges(node)
                .filter(|edge| !path.contains(&edge.target()))
                .max_by_key(|edge| edge.weight().counts.latency_sum);
            let Some(edge) = slowest else { break };
            path.push(edge.target());
        }
        let links = steps(&graph, &path);
        let own: Vec<(NodeIndex, f64)> = path
            .iter()
            .skip(1)
            .map(|node| (*node, own_time(&graph, *node)))
            .collect();
        let Some((place, time)) = own.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)) else {
            continue;
        };
        let names: Vec<String> = path.iter().map(|node| context.id(*node).to_owned()).collect();
        let place = context.id(place).to_owned();
        let mut found = finding(
            FindingKind::SlowChain,
            Severity::Medium,
            format!(
                "{} takes {} (p99), most of it in {place}",
                names.join(" -> "),
                micros(p99 / 1000)
            ),
            names,
            &[("p99_us", p99 as f64 / 1000.0), ("own_time_us", time / 1000.0)],
        );
        found.edges = context.edge_ids(links.iter().copied());
        format!(
            "Whoever waits at the start waits for all of it; {place} itself takes {} of a call on average.",
            micros((time / 1000.0) as u64)
        )
        .clone_into(&mut found.why);
        format!("Make {place} faster, ask it less often, or answer without it after a time-out.")
            .clone_into(&mut found.advice);
        found.test = links
            .last()
            .map_or_else(String::new, |link| suggest::latency(context, link, "1s"));
        findings.push(found);
    }
    findings
}

/// The part of a call to a service, in nanoseconds, in which it waits for no other, as if it asked one after the other.
fn own_time(graph: &DiGraph<(), &Link>, node: NodeIndex) -> f64 {
    let sum = |direction| {
        let links = graph.edges_directed(node, direction);
        links.fold((0, 0), |(calls, time), edge| {
            let counts = &edge.weight().counts;
            (calls + counts.calls, time + counts.latency_sum)
        })
    };
    let (calls, time) = sum(petgraph::Direction::Incoming);
    let (_, waited) = sum(petgraph::Direction::Outgoing);
    (time as f64 - waited as f64).max(0.0) / (calls as f64).max(1.0)
}

fn steps<'a>(graph: &DiGraph<(), &'a Link>, path: &[NodeIndex]) -> Vec<&'a Link> {
    path.windows(2)
        .filter_map(|pair| graph.find_edge(pair[0], pair[1]))
        .map(|edge| graph[edge])
        .collect()
}
