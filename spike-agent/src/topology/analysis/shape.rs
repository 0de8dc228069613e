//! What the shape of the graph tells: rings, single points of failure, bridges, fan-out.

use std::collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry};

use petgraph::Direction;
use petgraph::algo::{articulation_points::articulation_points, bridges, dominators, tarjan_scc};
use petgraph::graph::{DiGraph, NodeIndex, UnGraph};
use petgraph::visit::EdgeRef;

use super::{Context, finding, list, matters, suggest};
use crate::model::{
    ServiceKind,
    view::{FindingKind, FindingView, Severity},
};

/// A bridge is worth a word when so many services are at each of its ends.
const BRIDGE_SIDE: usize = 3;

pub(super) fn find(context: &Context<'_>) -> Vec<FindingView> {
    let mut findings = cycles(context);
    findings.extend(single_points(context));
    findings.extend(bridges_of(context));
    findings.extend(fan_out(context));
    findings
}

fn cycles(context: &Context<'_>) -> Vec<FindingView> {
    let net = &context.graph.net;
    let rings = tarjan_scc(net);
    rings
        .into_iter()
        .filter(|ring| ring.len() > 1)
        .filter_map(|ring| {
            let path = shortest_ring(context, &ring.into_iter().collect())?;
            let steps: Vec<_> = path
                .iter()
                .zip(path.iter().cycle().skip(1))
                .filter_map(|(from, to)| {
                    let links = net.edges_connecting(*from, *to);
                    links.max_by_key(|edge| edge.weight().counts.calls)
                })
                .collect();
            let rates: Vec<f64> = steps.iter().map(|edge| context.rate(edge.weight())).collect();
            let thinnest = rates.iter().copied().fold(f64::INFINITY, f64::min);
            let names: Vec<String> = path.iter().map(|node| context.id(*node).to_owned()).collect();
            let shown = format!("{} -> {}", names.join(" -> "), names[0]);
            let mut found = finding(
                FindingKind::Cycle,
                Severity::Medium,
                format!("{shown} is a ring"),
                names,
                &[("services", path.len() as f64), ("least_calls_per_second", thinnest)],
            );
            found.edges = context.edge_ids(steps.iter().map(|edge| edge.weight()));
            "When one of them is slow all are, since each may wait for itself; they cannot be deployed or started one \
             after the other."
                .clone_into(&mut found.why);
            "Turn one call around into an event or a callback, or move what two of them share into a service below both."
                .clone_into(&mut found.advice);
            found.test = steps
                .first()
                .map_or_else(String::new, |edge| suggest::latency(context, edge.weight(), "1s"));
            Some(found)
        })
        .collect()
}

/// The shortest ring within services all of which reach each other.
fn shortest_ring(context: &Context<'_>, ring: &BTreeSet<NodeIndex>) -> Option<Vec<NodeIndex>> {
    let net = &context.graph.net;
    let from = |start: NodeIndex| {
        let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for next in net
                .neighbors(node)
                .filter(|next| ring.contains(next) && *next != node)
            {
                if next == start {
                    let mut path = vec![node];
                    while let Some(before) = came_from.get(path.last()?) {
                        path.push(*before);
                    }
                    path.reverse();
                    return Some(path);
                }
                if let Entry::Vacant(entry) = came_from.entry(next) {
                    entry.insert(node);
                    queue.push_back(next);
                }
            }
        }
        None
    };
    // Of a very large ring any way around tells enough.
    ring.iter()
        .take(100)
        .filter_map(|start| from(*start))
        .min_by_key(Vec::len)
}

