//! Compares the map at two times, and tells change from chance.
//!
//! A rate is compared by how much it varies from step to step (Welch's t), never by less than what calls that come by
//! chance would vary. A quantile is compared by the range that its rank may have by chance, and by the width of the
//! histogram's buckets. Shares of errors are compared as two proportions.

use std::collections::{BTreeMap, HashMap, HashSet};

use petgraph::graph::NodeIndex;

use super::{Graph, Histogram, Link, Observed};
use crate::model::view::{ChangeView, Changed, DiffView, GraphView, Group, LinkView, NodeView, StretchView};

/// Standard errors that chance does not explain: one in some ten thousand comparisons.
const BEYOND: f64 = 4.0;
/// Changes of rate that are smaller than this are not worth a word, however sure they are.
const LEAST_RATE: f64 = 0.2;
/// The same of latency: above the width of a bucket.
const LEAST_LATENCY: f64 = 0.13;
/// The same of errors, in percent.
const LEAST_ERRORS: f64 = 0.5;
/// So many calls would have been expected: that there is none by chance has odds of less than 1 in 100.
const EXPECTED: f64 = 5.0;
/// Quantiles of fewer calls are not compared.
const LEAST_CALLS: u64 = 20;

/// Edges are compared by this.
type Key = (String, String, String);

struct Side<'a> {
    observed: &'a Observed,
    graph: Graph,
    view: GraphView,
}

/// What is different in `after`.
pub fn diff(before: &Observed, after: &Observed, group: Group, host: &str) -> DiffView {
    let (before, after) = (Side::new(before, group, host), Side::new(after, group, host));
    let (old, new) = (before.links(), after.links());
    let new_edges: Vec<LinkView> = new
        .iter()
        .filter(|(key, _)| !old.contains_key(*key))
        .filter_map(|(key, _)| after.link_view(key))
        .collect();
    let gone_edges: Vec<LinkView> = old
        .iter()
        .filter(|(key, _)| !new.contains_key(*key))
        .filter_map(|(key, _)| before.link_view(key))
        .filter(|link| (link.calls.max(link.opened) as f64) * after.seconds() / before.seconds() >= EXPECTED)
        .collect();
    let mut changes = Vec::new();
    let mut same = 0;
    for (key, old_link) in &old {
        let Some(new_link) = new.get(key) else { continue };
        let found = compare(&before, old_link, &after, new_link);
        same += u64::from(found.is_empty());
        changes.extend(found.into_iter().map(|change| ChangeView {
            from: key.0.clone(),
            to: key.1.clone(),
            protocol: key.2.clone(),
            ..change
        }));
    }
    changes.sort_by(|a, b| b.beyond_noise.total_cmp(&a.beyond_noise));
    let touched: HashSet<&str> = gone_edges
        .iter()
        .flat_map(|link| [link.from.as_str(), link.to.as_str()])
        .collect();
    DiffView {
        new_services: after.nodes_but_of(&before).cloned().collect(),
        gone_services: before
            .nodes_but_of(&after)
            .filter(|node| touched.contains(node.id.as_str()))
            .cloned()
            .collect(),
        before: before.stretch(),
        after: after.stretch(),
        new_edges,
        gone_edges,
        changes,
        same,
    }
}

impl<'a> Side<'a> {
    fn new(observed: &'a Observed, group: Group, host: &str) -> Self {
        let graph = Graph::new(observed, group, host);
        let view = graph.view(observed, group, |_| true);
        Self {
            observed,
            graph,
            view,
        }
    }

    fn seconds(&self) -> f64 {
        self.graph.seconds
    }

    fn links(&self) -> BTreeMap<Key, &Link> {
        let id = |node: NodeIndex| self.graph.net[node].id.clone();
        let edges = self.graph.net.raw_edges().iter();
        edges
            .map(|edge| {
                let key = (id(edge.source()), id(edge.target()), edge.weight.protocol.clone());
                (key, &edge.weight)
            })
            .collect()
    }

    fn link_view(&self, (from, to, protocol): &Key) -> Option<LinkView> {
        let mut edges = self.view.edges.iter();
        let found = edges.find(|link| (&link.from, &link.to, &link.protocol) == (from, to, protocol));
        found.cloned()
    }

