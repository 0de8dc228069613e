//! The map as a graph whose nodes are processes, services or hosts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::{Duration, SystemTime};

use petgraph::graph::{DiGraph, NodeIndex};

use super::{Counts, diff::StepCalls, services};
use crate::model::{
    ServiceKind,
    edge::Counted,
    view::{CounterView, EdgeView, EndView, GraphView, Group, LinkView, NodeView},
};

/// One edge of the map and what happened on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// Its number.
    pub id: u64,
    /// Who it is between; its counts are those of `counts`.
    pub view: EdgeView,
    /// What happened.
    pub counts: Counts,
    /// What that was made of, when all of it is meant.
    pub counted: Counted,
}

/// What happened on the map between two moments.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The first moment.
    pub from: SystemTime,
    /// The second.
    pub to: SystemTime,
    /// The edges on which something happened, or was open.
    pub flows: Vec<Flow>,
    /// Calls step by step, when asked for.
    pub steps: Vec<StepCalls>,
    /// What is not on the map, and why.
    pub losses: Vec<CounterView>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            from: SystemTime::UNIX_EPOCH,
            to: SystemTime::UNIX_EPOCH,
            flows: Vec::new(),
            steps: Vec::new(),
            losses: Vec::new(),
        }
    }
}

impl Observed {
    /// How long it is, in seconds; never 0.
    pub fn seconds(&self) -> f64 {
        let length = self.to.duration_since(self.from).unwrap_or_default();
        length.max(Duration::from_millis(1)).as_secs_f64()
    }
}

/// A node of the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// As operators name it; unique.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What the name is from.
    pub kind: ServiceKind,
    /// Where it answers: processes on this host, else addresses and ports.
    pub instances: BTreeSet<String>,
}

/// What passes from one node to another in one protocol.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// What is spoken.
    pub protocol: String,
    /// The sum over its flows.
    pub counts: Counts,
    /// Which of the observed flows it is made of.
    pub flows: Vec<usize>,
}

/// The map as a graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Nodes in the order of their names; between two of them there is an edge for each protocol.
    pub net: DiGraph<Node, Link>,
    /// How long was looked, in seconds.
    pub seconds: f64,
}

/// What tells nodes apart, and the name to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key<'a> {
    name: &'a str,
    kind: ServiceKind,
    /// Of a process: its program and cgroup.
    within: Option<(&'a str, &'a str)>,
}

/// The nodes that were met, by number.
#[derive(Default)]
struct Met<'a> {
    numbers: HashMap<Key<'a>, usize>,
    nodes: Vec<MetNode>,
}

#[derive(Default)]
struct MetNode {
    instances: BTreeSet<String>,
    /// The latest.
    pid: u32,
}

impl<'a> Met<'a> {
    fn number(&mut self, key: Key<'a>, process: Option<&EndView>) -> usize {
        let next = self.nodes.len();
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.nodes.push(MetNode::default());
        }
        let node = &mut self.nodes[number];
        node.pid = node.pid.max(process.map_or(0, |process| process.pid));
        number
    }
}