fn single_points(context: &Context<'_>) -> Vec<FindingView> {
    let net = &context.graph.net;
    let thresholds = context.input.thresholds;
    let dominated = dominated(context);
    let (undirected, _) = undirected(context);
    let articulations = articulation_points(&undirected);
    let entries: BTreeSet<NodeIndex> = context.entries.iter().copied().collect();
    let mut findings = Vec::new();
    for node in net.node_indices() {
        let service = &net[node];
        if service.kind == ServiceKind::External || service.instances.len() != 1 || entries.contains(&node) {
            continue;
        }
        let to_it: Vec<_> = net
            .edges_directed(node, Direction::Incoming)
            .filter(|edge| edge.source() != node)
            .collect();
        let callers: BTreeSet<NodeIndex> = to_it
            .iter()
            .filter(|edge| matters(edge.weight()))
            .map(EdgeRef::source)
            .collect();
        let behind = dominated.get(&node).map_or(&[][..], Vec::as_slice);
        let is_shared = callers.len() >= thresholds.shared_by;
        if behind.len() < thresholds.cut_off && !is_shared {
            continue;
        }
        let names: Vec<String> = behind.iter().map(|node| context.id(*node).to_owned()).collect();
        let callers: Vec<String> = callers.iter().map(|node| context.id(*node).to_owned()).collect();
        let id = &service.id;
        let title = if behind.len() >= thresholds.cut_off {
            format!(
                "{id} is a single point of failure: {} are reached through it alone",
                list(&names)
            )
        } else {
            format!(
                "{id} is a single point of failure: {} all call its one instance",
                list(&callers)
            )
        };
        let large = behind.len() * 2 >= net.node_count().saturating_sub(context.entries.len());
        let mut found = finding(
            FindingKind::SinglePointOfFailure,
            if large && !behind.is_empty() {
                Severity::High
            } else {
                Severity::Medium
            },
            title,
            [vec![id.clone()], names].concat(),
            &[
                ("instances", 1.0),
                ("callers", callers.len() as f64),
                ("reached_through_it_alone", behind.len() as f64),
                (
                    "splits_the_map",
                    f64::from(u8::from(articulations.contains(&NodeIndex::new(node.index())))),
                ),
                (
                    "calls_per_second",
                    context.calls_in[node.index()] as f64 / context.graph.seconds,
                ),
            ],
        );
        let to_it: Vec<_> = to_it.iter().map(EdgeRef::weight).collect();
        found.edges = context.edge_ids(to_it.iter().copied());
        "It has one instance: when that stops, so does everything that needs it.".clone_into(&mut found.why);
        "Run a second instance behind the same name, or let its callers do without it for a while."
            .clone_into(&mut found.advice);
        found.test = suggest::refuse(context, &to_it);
        findings.push(found);
    }
    findings
}

/// For each service, those that cannot be reached but through it.
fn dominated(context: &Context<'_>) -> HashMap<NodeIndex, Vec<NodeIndex>> {
    let net = &context.graph.net;
    let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(net.node_count() + 1, net.edge_count());
    for _ in net.node_indices() {
        graph.add_node(());
    }
    let root = graph.add_node(());
    for (from, to, link) in context.links() {
        if matters(link) {
            graph.add_edge(from, to, ());
        }
    }
    for entry in &context.entries {
        graph.add_edge(root, *entry, ());
    }
    let tree = dominators::simple_fast(&graph, root);
    let mut dominated: HashMap<NodeIndex, Vec<NodeIndex>> = HashMap::new();
    for node in net.node_indices() {
        for above in tree.strict_dominators(node).into_iter().flatten() {
            if above != root {
                dominated.entry(above).or_default().push(node);
            }
        }
    }
    dominated
}

/// The same graph with one plain edge for all links between two services, and without what does not matter.
fn undirected(context: &Context<'_>) -> (UnGraph<(), ()>, BTreeSet<(NodeIndex, NodeIndex)>) {
    let mut graph = UnGraph::with_capacity(context.graph.net.node_count(), context.graph.net.edge_count());
    for _ in context.graph.net.node_indices() {
        graph.add_node(());
    }
    let pairs: BTreeSet<(NodeIndex, NodeIndex)> = context
        .links()
        .filter(|(.., link)| matters(link))
        .map(|(from, to, _)| (from.min(to), from.max(to)))
        .collect();
    for (from, to) in &pairs {
        graph.add_edge(*from, *to, ());
    }
    (graph, pairs)
}

/// How many services there are on either side of a bridge.
struct Sides {
    /// The node that each was reached from, in a walk over all; its own for the first of its part.
    came_from: Vec<NodeIndex>,
    /// How many were reached from each, with itself: a bridge is a step of any such walk.
    below: Vec<usize>,
    /// The first of each one's part.
    first: Vec<NodeIndex>,
}

