//! The graph as a picture: callers to the left, a legend below; says by colour, mark and width how calls are doing.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::layout::{Places, Sizes, Spot, place};
use super::{Health, label, subtitle, width, xml};
use crate::model::{
    ServiceKind,
    human::percent,
    view::{GraphView, Group, LinkView, NodeView},
};

/// With more edges than this, only those that are not well have their label in the picture; all have it as a tooltip.
const MOST_LABELS: usize = 60;
const MARGIN: f64 = 24.0;
const HEADER: f64 = 34.0;
const LEGEND: f64 = 46.0;
/// The legend needs so much.
const LEAST_WIDTH: f64 = 640.0;
/// A name is cut after so many letters.
const LETTERS: usize = 34;

pub(super) fn render(graph: &GraphView) -> String {
    let numbers: HashMap<&str, usize> = graph
        .nodes
        .iter()
        .enumerate()
        .map(|(number, node)| (node.id.as_str(), number))
        .collect();
    let links: Vec<(&LinkView, String)> = graph
        .edges
        .iter()
        .map(|link| {
            let is_shown = graph.edges.len() <= MOST_LABELS || Health::of(link) != Health::Well;
            (link, if is_shown { marked(link) } else { String::new() })
        })
        .collect();
    let sizes = Sizes {
        nodes: graph.nodes.iter().map(box_of).collect(),
        edges: links
            .iter()
            .filter_map(|(link, text)| {
                let (from, to) = (numbers.get(&*link.from)?, numbers.get(&*link.to)?);
                let size = if text.is_empty() {
                    (0.0, 0.0)
                } else {
                    (text_width(text, 10.0) + 8.0, 14.0)
                };
                Some((*from, *to, size))
            })
            .collect(),
    };
    let places = place(&sizes, MARGIN);
    draw(graph, &links, &sizes, &places)
}

fn draw(graph: &GraphView, links: &[(&LinkView, String)], sizes: &Sizes, places: &Places) -> String {
    let wide = places.width.max(LEAST_WIDTH).ceil();
    let high = (places.height + HEADER + LEGEND).ceil();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" \
         font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" role=\"img\">\n\
         <title>Service map, {} to {}</title>\n",
        xml(&graph.from),
        xml(&graph.to)
    );
    svg += "<defs>\n";
    for health in [Health::Well, Health::Slow, Health::Failing] {
        _ = writeln!(
            svg,
            "<marker id=\"{health:?}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"9\" markerHeight=\"9\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"{}\"/></marker>",
            health.colour()
        );
    }
    svg += "</defs>\n";
    _ = writeln!(svg, "<rect width=\"{wide}\" height=\"{high}\" fill=\"#ffffff\"/>");
    _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"22\" font-size=\"12\" fill=\"#44525e\">{}</text>",
        xml(&heading(graph))
    );
    _ = writeln!(svg, "<g transform=\"translate(0 {HEADER})\">");
    for ((link, _), (points, _)) in links.iter().zip(&places.edges) {
        line(&mut svg, link, points);
    }
    for ((node, spot), size) in graph.nodes.iter().zip(&places.nodes).zip(&sizes.nodes) {
        shape(&mut svg, node, *spot, *size);
    }
    // Labels over lines, so that they can be read where the two meet.
    for ((link, text), (_, middle)) in links.iter().zip(&places.edges) {
        if !text.is_empty() {
            caption(&mut svg, link, text, *middle);
        }
    }
    svg += "</g>\n";
    legend(&mut svg, high - LEGEND);
    svg + "</svg>\n"
}

fn heading(graph: &GraphView) -> String {
    let what = match graph.group {
        Group::Process => "processes",
        Group::Service => "services",
        Group::Host => "hosts",
    };
    format!(
        "{} {what}, {} edges, {} to {}",
        graph.nodes.len(),
        graph.edges.len(),
        graph.from.get(..19).unwrap_or(&graph.from).replace('T', " "),
        graph.to.get(11..19).unwrap_or(&graph.to),
    )
}

fn line(svg: &mut String, link: &LinkView, points: &[Spot]) {
    let health = Health::of(link);
    let dash = match health {
        Health::Failing => " stroke-dasharray=\"7 4\"",
        Health::Slow | Health::Well => "",
    };
    _ = writeln!(
        svg,
        "<path class=\"edge\" d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"0.85\"{dash} \
         marker-end=\"url(#{health:?})\"><title>{} to {}: {}</title></path>",
        curve(points),
        health.colour(),
        width(link.rate),
        xml(&link.from),
        xml(&link.to),
        xml(&label(link)),
    );
}

