//! The map as a graph whose nodes are processes, services or hosts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use petgraph::graph::{DiGraph, NodeIndex};

use super::{Counts, diff::StepCalls, services};
use crate::model::{
    ServiceKind,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    name: String,
    kind: ServiceKind,
    /// Of a process: its program and cgroup.
    within: Option<(String, String)>,
}

impl Graph {
    /// Groups what was observed. `host` is this host's name.
    pub fn new(observed: &Observed, group: Group, host: &str) -> Self {
        let mut links: BTreeMap<(Key, Key, &str), Link> = BTreeMap::new();
        let mut instances: BTreeMap<Key, (BTreeSet<String>, u32)> = BTreeMap::new();
        for (index, flow) in observed.flows.iter().enumerate() {
            let (from, to) = ends(&flow.view, group, host);
            let pid = |end: Option<&EndView>| end.map_or(0, |end| end.pid);
            let caller = instances.entry(from.clone()).or_default();
            caller.1 = caller.1.max(pid(flow.view.caller.as_ref()));
            let callee = instances.entry(to.clone()).or_default();
            callee.1 = callee.1.max(pid(flow.view.destination.process.as_ref()));
            callee.0.insert(instance(&flow.view));
            let link = links.entry((from, to, &flow.view.protocol)).or_default();
            let open = link.counts.open + flow.counts.open;
            link.counts.add(&flow.counts);
            link.counts.open = open;
            link.flows.push(index);
        }
        let mut net = DiGraph::with_capacity(instances.len(), links.len());
        let mut seen: HashMap<String, u32> = HashMap::new();
        for key in instances.keys() {
            *seen.entry(key.name.clone()).or_default() += 1;
        }
        let mut indices: HashMap<Key, NodeIndex> = HashMap::new();
        for (key, (instances, pid)) in instances {
            let node = Node {
                id: id(&key, seen[&key.name] > 1, pid),
                name: key.name.clone(),
                kind: key.kind,
                instances,
            };
            indices.insert(key, net.add_node(node));
        }
        for ((from, to, protocol), mut link) in links {
            link.protocol = protocol.to_owned();
            net.add_edge(indices[&from], indices[&to], link);
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

fn ends(view: &EdgeView, group: Group, host: &str) -> (Key, Key) {
    let end = |(name, kind): (&str, ServiceKind), process: Option<&EndView>| match (group, process) {
        (Group::Host, Some(_)) => Key {
            name: host.to_owned(),
            kind: ServiceKind::default(),
            within: None,
        },
        (Group::Process, Some(process)) => Key {
            name: name.to_owned(),
            kind,
            within: Some((process.name.clone(), process.cgroup.clone())),
        },
        _ => Key {
            name: name.to_owned(),
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

fn id(key: &Key, is_taken: bool, pid: u32) -> String {
    let name = &key.name;
    match (is_taken, &key.within) {
        (false, _) => name.clone(),
        (true, Some(_)) => format!("{name}[{pid}]"),
        (true, None) => {
            let kind = format!("{:?}", key.kind).to_lowercase();
            format!("{name} ({kind})")
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
