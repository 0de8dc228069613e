//! What every format has to stand.

use super::*;
use crate::model::{ServiceKind, view::LatencyView};

/// Names that every format has to escape.
const NASTY: [&str; 4] = ["a \"b\" <c> & d", "[x](y)|{z};#1", "back\\slash", "tab\there"];

fn node(id: &str) -> NodeView {
    NodeView {
        id: id.to_owned(),
        name: id.to_owned(),
        instances: 2,
        rate_in: 3.5,
        ..NodeView::default()
    }
}

fn link(from: &str, to: &str, error_percent: f64, p99_us: u64) -> LinkView {
    LinkView {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: "http".to_owned(),
        rate: 12.5,
        calls: 100,
        error_percent,
        latency: Some(LatencyView {
            p99_us,
            ..LatencyView::default()
        }),
        ..LinkView::default()
    }
}

fn nasty() -> GraphView {
    GraphView {
        from: "2026-01-01T00:00:00.000Z".to_owned(),
        to: "2026-01-01T00:01:00.000Z".to_owned(),
        seconds: 60.0,
        nodes: NASTY.into_iter().map(node).collect(),
        edges: vec![
            link(NASTY[0], NASTY[1], 0.0, 100),
            link(NASTY[1], NASTY[2], 12.0, 100),
            link(NASTY[2], NASTY[0], 0.0, 900_000),
            link(NASTY[3], NASTY[3], 0.0, 100),
        ],
        ..GraphView::default()
    }
}

#[test]
fn names_cannot_break_out_of_a_format() {
    let graph = nasty();
    let dot = render(&graph, Format::Dot).unwrap();
    assert!(
        dot.contains(r#""a \"b\" <c> & d" -> "[x](y)|{z};#1" [label="http 12.5/s p99 100µs""#),
        "{dot}"
    );
    assert!(
        dot.contains(r#""back\\slash""#) && dot.contains("tab?here"),
        "{dot}"
    );
    let mermaid = render(&graph, Format::Mermaid).unwrap();
    assert!(
        mermaid.contains("n0[\"a #34;b#34; #60;c#62; #38; d<br/>"),
        "{mermaid}"
    );
    assert!(
        mermaid.contains("n1 -.->|\"http 12.5/s p99 100µs 12% errors\"| n2"),
        "{mermaid}"
    );
    let graphml = render(&graph, Format::Graphml).unwrap();
    assert!(
        graphml.contains("<node id=\"a &quot;b&quot; &lt;c&gt; &amp; d\">"),
        "{graphml}"
    );
    let grafana: serde_json::Value = serde_json::from_str(&render(&graph, Format::Grafana).unwrap()).unwrap();
    assert_eq!(grafana["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(grafana["edges"][1]["source"], NASTY[1]);
    assert_eq!(grafana["left_out"], 0);
}

#[test]
fn a_picture_has_every_node_and_edge_and_marks_the_bad_ones() {
    let mut graph = nasty();
    graph.nodes[3].kind = ServiceKind::External;
    let svg = render(&graph, Format::Svg).unwrap();
    assert_eq!(svg.matches("class=\"node\"").count(), 4, "{svg}");
    assert_eq!(svg.matches("class=\"edge\"").count(), 4, "{svg}");
    assert!(
        svg.contains("\u{2715} http 12.5/s") && svg.contains("\u{25b2} http 12.5/s"),
        "{svg}"
    );
    assert!(!svg.contains("NaN"), "{svg}");
}

#[test]
fn nodes_of_a_picture_do_not_overlap_and_point_to_the_right() {
    let names: Vec<String> = (0..50).map(|number| format!("service-{number}")).collect();
    let mut graph = GraphView {
        nodes: names.iter().map(|name| node(name)).collect(),
        ..GraphView::default()
    };
    for number in 1..50_usize {
        for caller in [number / 2, number / 3] {
            graph.edges.push(link(&names[caller], &names[number], 0.0, 100));
        }
    }
    graph.edges.retain(|link| link.from != link.to);
    let svg = render(&graph, Format::Svg).unwrap();
    if let Some(dir) = std::env::var_os("SPIKE_PICTURES") {
        // For people to look at.
        std::fs::write(std::path::Path::new(&dir).join("fifty.svg"), &svg).unwrap();
    }
    let number = |line: &str, name: &str| -> f64 {
        let rest = line.split_once(&format!(" {name}=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let boxes: Vec<(f64, f64, f64, f64)> = svg
        .lines()
        .filter(|line| line.starts_with("<g class=\"node\""))
        .map(|line| {
            let line = line.split_once("<rect").unwrap().1;
            (
                number(line, "x"),
                number(line, "y"),
                number(line, "width"),
                number(line, "height"),
            )
        })
        .collect();
    assert_eq!(boxes.len(), 50);
    let lines = svg.lines().filter_map(|line| line.split_once(" d=\"M"));
    for (_, path) in lines.filter(|(before, _)| before.contains("class=\"edge\"")) {
        let path = path.split_once('"').unwrap().0;
        let numbers = path
            .split([' ', 'C'])
            .map(|number| number.parse::<f64>().unwrap());
        assert!(
            numbers.min_by(f64::total_cmp).unwrap() >= 0.0,
            "out of the picture: {path}"
        );
    }
    for (index, a) in boxes.iter().enumerate() {
        for b in &boxes[index + 1..] {
            let apart = a.0 + a.2 <= b.0 || b.0 + b.2 <= a.0 || a.1 + a.3 <= b.1 || b.1 + b.3 <= a.1;
            assert!(apart, "{a:?} {b:?}");
        }
    }
    for number in 1..50 {
        assert!(
            boxes[number / 2].0 < boxes[number].0,
            "a caller is to the left of what it calls"
        );
    }
}

#[test]
fn what_is_too_large_for_a_picture_is_told() {
    let graph = GraphView {
        nodes: (0..401).map(|number| node(&number.to_string())).collect(),
        ..GraphView::default()
    };
    let error = render(&graph, Format::Svg).unwrap_err();
    assert!(error.contains("401 nodes") && error.contains("find"), "{error}");
    assert!(render(&graph, Format::Dot).is_ok());
}

#[test]
fn an_empty_map_is_drawn_too() {
    let graph = GraphView::default();
    for format in [
        Format::Dot,
        Format::Mermaid,
        Format::Graphml,
        Format::Svg,
        Format::Grafana,
    ] {
        assert!(!render(&graph, format).unwrap().contains("NaN"), "{format:?}");
    }
}