/// A smooth line through points, level at each of them.
fn curve(points: &[Spot]) -> String {
    let Some(first) = points.first() else {
        return String::new();
    };
    let mut path = format!("M{:.1} {:.1}", first.x, first.y);
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let middle = from.x.midpoint(to.x);
        _ = write!(
            path,
            "C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}",
            from.y, to.y, to.x, to.y
        );
    }
    path
}

fn shape(svg: &mut String, node: &NodeView, spot: Spot, (wide, high): (f64, f64)) {
    let (left, top) = (spot.x - wide / 2.0, spot.y - high / 2.0);
    let (fill, dash) = match node.kind {
        ServiceKind::External => ("#ffffff", " stroke-dasharray=\"4 3\""),
        _ => ("#eef3f7", ""),
    };
    let (stroke, thick) = if node.error_percent >= super::FAILING_PERCENT {
        (Health::Failing.colour(), 2)
    } else {
        (Health::Well.colour(), 1)
    };
    let below = subtitle(node);
    _ = writeln!(
        svg,
        "<g class=\"node\"><title>{}</title><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" \
         height=\"{high:.1}\" rx=\"6\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{thick}\"{dash}/>",
        xml(&node.id)
    );
    let name_at = if below.is_empty() {
        spot.y + 4.5
    } else {
        spot.y - 2.0
    };
    _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{name_at:.1}\" font-size=\"13\" font-weight=\"bold\" text-anchor=\"middle\" \
         fill=\"#17212b\">{}</text>",
        spot.x,
        xml(&cut(&node.id))
    );
    if !below.is_empty() {
        _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" text-anchor=\"middle\" fill=\"#44525e\">{}</text>",
            spot.x,
            spot.y + 13.0,
            xml(&below)
        );
    }
    svg.push_str("</g>\n");
}

fn caption(svg: &mut String, link: &LinkView, text: &str, middle: Spot) {
    let wide = text_width(text, 10.0) + 6.0;
    _ = writeln!(
        svg,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"14\" rx=\"3\" fill=\"#ffffff\" \
         fill-opacity=\"0.9\"/><text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" text-anchor=\"middle\" fill=\"{}\">{}</text>",
        middle.x - wide / 2.0,
        middle.y - 7.0,
        middle.x,
        middle.y + 3.5,
        Health::of(link).colour(),
        xml(text)
    );
}

fn legend(svg: &mut String, top: f64) {
    let text_y = top + 28.0;
    let line_y = top + 24.0;
    let mut x = MARGIN;
    for (health, says) in [
        (Health::Well, "well".to_owned()),
        (Health::Slow, "slow: \u{25b2} p99 of 250ms or more".to_owned()),
        (
            Health::Failing,
            format!(
                "failing: \u{2715} {} errors or more",
                percent(super::FAILING_PERCENT)
            ),
        ),
    ] {
        let dash = if health == Health::Failing {
            " stroke-dasharray=\"7 4\""
        } else {
            ""
        };
        _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {line_y:.1}h30\" stroke=\"{}\" stroke-width=\"3\"{dash}/>\
             <text x=\"{:.1}\" y=\"{text_y:.1}\" font-size=\"11\" fill=\"#44525e\">{}</text>",
            health.colour(),
            x + 36.0,
            xml(&says)
        );
        x += 36.0 + text_width(&says, 11.0) + 20.0;
    }
    for (rate, says) in [(0.0, "1/s"), (1_000.0, "1000/s")] {
        _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {line_y:.1}h22\" stroke=\"#5b7083\" stroke-width=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{text_y:.1}\" font-size=\"11\" fill=\"#44525e\">{says}</text>",
            width(rate),
            x + 28.0
        );
        x += 28.0 + text_width(says, 11.0) + 14.0;
    }
}

/// The label, with a mark before it that says the same as the colour.
fn marked(link: &LinkView) -> String {
    let mark = match Health::of(link) {
        Health::Well => "",
        Health::Slow => "\u{25b2} ",
        Health::Failing => "\u{2715} ",
    };
    format!("{mark}{}", label(link))
}

fn box_of(node: &NodeView) -> (f64, f64) {
    let name = text_width(&cut(&node.id), 13.0) * 1.08;
    let below = text_width(&subtitle(node), 10.0);
    ((name.max(below) + 20.0).max(64.0), 38.0)
}

fn cut(text: &str) -> String {
    if text.chars().count() <= LETTERS {
        return text.to_owned();
    }
    text.chars().take(LETTERS - 1).chain(['\u{2026}']).collect()
}

/// About how wide text is in a font without serifs: a little more rather than less.
fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|letter| match letter {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.3,
            'f' | 't' | 'r' | ' ' | '/' | '(' | ')' | '[' | ']' | '-' => 0.4,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.9,
            upper if upper.is_uppercase() => 0.72,
            wide if u32::from(wide) >= 0x1100 => 1.0,
            _ => 0.58,
        })
        .sum();
    ems * size
}