    fn nodes_but_of<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = &'s NodeView> {
        let known: HashSet<&str> = other.view.nodes.iter().map(|node| node.id.as_str()).collect();
        self.view
            .nodes
            .iter()
            .filter(move |node| !known.contains(node.id.as_str()))
    }

    fn stretch(&self) -> StretchView {
        StretchView {
            from: self.view.from.clone(),
            to: self.view.to.clone(),
            seconds: self.view.seconds,
            calls: self.view.edges.iter().map(|link| link.calls).sum(),
        }
    }

    /// Calls per second of a link, and the variance of that mean.
    fn rate(&self, link: &Link) -> (f64, f64) {
        let rate = link.counts.calls as f64 / self.seconds();
        // Were calls to come by chance alone; at least one, as none may have been luck.
        let by_chance = (link.counts.calls as f64).max(1.0) / self.seconds().powi(2);
        let ids: Vec<u64> = link
            .flows
            .iter()
            .filter_map(|index| Some(self.observed.flows.get(*index)?.id))
            .collect();
        let rates: Vec<f64> = self
            .observed
            .steps
            .iter()
            .map(|step| {
                let calls: u64 = ids.iter().filter_map(|id| step.calls.get(id)).sum();
                calls as f64 / step.seconds
            })
            .collect();
        if rates.len() < 3 {
            // How much it varies is not known: real services vary more than chance.
            return (rate, by_chance * 4.0);
        }
        let count = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / count;
        let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
        (rate, (squares / (count - 1.0) / count).max(by_chance))
    }
}

fn compare(before: &Side<'_>, old: &Link, after: &Side<'_>, new: &Link) -> Vec<ChangeView> {
    let change = |what, before: f64, after: f64, beyond_noise: f64| ChangeView {
        what,
        before: super::graph::rounded(before),
        after: super::graph::rounded(after),
        beyond_noise: super::graph::rounded(beyond_noise),
        ..ChangeView::default()
    };
    let mut changes = Vec::new();
    let ((old_rate, old_variance), (new_rate, new_variance)) = (before.rate(old), after.rate(new));
    let score = (new_rate - old_rate).abs() / (old_variance + new_variance).sqrt() / BEYOND;
    if score > 1.0 && (new_rate - old_rate).abs() > LEAST_RATE * old_rate.max(new_rate) {
        changes.push(change(Changed::Rate, old_rate, new_rate, score));
    }
    let share = |link: &Link| link.counts.error_share().unwrap_or(0.0);
    let tried = |link: &Link| {
        let counts = &link.counts;
        let decoded = counts.decoded.unwrap_or_default().calls;
        (counts.opened + counts.failures()).max(decoded).max(1) as f64
    };
    let (old_share, new_share) = (share(old), share(new));
    let pooled = (old_share * tried(old) + new_share * tried(new)) / (tried(old) + tried(new));
    let error = (pooled * (1.0 - pooled) * (1.0 / tried(old) + 1.0 / tried(new))).sqrt();
    let score = (new_share - old_share).abs() / error.max(f64::MIN_POSITIVE) / BEYOND;
    if score > 1.0 && (new_share - old_share).abs() * 100.0 > LEAST_ERRORS {
        changes.push(change(
            Changed::Errors,
            old_share * 100.0,
            new_share * 100.0,
            score,
        ));
    }
    for (what, per_mille) in [(Changed::P50, 500), (Changed::P99, 990)] {
        let (old, new) = (&old.counts.latency, &new.counts.latency);
        if let Some((before, after, score)) = compare_quantile(old, new, per_mille) {
            changes.push(change(what, before / 1000.0, after / 1000.0, score));
        }
    }
    changes
}

/// The quantile before and after, and how far the ranges that it may have by chance are apart.
fn compare_quantile(old: &Histogram, new: &Histogram, per_mille: u64) -> Option<(f64, f64, f64)> {
    let (old_low, old_middle, old_high) = range(old, per_mille)?;
    let (new_low, new_middle, new_high) = range(new, per_mille)?;
    let (lower, upper) = if new_middle > old_middle {
        (old_high, new_low)
    } else {
        (new_high, old_low)
    };
    let large = (new_middle - old_middle).abs() > LEAST_LATENCY * old_middle.min(new_middle);
    // As a ratio: latencies differ by factors.
    (large && upper > lower).then(|| (old_middle, new_middle, upper / lower.max(1.0)))
}

