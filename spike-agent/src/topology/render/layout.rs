//! Places the nodes in layers, callers to the left of what they call, with few crossings (Sugiyama's method).

use std::collections::HashMap;

use dagre::graph::{Graph, GraphOptions};
use dagre::{EdgeLabel, LayoutOptions, NodeLabel, RankDir, layout};

/// Pixels between two layers at most: with many edges there is more room to tell them apart.
const WIDEST_GAP: f64 = 140.0;

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
            ranksep: (40.0 + 6.0 * (sizes.edges.len() as f64).sqrt()).min(WIDEST_GAP),
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
    let mut edges: Vec<(Vec<Spot>, Spot)> = (0..sizes.edges.len())
        .map(|number| by_name.remove(&format!("e{number}")).unwrap_or_default())
        .collect();
    for ((from, to, _), (points, _)) in sizes.edges.iter().zip(&mut edges) {
        join_sides(sizes, &nodes, *from, *to, points);
    }
    within(sizes, nodes, edges, margin)
}

/// Lets an edge to the right leave its caller at the right side, and arrive at the left one.
fn join_sides(sizes: &Sizes, nodes: &[Spot], from: usize, to: usize, points: &mut [Spot]) {
    let (Some(start), Some(end)) = (nodes.get(from), nodes.get(to)) else {
        return;
    };
    let right = start.x + sizes.nodes[from].0 / 2.0;
    let left = end.x - sizes.nodes[to].0 / 2.0;
    if right < left
        && let [first, .., last] = points
    {
        *first = Spot { x: right, y: start.y };
        *last = Spot { x: left, y: end.y };
    }
}

/// Moves all so that nothing is nearer to the picture's edges than the margin.
fn within(sizes: &Sizes, mut nodes: Vec<Spot>, mut edges: Vec<(Vec<Spot>, Spot)>, margin: f64) -> Places {
    let corners = nodes
        .iter()
        .zip(&sizes.nodes)
        .flat_map(|(spot, (width, height))| {
            let (x, y) = (width / 2.0, height / 2.0);
            [(spot.x - x, spot.y - y), (spot.x + x, spot.y + y)]
        });
    let labels = edges
        .iter()
        .zip(&sizes.edges)
        .flat_map(|((_, spot), (.., (width, height)))| {
            let (x, y) = (width / 2.0, height / 2.0);
            [(spot.x - x, spot.y - y), (spot.x + x, spot.y + y)]
        });
    let points = edges
        .iter()
        .flat_map(|(points, _)| points)
        .map(|spot| (spot.x, spot.y));
    let all: Vec<(f64, f64)> = corners.chain(labels).chain(points).collect();
    let least = all.iter().fold((f64::INFINITY, f64::INFINITY), |least, at| {
        (least.0.min(at.0), least.1.min(at.1))
    });
    let most = all.iter().fold((0.0_f64, 0.0_f64), |most, at| {
        (most.0.max(at.0), most.1.max(at.1))
    });
    if all.is_empty() {
        return Places {
            width: margin,
            height: margin,
            nodes,
            edges,
        };
    }
    let (right, down) = (margin - least.0, margin - least.1);
    let shift = |spot: &mut Spot| {
        spot.x += right;
        spot.y += down;
    };
    nodes.iter_mut().for_each(shift);
    for (points, label) in &mut edges {
        points.iter_mut().for_each(shift);
        shift(label);
    }
    Places {
        width: most.0 + right + margin,
        height: most.1 + down + margin,
        nodes,
        edges,
    }
}
