//! The graph as the two frames that Grafana's node graph panel reads
//! (<https://grafana.com/docs/grafana/latest/visualizations/panels-visualizations/visualizations/node-graph/>).

use std::cmp::Reverse;
use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Health, subtitle, width};
use crate::model::{
    human::{micros, percent, rate},
    view::{GraphView, NodeView},
};

/// The panel shows no more.
const MOST_NODES: usize = 1_500;

pub(super) fn render(graph: &GraphView) -> String {
    let mut shown: Vec<&NodeView> = graph.nodes.iter().collect();
    let traffic = |node: &NodeView| ((node.rate_in + node.rate_out) * 1_000.0) as u64;
    shown.sort_by_key(|node| Reverse(traffic(node)));
    shown.truncate(MOST_NODES);
    let ids: HashSet<&str> = shown.iter().map(|node| node.id.as_str()).collect();
    let nodes: Vec<Value> = shown.iter().map(|node| node_of(node)).collect();
    let edges: Vec<Value> = graph
        .edges
        .iter()
        .filter(|link| ids.contains(&*link.from) && ids.contains(&*link.to))
        .enumerate()
        .map(|(number, link)| {
            let mut edge = json!({
                "id": format!("e{number}"),
                "source": link.from,
                "target": link.to,
                "mainstat": format!("{} {}", link.protocol, rate(link.rate)),
                "secondarystat": link.latency.map(|latency| format!("p99 {}", micros(latency.p99_us))),
                "thickness": width(link.rate),
                "color": Health::of(link).colour(),
                "detail__errors": percent(link.error_percent),
                "detail__calls": link.calls,
                "detail__bytes_out": link.bytes_out,
                "detail__bytes_in": link.bytes_in,
            });
            if let (Some(latency), Some(fields)) = (link.latency, edge.as_object_mut()) {
                fields.insert("detail__p50".to_owned(), micros(latency.p50_us).into());
                fields.insert("detail__p90".to_owned(), micros(latency.p90_us).into());
            }
            edge
        })
        .collect();
    let frames = json!({
        "nodes": nodes,
        "edges": edges,
        "left_out": graph.nodes.len() - shown.len(),
    });
    frames.to_string()
}

fn node_of(node: &NodeView) -> Value {
    let errors = (node.error_percent / 100.0).clamp(0.0, 1.0);
    json!({
        "id": node.id,
        "title": node.name,
        "subtitle": subtitle(node),
        "mainstat": rate(node.rate_in),
        "secondarystat": node.p99_us.map(|p99| format!("p99 {}", micros(p99))),
        "arc__ok": 1.0 - errors,
        "arc__errors": errors,
        "detail__kind": format!("{:?}", node.kind).to_lowercase(),
        "detail__instances": node.instances,
        "detail__rate_out": rate(node.rate_out),
    })
}
