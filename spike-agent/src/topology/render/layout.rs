//! Places the nodes in layers, callers to the left of what they call, with few crossings (Sugiyama's method).

use std::collections::HashMap;

use dagre::graph::{Graph, GraphOptions};
use dagre::{EdgeLabel, LayoutOptions, NodeLabel, RankDir, layout};

/// A box or a point, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spot {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) width: f64,
    pub(super) height: f64,
    /// Middles of the nodes, in their order.
    pub(super) nodes: Vec<Spot>,
    /// Of each edge, in their order, the points that its line passes, and the middle of its label.
    pub(super) edges: Vec<(Vec<Spot>, Spot)>,
}

/// Sizes in pixels: of the nodes, and of the edges' labels.
pub(super) struct Sizes {
    pub(super) nodes: Vec<(f64, f64)>,
    /// From which node to which, by number, and the size of the label.
    pub(super) edges: Vec<(usize, usize, (f64, f64))>,
}

pub(super) fn place(sizes: &Sizes, margin: f64) -> Places {
    let mut graph: Graph<NodeLabel, EdgeLabel> = Graph::with_options(GraphOptions {
        directed: true,
        multigraph: true,
        compound: false,
    });
    let name = |number: usize| format!("n{number}");
    for (number, (width, height)) in sizes.nodes.iter().enumerate() {
        let label = NodeLabel {
            width: *width,
            height: *height,
            ..NodeLabel::default()
        };
        graph.set_node(name(number), Some(label));
    }
    for (number, (from, to, (width, height))) in sizes.edges.iter().enumerate() {
        let label = EdgeLabel {
            width: *width,
            height: *height,
            ..EdgeLabel::default()
        };
        let key = format!("e{number}");
        graph.set_edge(&*name(*from), &*name(*to), Some(label), Some(key.as_str()));
    }
    layout(
        &mut graph,
        Some(LayoutOptions {
            rankdir: RankDir::LR,
            nodesep: 28.0,
            edgesep: 14.0,
            ranksep: 46.0,
            marginx: margin,
            marginy: margin,
            ..LayoutOptions::default()
        }),
    );
    let spot = |x: Option<f64>, y: Option<f64>| Spot {
        x: x.unwrap_or_default(),
        y: y.unwrap_or_default(),
    };
    let nodes: Vec<Spot> = (0..sizes.nodes.len())
        .map(|number| {
            let label = graph.node(&name(number));
            label.map_or_else(Spot::default, |label| spot(label.x, label.y))
        })
        .collect();
    let mut by_name: HashMap<String, (Vec<Spot>, Spot)> = HashMap::new();
    for edge in graph.edges() {
        let (Some(label), Some(key)) = (graph.edge_by_obj(&edge), edge.name.clone()) else {
            continue;
        };
        let points = label.points.iter().map(|point| Spot {
            x: point.x,
            y: point.y,
        });
        by_name.insert(key, (points.collect(), spot(label.x, label.y)));
    }
    let edges: Vec<(Vec<Spot>, Spot)> = (0..sizes.edges.len())
        .map(|number| by_name.remove(&format!("e{number}")).unwrap_or_default())
        .collect();
    let mut places = Places {
        width: margin,
        height: margin,
        nodes,
        edges,
    };
    for (spot, (width, height)) in places.nodes.iter().zip(&sizes.nodes) {
        places.width = places.width.max(spot.x + width / 2.0 + margin);
        places.height = places.height.max(spot.y + height / 2.0 + margin);
    }
    for spot in places.edges.iter().flat_map(|(points, _)| points) {
        places.width = places.width.max(spot.x + margin);
        places.height = places.height.max(spot.y + margin);
    }
    places
}
