//! The graph as GraphML (<http://graphml.graphdrawing.org/specification.html>).

use std::fmt::Write as _;

use super::xml;
use crate::model::view::GraphView;

/// Data of nodes: name and type.
const OF_NODES: [(&str, &str); 6] = [
    ("name", "string"),
    ("kind", "string"),
    ("instances", "long"),
    ("rate_in", "double"),
    ("rate_out", "double"),
    ("node_error_percent", "double"),
];

/// Data of edges.
const OF_EDGES: [(&str, &str); 10] = [
    ("protocol", "string"),
    ("calls", "long"),
    ("rate", "double"),
    ("error_percent", "double"),
    ("p50_us", "long"),
    ("p99_us", "long"),
    ("bytes_out", "long"),
    ("bytes_in", "long"),
    ("failed", "long"),
    ("retransmits", "long"),
];

pub(super) fn render(graph: &GraphView) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:schemaLocation=\"http://graphml.graphdrawing.org/xmlns \
         http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd\">\n",
    );
    for (domain, keys) in [("node", &OF_NODES[..]), ("edge", &OF_EDGES[..])] {
        for (name, kind) in keys {
            _ = writeln!(
                text,
                "  <key id=\"{name}\" for=\"{domain}\" attr.name=\"{name}\" attr.type=\"{kind}\"/>"
            );
        }
    }
    text += "  <graph id=\"spike\" edgedefault=\"directed\">\n";
    for node in &graph.nodes {
        _ = writeln!(text, "    <node id=\"{}\">", xml(&node.id));
        let kind = format!("{:?}", node.kind).to_lowercase();
        for (name, value) in [
            ("name", xml(&node.name)),
            ("kind", kind),
            ("instances", node.instances.to_string()),
            ("rate_in", node.rate_in.to_string()),
            ("rate_out", node.rate_out.to_string()),
            ("node_error_percent", node.error_percent.to_string()),
        ] {
            data(&mut text, name, &value);
        }
        text += "    </node>\n";
    }
    for (number, link) in graph.edges.iter().enumerate() {
        _ = writeln!(
            text,
            "    <edge id=\"e{number}\" source=\"{}\" target=\"{}\">",
            xml(&link.from),
            xml(&link.to)
        );
        data(&mut text, "protocol", &xml(&link.protocol));
        data(&mut text, "calls", &link.calls.to_string());
        data(&mut text, "rate", &link.rate.to_string());
        data(&mut text, "error_percent", &link.error_percent.to_string());
        if let Some(latency) = link.latency {
            data(&mut text, "p50_us", &latency.p50_us.to_string());
            data(&mut text, "p99_us", &latency.p99_us.to_string());
        }
        data(&mut text, "bytes_out", &link.bytes_out.to_string());
        data(&mut text, "bytes_in", &link.bytes_in.to_string());
        data(&mut text, "failed", &link.failed.to_string());
        data(&mut text, "retransmits", &link.retransmits.to_string());
        text += "    </edge>\n";
    }
    text + "  </graph>\n</graphml>\n"
}

fn data(text: &mut String, key: &str, value: &str) {
    _ = writeln!(text, "      <data key=\"{key}\">{value}</data>");
}
