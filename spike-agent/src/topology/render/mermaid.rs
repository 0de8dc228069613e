//! The graph as a flowchart for Mermaid.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Health, label, subtitle, width};
use crate::model::{ServiceKind, view::GraphView};

pub(super) fn render(graph: &GraphView) -> String {
    let mut text = String::from("flowchart LR\n");
    let numbers: HashMap<&str, usize> = graph
        .nodes
        .iter()
        .enumerate()
        .map(|(number, node)| (node.id.as_str(), number))
        .collect();
    for (number, node) in graph.nodes.iter().enumerate() {
        let below = subtitle(node);
        let mut shown = escaped(&node.id);
        if !below.is_empty() {
            shown = format!("{shown}<br/>{}", escaped(&below));
        }
        let (open, close) = match node.kind {
            ServiceKind::External => ("([", "])"),
            _ => ("[", "]"),
        };
        _ = writeln!(text, "  n{number}{open}\"{shown}\"{close}");
    }
    for link in &graph.edges {
        let (Some(from), Some(to)) = (numbers.get(&*link.from), numbers.get(&*link.to)) else {
            continue;
        };
        let arrow = match Health::of(link) {
            Health::Failing => "-.->",
            Health::Slow | Health::Well => "-->",
        };
        _ = writeln!(text, "  n{from} {arrow}|\"{}\"| n{to}", escaped(&label(link)));
    }
    for (number, link) in graph.edges.iter().enumerate() {
        let colour = Health::of(link).colour();
        _ = writeln!(
            text,
            "  linkStyle {number} stroke:{colour},stroke-width:{}px",
            width(link.rate)
        );
    }
    text
}

/// Text within quotation marks, where Mermaid reads HTML and entities of its own (`#35;`).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '#' | '&' | '<' | '>' | ';' | '`' | '\\' | '|' | '[' | ']' | '{' | '}' | '(' | ')'
            | '*' | '_' => {
                _ = write!(out, "#{};", u32::from(letter));
            }
            control if control.is_control() => out.push('?'),
            plain => out.push(plain),
        }
    }
    out
}