/// A quantile in nanoseconds, and what it may be by chance: by the binomial spread of its rank.
fn range(histogram: &Histogram, per_mille: u64) -> Option<(f64, f64, f64)> {
    let count = histogram.count();
    if count < LEAST_CALLS {
        return None;
    }
    let share = per_mille as f64 / 1000.0;
    let middle = share * count as f64;
    let spread = BEYOND * (count as f64 * share * (1.0 - share)).sqrt();
    let at = |rank: f64| {
        histogram
            .at_rank((rank.ceil() as u64).clamp(1, count))
            .map(|ns| ns as f64)
    };
    Some((at(middle - spread)?, at(middle)?, at(middle + spread)?))
}

/// Calls in a step by the number of their edge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepCalls {
    /// How long it was.
    pub seconds: f64,
    /// Edges without a call are left out.
    pub calls: HashMap<u64, u64>,
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{flow, observed};
    use super::*;
    use crate::topology::{DecodedCounts, Flow};

    /// 100 s in ten steps, with so many calls of one edge in each.
    fn steady(flow: Flow, per_step: &[u64]) -> Observed {
        let id = flow.id;
        let mut observed = observed(vec![flow]);
        observed.steps = per_step
            .iter()
            .map(|calls| StepCalls {
                seconds: 10.0,
                calls: HashMap::from([(id, *calls)]),
            })
            .collect();
        observed
    }

    fn changes(before: &Observed, after: &Observed) -> Vec<Changed> {
        let diff = diff(before, after, Group::Service, "here");
        diff.changes.iter().map(|change| change.what).collect()
    }

    #[test]
    fn what_is_new_and_what_is_gone_is_told() {
        let before = observed(vec![
            flow("web", "cart", "http", 100, 1_000),
            flow("web", "old", "http", 50, 1_000),
            flow("cron", "rare", "http", 1, 1_000),
        ]);
        let after = observed(vec![
            flow("web", "cart", "http", 100, 1_000),
            flow("web", "new", "http", 1, 1_000),
        ]);
        let diff = diff(&before, &after, Group::Service, "here");
        let names = |nodes: &[NodeView]| nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
        assert_eq!(names(&diff.new_services), ["new"]);
        assert_eq!(
            names(&diff.gone_services),
            ["old"],
            "that a single call is missing may be chance"
        );
        assert_eq!(
            (diff.new_edges.len(), diff.gone_edges.len(), diff.same),
            (1, 1, 1)
        );
        assert_eq!(diff.changes, []);
    }

    #[test]
    fn a_rate_that_varies_anyway_has_not_changed() {
        let with = |calls: &[u64]| steady(flow("web", "cart", "http", calls.iter().sum(), 1_000), calls);
        let even = with(&[100; 10]);
        let more = with(&[140; 10]);
        assert_eq!(changes(&even, &more), [Changed::Rate]);
        assert_eq!(changes(&even, &with(&[105; 10])), [], "sure, but too little");
        let wild = with(&[10, 300, 20, 250, 5, 180, 40, 90, 60, 45]);
        assert_eq!(changes(&wild, &more), [], "40 % more, but it was never steady");
        let few = with(&[1, 0, 2, 1, 0, 1, 3, 0, 1, 1]);
        assert_eq!(changes(&few, &with(&[2, 1, 0, 3, 2, 1, 2, 1, 2, 2])), []);
        assert_eq!(changes(&even, &even), []);
    }

    #[test]
    fn latency_and_errors_have_to_leave_chance_behind() {
        let of = |micros: u64, calls: u64| observed(vec![flow("web", "cart", "http", calls, micros)]);
        assert_eq!(
            changes(&of(1_000, 500), &of(1_500, 500)),
            [Changed::P50, Changed::P99]
        );
        assert_eq!(changes(&of(1_000, 500), &of(1_080, 500)), [], "about a bucket");
        assert_eq!(
            changes(&of(1_000, 10), &of(9_000, 10)),
            [],
            "ten calls tell nothing"
        );
        let failing = |failed: u64| {
            let mut observed = of(1_000, 500);
            observed.flows[0].counts.decoded = Some(DecodedCounts {
                calls: 500,
                failed,
                ..DecodedCounts::default()
            });
            observed
        };
        assert_eq!(changes(&failing(0), &failing(50)), [Changed::Errors]);
        assert_eq!(changes(&failing(5), &failing(8)), []);
    }
}