impl Sides {
    fn new(graph: &UnGraph<(), ()>) -> Self {
        let mut came_from = vec![NodeIndex::end(); graph.node_count()];
        let mut first = came_from.clone();
        let mut order = Vec::with_capacity(graph.node_count());
        for start in graph.node_indices() {
            if came_from[start.index()] != NodeIndex::end() {
                continue;
            }
            came_from[start.index()] = start;
            let mut stack = vec![start];
            while let Some(node) = stack.pop() {
                order.push(node);
                first[node.index()] = start;
                for next in graph.neighbors(node) {
                    if came_from[next.index()] == NodeIndex::end() {
                        came_from[next.index()] = node;
                        stack.push(next);
                    }
                }
            }
        }
        let mut below = vec![1; graph.node_count()];
        for node in order.into_iter().rev() {
            let before = came_from[node.index()];
            if before != node {
                below[before.index()] += below[node.index()];
            }
        }
        Self {
            came_from,
            below,
            first,
        }
    }

    /// On the side of `a`, and on that of `b`, of the bridge between them.
    fn of(&self, a: NodeIndex, b: NodeIndex) -> (usize, usize) {
        let all = self.below[self.first[a.index()].index()];
        if self.came_from[b.index()] == a {
            let below = self.below[b.index()];
            (all - below, below)
        } else {
            let below = self.below[a.index()];
            (below, all - below)
        }
    }
}

fn bridges_of(context: &Context<'_>) -> Vec<FindingView> {
    let (graph, _) = undirected(context);
    let sides = Sides::new(&graph);
    let mut findings = Vec::new();
    for bridge in bridges(&graph) {
        let (a, b) = (bridge.source(), bridge.target());
        let (left, right) = sides.of(a, b);
        if left.min(right) < BRIDGE_SIDE {
            continue;
        }
        let net = &context.graph.net;
        let links: Vec<_> = net
            .edges_connecting(a, b)
            .chain(net.edges_connecting(b, a))
            .collect();
        let Some(first) = links.first() else {
            continue;
        };
        let (from, to) = (
            context.id(first.source()).to_owned(),
            context.id(first.target()).to_owned(),
        );
        let mut found = finding(
            FindingKind::Bridge,
            Severity::Low,
            format!("{from} -> {to} is the only link between {left} services and {right} others"),
            vec![from, to],
            &[
                ("services_on_one_side", left as f64),
                ("services_on_the_other", right as f64),
            ],
        );
        let links: Vec<_> = links.iter().map(EdgeRef::weight).collect();
        found.edges = context.edge_ids(links.iter().copied());
        "What breaks or slows this link divides the system.".clone_into(&mut found.why);
        "See what each side does without the other: time-outs, a queue, a cached answer."
            .clone_into(&mut found.advice);
        found.test = suggest::refuse(context, &links);
        findings.push(found);
    }
    findings
}

fn fan_out(context: &Context<'_>) -> Vec<FindingView> {
    let net = &context.graph.net;
    let mut findings = Vec::new();
    for node in net.node_indices() {
        let links: Vec<_> = net
            .edges(node)
            .filter(|edge| edge.target() != node && matters(edge.weight()))
            .collect();
        let called: BTreeSet<NodeIndex> = links.iter().map(|edge| edge.target()).collect();
        if called.len() < context.input.thresholds.fan_out {
            continue;
        }
        let names: Vec<String> = called.iter().map(|node| context.id(*node).to_owned()).collect();
        let id = context.id(node).to_owned();
        let rate: f64 = links.iter().map(|edge| context.rate(edge.weight())).sum();
        let mut found = finding(
            FindingKind::FanOut,
            Severity::Medium,
            format!("{id} calls {} services", called.len()),
            [vec![id], names].concat(),
            &[("services", called.len() as f64), ("calls_per_second", rate)],
        );
        found.edges = context.edge_ids(links.iter().map(|edge| edge.weight()));
        "It is as slow as the slowest of them and as available as all of them together."
            .clone_into(&mut found.why);
        "Ask in parallel, with a time-out for each and an answer that can do without; or divide it."
            .clone_into(&mut found.advice);
        found.test = links
            .iter()
            .max_by_key(|edge| edge.weight().counts.calls)
            .map_or_else(String::new, |edge| suggest::latency(context, edge.weight(), "1s"));
        findings.push(found);
    }
    findings
}
