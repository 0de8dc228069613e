//! What would be without a service: who is cut off, and whose work may fail.

use std::collections::VecDeque;

use petgraph::Direction;
use petgraph::visit::EdgeRef;

use super::{Context, mark, matters, suggest};
use crate::model::view::{AffectedView, WithoutView};

pub(super) fn without(context: &Context<'_>, name: &str) -> Result<WithoutView, String> {
    let net = &context.graph.net;
    let gone = context.graph.find(name).ok_or_else(|| {
        let known: Vec<String> = net
            .node_indices()
            .map(|node| context.id(node).to_owned())
            .collect();
        format!(
            "there is no service `{name}` on the map; there are {}",
            known.join(", ")
        )
    })?;
    let mut reached = vec![false; net.node_count()];
    mark(context.graph, &context.entries, Some(gone), &mut reached);
    let is_cut_off = |index: usize| !reached[index] && index != gone.index();
    let cut_off = net.node_indices().filter(|node| is_cut_off(node.index()));

    let mut distance = vec![u64::MAX; net.node_count()];
    distance[gone.index()] = 0;
    let mut queue = VecDeque::from([gone]);
    let mut affected = Vec::new();
    while let Some(node) = queue.pop_front() {
        for edge in net.edges_directed(node, Direction::Incoming) {
            let caller = edge.source();
            if distance[caller.index()] == u64::MAX && matters(edge.weight()) {
                distance[caller.index()] = distance[node.index()] + 1;
                queue.push_back(caller);
                affected.push(AffectedView {
                    service: context.id(caller).to_owned(),
                    distance: distance[caller.index()],
                });
            }
        }
    }
    affected.sort_by(|a, b| (a.distance, &a.service).cmp(&(b.distance, &b.service)));

    let (mut all, mut lost) = (0, 0);
    for edge in net.raw_edges() {
        all += edge.weight.counts.calls;
        let touches = [edge.source(), edge.target()];
        if touches
            .iter()
            .any(|node| *node == gone || is_cut_off(node.index()))
        {
            lost += edge.weight.counts.calls;
        }
    }
    let to_it: Vec<_> = context
        .links()
        .filter(|(_, to, _)| *to == gone)
        .map(|(.., link)| link)
        .collect();
    Ok(WithoutView {
        service: context.id(gone).to_owned(),
        cut_off: cut_off.map(|node| context.id(node).to_owned()).collect(),
        affected,
        calls_percent: crate::topology::graph::rounded(lost as f64 * 100.0 / (all as f64).max(1.0)),
        test: suggest::refuse(context, &to_it),
    })
}
