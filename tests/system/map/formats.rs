//! The map in the formats of other tools, read by those tools.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use spike_tests::{
    needs,
    shop::mermaid,
    world::{Place, World},
};

use super::{busy_shop, expected, triples};

type Triples = BTreeSet<(String, String, String)>;

/// Prints `from<TAB>to<TAB>protocol` for each edge that networkx reads.
const NETWORKX: &str = "
import sys, networkx
graph = networkx.read_graphml(sys.argv[1])
assert graph.is_directed()
for source, target, data in graph.edges(data=True):
    assert isinstance(data['calls'], int) and isinstance(data['rate'], float), data
    print(source, target, data['protocol'], sep='\\t')
";

/// Prints the title of each node and each edge of a picture, and fails where a box is outside of it.
const PICTURE: &str = "
import sys, xml.etree.ElementTree as tree
svg = tree.parse(sys.argv[1]).getroot()
name = '{http://www.w3.org/2000/svg}'
wide, high = float(svg.get('width')), float(svg.get('height'))
for box in svg.iter(name + 'rect'):
    x, y = float(box.get('x', 0)), float(box.get('y', 0))
    assert 0 <= x and x + float(box.get('width')) <= wide, box.attrib
    assert 0 <= y and y + float(box.get('height')) <= high, box.attrib
for kind in ('node', 'edge'):
    for found in svg.iter():
        if found.get('class') == kind:
            print(kind, found.find(name + 'title').text, sep='\\t')
";