impl Graph {
    /// Groups what was observed. `host` is this host's name.
    pub fn new(observed: &Observed, group: Group, host: &str) -> Self {
        let mut met = Met::default();
        let mut links: HashMap<(usize, usize, &str), Link> = HashMap::new();
        for (index, flow) in observed.flows.iter().enumerate() {
            let (from, to) = ends(&flow.view, group, host);
            let from = met.number(from, flow.view.caller.as_ref());
            let to = met.number(to, flow.view.destination.process.as_ref());
            met.nodes[to].instances.insert(instance(&flow.view));
            let link = links.entry((from, to, &flow.view.protocol)).or_default();
            let open = link.counts.open + flow.counts.open;
            link.counts.add(&flow.counts);
            link.counts.open = open;
            link.flows.push(index);
        }
        let mut keys: Vec<(Key<'_>, usize)> = met.numbers.into_iter().collect();
        keys.sort_unstable();
        let mut seen: HashMap<&str, u32> = HashMap::new();
        for (key, _) in &keys {
            *seen.entry(key.name).or_default() += 1;
        }
        let mut net = DiGraph::with_capacity(keys.len(), links.len());
        let mut indices = vec![NodeIndex::end(); keys.len()];
        for (key, number) in &keys {
            let MetNode { instances, pid } = mem::take(&mut met.nodes[*number]);
            indices[*number] = net.add_node(Node {
                id: id(key, seen[key.name] > 1, pid),
                name: key.name.to_owned(),
                kind: key.kind,
                instances,
            });
        }
        let mut links: Vec<_> = links
            .into_iter()
            .map(|((from, to, protocol), link)| ((indices[from], indices[to], protocol), link))
            .collect();
        links.sort_unstable_by_key(|(ends, _)| *ends);
        for ((from, to, protocol), mut link) in links {
            protocol.clone_into(&mut link.protocol);
            net.add_edge(from, to, link);
        }
        Self {
            net,
            seconds: observed.seconds(),
        }
    }

    /// The node that operators mean by a name: its id, or its name when no other has it.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        let by = |is_it: &dyn Fn(&Node) -> bool| {
            let mut found = self.net.node_indices().filter(|node| is_it(&self.net[*node]));
            found.next().filter(|_| found.next().is_none())
        };
        by(&|node| node.id == name).or_else(|| by(&|node| node.name == name))
    }

    /// What people and programs read; `keep` says which edges, and nodes without any are left out.
    pub fn view(&self, observed: &Observed, group: Group, keep: impl Fn(&LinkView) -> bool) -> GraphView {
        let mut edges = Vec::with_capacity(self.net.edge_count());
        let mut used = BTreeSet::new();
        let mut sums: HashMap<NodeIndex, (u64, Counts)> = HashMap::new();
        for edge in self.net.raw_edges() {
            let view = self.link_view(observed, edge.source(), edge.target(), &edge.weight);
            if !keep(&view) {
                continue;
            }
            used.extend([edge.source(), edge.target()]);
            sums.entry(edge.source()).or_default().0 += view.calls;
            sums.entry(edge.target()).or_default().1.add(&edge.weight.counts);
            edges.push(view);
        }
        edges.sort_by_key(|link: &LinkView| Reverse(link.calls));
        let node_view = |index: NodeIndex| {
            let node = &self.net[index];
            let (calls, called) = sums.remove(&index).unwrap_or_default();
            NodeView {
                id: node.id.clone(),
                name: node.name.clone(),
                kind: node.kind,
                instances: node.instances.len() as u64,
                rate_out: rounded(calls as f64 / self.seconds),
                rate_in: rounded(called.calls as f64 / self.seconds),
                error_percent: percent(&called),
                p99_us: called
                    .latency
                    .view(called.latency_sum)
                    .map(|latency| latency.p99_us),
            }
        };
        GraphView {
            from: humantime::format_rfc3339_millis(observed.from).to_string(),
            to: humantime::format_rfc3339_millis(observed.to).to_string(),
            seconds: rounded(self.seconds),
            group,
            nodes: used.into_iter().map(node_view).collect(),
            edges,
            losses: observed.losses.clone(),
        }
    }

    fn link_view(&self, observed: &Observed, from: NodeIndex, to: NodeIndex, link: &Link) -> LinkView {
        let flows = link.flows.iter().filter_map(|index| observed.flows.get(*index));
        let ports: BTreeSet<u16> = flows.clone().map(|flow| flow.view.destination.port).collect();
        LinkView {
            from: self.net[from].id.clone(),
            to: self.net[to].id.clone(),
            ports: ports.into_iter().collect(),
            edges: flows.map(|flow| flow.view.id.clone()).collect(),
            ..link_of(&link.protocol, &link.counts, self.seconds)
        }
    }
}

/// An edge of the map by itself, for conditions on it.
pub fn link_of_flow(flow: &Flow, seconds: f64) -> LinkView {
    let (from, to) = (services::caller(&flow.view), services::callee(&flow.view));
    LinkView {
        from: from.0.to_owned(),
        to: to.0.to_owned(),
        ports: vec![flow.view.destination.port],
        edges: vec![flow.view.id.clone()],
        ..link_of(&flow.view.protocol, &flow.counts, seconds)
    }
}

fn link_of(protocol: &str, counts: &Counts, seconds: f64) -> LinkView {
    let decoded = counts.decoded.unwrap_or_default();
    LinkView {
        protocol: protocol.to_owned(),
        calls: counts.calls,
        rate: rounded(counts.calls as f64 / seconds),
        opened: counts.opened,
        failed: counts.failures(),
        reset: counts.reset,
        open: counts.open,
        decoded: decoded.calls,
        decoded_failed: decoded.failed,
        error_percent: percent(counts),
        bytes_out: counts.bytes_out,
        bytes_in: counts.bytes_in,
        retransmits: counts.retransmits,
        rtt_us: counts.rtt_sum.checked_div(counts.rtt_count),
        latency: counts.latency.view(counts.latency_sum),
        ..LinkView::default()
    }
}

/// A share in percent, to a hundredth.
pub(super) fn percent(counts: &Counts) -> f64 {
    (counts.error_share().unwrap_or(0.0) * 10_000.0).round() / 100.0
}

/// To a thousandth: more digits say nothing.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn ends<'a>(view: &'a EdgeView, group: Group, host: &'a str) -> (Key<'a>, Key<'a>) {
    let end = |(name, kind): (&'a str, ServiceKind), process: Option<&'a EndView>| match (group, process) {
        (Group::Host, Some(_)) => Key {
            name: host,
            kind: ServiceKind::default(),
            within: None,
        },
        (Group::Process, Some(process)) => Key {
            name,
            kind,
            within: Some((&process.name, &process.cgroup)),
        },
        _ => Key {
            name,
            kind,
            within: None,
        },
    };
    (
        end(services::caller(view), view.caller.as_ref()),
        end(services::callee(view), view.destination.process.as_ref()),
    )
}

/// Where the called end answers.
fn instance(view: &EdgeView) -> String {
    let destination = &view.destination;
    match &destination.process {
        Some(process) => format!("pid {}", process.pid),
        None => format!("{} port {}", destination.address, destination.port),
    }
}

fn id(key: &Key<'_>, is_taken: bool, pid: u32) -> String {
    let name = key.name;
    match (is_taken, key.within) {
        (false, _) => name.to_owned(),
        (true, Some(_)) => format!("{name}[{pid}]"),
        (true, None) => {
            let kind = format!("{:?}", key.kind).to_lowercase();
            format!("{name} ({kind})")
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
