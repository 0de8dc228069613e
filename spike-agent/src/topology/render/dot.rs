//! The graph for Graphviz.

use std::fmt::Write as _;

use super::{Health, label, subtitle, width};
use crate::model::{ServiceKind, view::GraphView};

pub(super) fn render(graph: &GraphView) -> String {
    let mut text = String::from(
        "digraph spike {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fillcolor=\"#eef3f7\", \
         fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    for node in &graph.nodes {
        let style = match node.kind {
            ServiceKind::External => ", style=\"rounded,dashed\"",
            _ => "",
        };
        let below = subtitle(node);
        let lines = if below.is_empty() {
            node.id.clone()
        } else {
            format!("{}\n{below}", node.id)
        };
        // Writing to a string cannot fail.
        _ = writeln!(text, "  {} [label={}{style}];", quoted(&node.id), quoted(&lines));
    }
    for link in &graph.edges {
        let health = Health::of(link);
        let style = match health {
            Health::Failing => ", style=dashed",
            Health::Slow | Health::Well => "",
        };
        _ = writeln!(
            text,
            "  {} -> {} [label={}, penwidth={}, color=\"{}\"{style}];",
            quoted(&link.from),
            quoted(&link.to),
            quoted(&label(link)),
            width(link.rate),
            health.colour(),
        );
    }
    text + "}\n"
}

/// A quoted string of the DOT language; a line break becomes one of the label.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    let lines: Vec<String> = escaped
        .split('\n')
        .map(|line| line.replace(|letter: char| letter.is_control(), "?"))
        .collect();
    format!("\"{}\"", lines.join("\\n"))
}
