//! Draws the graph in the formats of other tools.

mod dot;
mod grafana;
mod graphml;
mod layout;
mod mermaid;
mod svg;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::model::{
    human::{micros, percent, rate},
    view::{GraphView, LinkView, NodeView},
};

/// Drawings of more nodes than this help nobody, and would keep the agent busy.
const MOST_NODES: usize = 400;
/// The same of edges.
const MOST_EDGES: usize = 2_000;

/// From which share of errors on, in percent, an edge is drawn as failing.
const FAILING_PERCENT: f64 = 1.0;
/// From which p99 on, in microseconds, an edge is drawn as slow.
const SLOW_US: u64 = 250_000;

/// What the graph can be drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Graphviz.
    Dot,
    /// A flowchart for Mermaid.
    Mermaid,
    /// GraphML, for yEd, Gephi, networkx.
    Graphml,
    /// A picture.
    Svg,
    /// The frames of Grafana's node graph panel, as JSON.
    Grafana,
}

impl Format {
    /// The media type of what is drawn.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Dot => "text/vnd.graphviz; charset=utf-8",
            Self::Mermaid => "text/plain; charset=utf-8",
            Self::Graphml => "application/graphml+xml",
            Self::Svg => "image/svg+xml",
            Self::Grafana => "application/json",
        }
    }
}

/// Draws the graph.
///
/// # Errors
/// When it is too large to be a picture.
pub fn render(graph: &GraphView, format: Format) -> Result<String, String> {
    match format {
        Format::Dot => Ok(dot::render(graph)),
        Format::Mermaid => Ok(mermaid::render(graph)),
        Format::Graphml => Ok(graphml::render(graph)),
        Format::Grafana => Ok(grafana::render(graph)),
        Format::Svg if graph.nodes.len() > MOST_NODES || graph.edges.len() > MOST_EDGES => Err(format!(
            "{} nodes and {} edges are too many for a picture, which can have {MOST_NODES} and {MOST_EDGES}; \
             choose some with find or hide, or take another format",
            graph.nodes.len(),
            graph.edges.len(),
        )),
        Format::Svg => Ok(svg::render(graph)),
    }
}

/// How an edge is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    Slow,
    Failing,
}

impl Health {
    fn of(link: &LinkView) -> Self {
        if link.error_percent >= FAILING_PERCENT {
            Self::Failing
        } else if link.latency.is_some_and(|latency| latency.p99_us >= SLOW_US) {
            Self::Slow
        } else {
            Self::Well
        }
    }

    /// Told apart by people who see few colours, too.
    fn colour(self) -> &'static str {
        match self {
            Self::Well => "#5b7083",
            Self::Slow => "#c77700",
            Self::Failing => "#c4262e",
        }
    }
}

/// Width of an edge's line: from 1 for hardly a call to 6 for thousands a second.
fn width(rate: f64) -> f64 {
    let width = 1.0 + 1.2 * (1.0 + rate.max(0.0)).log10();
    (width.min(6.0) * 100.0).round() / 100.0
}

/// What an edge says: `http 12.3/s p99 4.56ms`, and errors if there are any.
fn label(link: &LinkView) -> String {
    let mut text = format!("{} {}", link.protocol, rate(link.rate));
    if let Some(latency) = link.latency {
        text += &format!(" p99 {}", micros(latency.p99_us));
    }
    if link.error_percent > 0.0 {
        text += &format!(" {} errors", percent(link.error_percent));
    }
    text
}

/// What a node says below its name.
fn subtitle(node: &NodeView) -> String {
    let mut parts = Vec::new();
    if node.instances > 1 {
        parts.push(format!("{} instances", node.instances));
    }
    if node.rate_in > 0.0 {
        parts.push(format!("in {}", rate(node.rate_in)));
    }
    if node.rate_out > 0.0 {
        parts.push(format!("out {}", rate(node.rate_out)));
    }
    parts.join(", ")
}

/// Text within XML.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // Not even escaped ones may be in XML 1.0.
            control if control.is_control() => escaped.push('\u{fffd}'),
            plain => escaped.push(plain),
        }
    }
    escaped
}
