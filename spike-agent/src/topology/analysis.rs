//! Finds what is wrong with the architecture: pure functions over the map of a stretch of time.
//!
//! Each rule looks at the graph of services, at the edges behind it or at single calls, and tells what, where, the
//! numbers, why it matters and what to try. What asks nothing of the services, such as a query for a name, is left out
//! where it would only make noise.

mod calls;
mod chains;
mod costs;
mod shape;
mod suggest;
#[cfg(test)]
mod tests;
mod without;

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

use super::{Facts, Flow, Graph, Link, Observed, RecentCall};
use crate::model::{
    Thresholds,
    view::{AnalysisView, FindingKind, FindingView, Group, Severity},
};

/// Ids of edges that a finding names at most.
const MOST_EDGES: usize = 50;
/// Protocols in which the caller does not wait for the work to be done.
const NOT_WAITING: [&str; 5] = ["kafka", "amqp", "nats", "mqtt", "udp"];

/// What is looked at.
#[derive(Debug)]
pub struct Input<'a> {
    /// The map of a stretch of time.
    pub observed: &'a Observed,
    /// Calls that were decoded in it.
    pub recent: &'a [RecentCall],
    /// What calls have told of their edges, in it or before.
    pub facts: &'a BTreeMap<u64, Facts>,
    /// When something is a finding.
    pub thresholds: &'a Thresholds,
    /// For what is to come.
    pub now: SystemTime,
}

/// What the rules share.
struct Context<'a> {
    input: &'a Input<'a>,
    graph: &'a Graph,
    /// Calls that come in to each service, without those from itself.
    calls_in: Vec<u64>,
    /// Services that nobody calls: where the work comes from.
    entries: Vec<NodeIndex>,
}

/// Looks at everything; with `without`, the name of a service, also at what would be without it.
///
/// # Errors
/// When there is no such service, with the names that there are.
pub fn analyze(input: &Input<'_>, without: Option<&str>) -> Result<AnalysisView, String> {
    let graph = Graph::new(input.observed, Group::Service, "");
    let context = Context::new(input, &graph);
    let without = without.map(|name| without::without(&context, name)).transpose()?;
    let mut findings = shape::find(&context);
    findings.extend(chains::find(&context));
    let by_call = calls::find(&context);
    findings.extend(costs::find(&context, &by_call));
    findings.extend(by_call);
    findings.sort_by(|a, b| {
        let by_kind = (a.severity, a.kind).cmp(&(b.severity, b.kind));
        by_kind.then_with(|| a.services.cmp(&b.services))
    });
    Ok(AnalysisView {
        from: humantime::format_rfc3339_millis(input.observed.from).to_string(),
        to: humantime::format_rfc3339_millis(input.observed.to).to_string(),
        services: graph.net.node_count() as u64,
        edges: graph.net.edge_count() as u64,
        calls: input.recent.len() as u64,
        findings,
        without,
    })
}

impl<'a> Context<'a> {
    fn new(input: &'a Input<'a>, graph: &'a Graph) -> Self {
        let mut calls_in = vec![0; graph.net.node_count()];
        let mut is_called = vec![false; graph.net.node_count()];
        for edge in graph.net.raw_edges() {
            if edge.source() != edge.target() {
                calls_in[edge.target().index()] += edge.weight.counts.calls;
                is_called[edge.target().index()] |= matters(&edge.weight);
            }
        }
        let mut entries: Vec<NodeIndex> = graph
            .net
            .node_indices()
            .filter(|node| !is_called[node.index()])
            .collect();
        // A ring that nobody calls from outside begins with its busiest service.
        let mut reached = vec![false; graph.net.node_count()];
        loop {
            mark(graph, &entries, None, &mut reached);
            let rest = graph.net.node_indices().filter(|node| !reached[node.index()]);
            let Some(next) = rest.max_by_key(|node| calls_in[node.index()]) else {
                break;
            };
            entries.push(next);
        }
        Self {
            input,
            graph,
            calls_in,
            entries,
        }
    }

    fn id(&self, node: NodeIndex) -> &str {
        &self.graph.net[node].id
    }

    fn flows(&self, link: &Link) -> impl Iterator<Item = &'a Flow> + use<'a> {
        let flows = &self.input.observed.flows;
        let found: Vec<&Flow> = link.flows.iter().filter_map(|index| flows.get(*index)).collect();
        found.into_iter()
    }

    /// The links between two services that are not one.
    fn links(&self) -> impl Iterator<Item = (NodeIndex, NodeIndex, &'a Link)> + use<'a> {
        let net = &self.graph.net;
        net.edge_references()
            .filter(|edge| edge.source() != edge.target())
            .map(|edge| (edge.source(), edge.target(), edge.weight()))
    }

    fn rate(&self, link: &Link) -> f64 {
        link.counts.calls as f64 / self.graph.seconds
    }

    /// Ids of the edges behind links.
    fn edge_ids<'l>(&self, links: impl Iterator<Item = &'l Link>) -> Vec<String> {
        let flows = links.flat_map(|link| self.flows(link));
        flows.take(MOST_EDGES).map(|flow| flow.view.id.clone()).collect()
    }

    /// The number of each edge and the link that it is a part of.
    fn link_of_edge(&self) -> HashMap<u64, (NodeIndex, NodeIndex, &'a Link, &'a Flow)> {
        let mut by_edge = HashMap::new();
        for (from, to, link) in self.links() {
            for flow in self.flows(link) {
                by_edge.insert(flow.id, (from, to, link, flow));
            }
        }
        by_edge
    }
}

/// Whether a link is one that services stand or fall with: a query for a name is not.
fn matters(link: &Link) -> bool {
    link.protocol != "dns"
}

/// Whether the caller waits for the answer.
fn waits(link: &Link) -> bool {
    matters(link) && link.counts.calls > 0 && !NOT_WAITING.contains(&&*link.protocol)
}

/// Marks what can be reached from some services without one of them.
fn mark(graph: &Graph, from: &[NodeIndex], without: Option<NodeIndex>, reached: &mut [bool]) {
    let mut stack: Vec<NodeIndex> = from
        .iter()
        .copied()
        .filter(|node| Some(*node) != without)
        .collect();
    while let Some(node) = stack.pop() {
        if std::mem::replace(&mut reached[node.index()], true) {
            continue;
        }
        let edges = graph.net.edges(node).filter(|edge| matters(edge.weight()));
        stack.extend(
            edges
                .map(|edge| edge.target())
                .filter(|next| Some(*next) != without && !reached[next.index()]),
        );
    }
}

/// A finding without its texts on why and what to do.
fn finding(
    kind: FindingKind,
    severity: Severity,
    title: String,
    services: Vec<String>,
    numbers: &[(&str, f64)],
) -> FindingView {
    FindingView {
        kind,
        severity,
        title,
        services,
        numbers: numbers
            .iter()
            .map(|(name, number)| ((*name).to_owned(), super::graph::rounded(*number)))
            .collect(),
        ..FindingView::default()
    }
}

/// The first few names, and how many there are besides.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