pub(super) fn the_shop_is_drawn_right_in_every_format() {
    for program in ["dot", "rsvg-convert", "node"] {
        needs::program(program);
    }
    let world = World::new();
    let (_shop, agent) = busy_shop(&world);
    let oracle = world.place("oracle");
    let draw = |format: &str| {
        let text = agent.spike(&["map", "--format", format]).ok();
        let path = world.path(&format!("map.{format}"));
        fs::write(&path, &text).expect("write the drawing");
        (text, path.to_string_lossy().into_owned())
    };

    let (json, _) = {
        let text = agent
            .spike(&["map", "--group", "service", "--format", "json"])
            .ok();
        (serde_json::from_str::<Value>(&text).expect("JSON"), text)
    };
    assert_eq!(triples(&json), expected());
    let redis = json["edges"].as_array().and_then(|edges| {
        edges
            .iter()
            .find(|edge| edge["from"] == "users" && edge["protocol"] == "redis")
    });
    let redis = redis.expect("users call redis");
    assert!(
        redis["rate"].as_f64() > Some(0.0) && redis["error_percent"] == 0.0,
        "{redis:#}"
    );
    let nginx = json["nodes"]
        .as_array()
        .and_then(|nodes| nodes.iter().find(|node| node["id"] == "nginx"));
    assert_eq!(nginx.expect("nginx")["instances"], 2);

    let (_, dot) = draw("dot");
    assert_eq!(read_by_graphviz(&oracle, &dot), expected());

    let (chart, _) = draw("mermaid");
    match mermaid(&world, &chart) {
        Some(read) => assert_eq!(from_mermaid(&read), expected()),
        None => eprintln!("Mermaid's parser is not installed: its chart is read line by line instead"),
    }
    assert_eq!(from_chart(&chart), expected());

    let (_, graphml) = draw("graphml");
    let read = oracle.run("/usr/bin/python3", &["-c", NETWORKX, &graphml]);
    assert!(
        !read.stderr.contains("No module named"),
        "scripts/setup.sh --test installs python3-networkx: {}",
        read.stderr
    );
    assert_eq!(tabbed(&read.ok()), expected());

    let (text, _) = draw("grafana");
    let frames: Value = serde_json::from_str(&text).expect("JSON");
    let ids: BTreeSet<&str> = frames["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let edges = frames["edges"].as_array().expect("edges");
    assert_eq!((ids.len(), edges.len()), (6, 6), "{frames:#}");
    for edge in edges {
        let known = |key: &str| edge[key].as_str().is_some_and(|id| ids.contains(id));
        assert!(
            known("source") && known("target") && edge["mainstat"].is_string(),
            "{edge:#}"
        );
    }

    let (_, svg) = draw("svg");
    let titles = oracle.run("/usr/bin/python3", &["-c", PICTURE, &svg]).ok();
    let drawn: Triples = titles.lines().filter_map(from_title).collect();
    assert_eq!(drawn, expected());
    assert_eq!(
        titles.lines().filter(|line| line.starts_with("node\t")).count(),
        6,
        "{titles}"
    );
    let png = world.path("map.png").to_string_lossy().into_owned();
    oracle.run("rsvg-convert", &["--output", &png, &svg]).ok();
    let picture = fs::read(&png).expect("read the picture");
    assert!(
        picture.starts_with(b"\x89PNG") && picture.len() > 5_000,
        "{} bytes",
        picture.len()
    );
    if let Some(dir) = std::env::var_os("SPIKE_PICTURES") {
        // For people to look at.
        for name in ["map.svg", "map.png"] {
            fs::copy(world.path(name), std::path::Path::new(&dir).join(name)).expect("keep the picture");
        }
    }
}

/// The edges that Graphviz lays out: `edge tail head n x1 y1 .. label lx ly style color` a line.
fn read_by_graphviz(oracle: &Place<'_>, file: &str) -> Triples {
    let plain = oracle.run("dot", &["-Tplain", file]).ok();
    let edges = plain.lines().filter_map(|line| line.strip_prefix("edge "));
    edges
        .map(|edge| {
            let names: Vec<&str> = edge.splitn(3, ' ').collect();
            let label = edge
                .split('"')
                .find(|part| part.contains("/s"))
                .unwrap_or_default();
            let name = |name: &str| name.trim_matches('"').to_owned();
            (name(names[0]), name(names[1]), first_word(label))
        })
        .collect()
}

fn from_mermaid(read: &Value) -> Triples {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // The parser keeps `#45;` in marks of its own until it draws.
    let plain = |name: String| name.replace("ﬂ°°45¶ß", "-");
    let name = |id: &Value| {
        let nodes = read["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["id"] == *id).expect("a node");
        plain(
            text(&node["text"])
                .split("<br")
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let edges = read["edges"].as_array().expect("edges");
    edges
        .iter()
        .map(|edge| {
            (
                name(&edge["from"]),
                name(&edge["to"]),
                first_word(&text(&edge["text"])),
            )
        })
        .collect()
}

/// Reads the chart without Mermaid: every line must be one that the format has.
fn from_chart(chart: &str) -> Triples {
    let mut lines = chart.lines();
    assert_eq!(lines.next(), Some("flowchart LR"));
    let mut names: Vec<String> = Vec::new();
    let mut edges = Triples::new();
    let mut styles = 0;
    for line in lines {
        let line = line.trim();
        if let Some(style) = line.strip_prefix("linkStyle ") {
            assert!(style.starts_with(&format!("{styles} stroke:#")), "{line}");
            styles += 1;
        } else if let Some((from, rest)) = line.split_once(" -->|\"").or_else(|| line.split_once(" -.->|\""))
        {
            let (label, to) = rest.split_once("\"| ").expect("an edge's label and end");
            let name =
                |id: &str| names[id.trim_start_matches('n').parse::<usize>().expect("a number")].clone();
            edges.insert((name(from), name(to), first_word(label)));
        } else {
            let (id, text) = line.split_once("[\"").expect("a node");
            assert_eq!(id.trim_end_matches('('), format!("n{}", names.len()), "{line}");
            names.push(text.split(['<', '"']).next().unwrap_or_default().to_owned());
        }
    }
    assert_eq!(styles, edges.len());
    edges
}

fn tabbed(text: &str) -> Triples {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split('\t').collect();
            let [from, to, protocol] = words[..] else {
                return None;
            };
            Some((from.to_owned(), to.to_owned(), protocol.to_owned()))
        })
        .collect()
}

/// `edge<TAB>users to redis-server: redis 12/s p99 ...`
fn from_title(line: &str) -> Option<(String, String, String)> {
    let (ends, label) = line.strip_prefix("edge\t")?.split_once(": ")?;
    let (from, to) = ends.split_once(" to ")?;
    Some((from.to_owned(), to.to_owned(), first_word(label)))
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
