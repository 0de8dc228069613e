//! `spike map`: who calls whom, now or then, as a table or drawn.

use std::{cmp::Reverse, io::IsTerminal as _, io::Write as _, net::IpAddr, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    client::Client,
    human::{bytes, micros, percent, rate},
    output::print,
    table::{Column, Table},
};
use crate::model::{
    units::parse_duration,
    view::{CounterView, DestinationView, EdgeView, GraphView, Group, LatencyView, MapView},
};

#[derive(Debug, Args)]
pub(super) struct MapArgs {
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    stretch: Stretch,
    /// What the nodes are; edges as they are seen unless said, services when drawn
    #[arg(long, value_enum)]
    group: Option<Group>,
    /// Only edges of which this is true, such as `p99>100ms or errors>1%`
    ///
    /// Text: from, to, service (either), protocol, edge; compared by = and != with a pattern. Times: p50, p90, p99, max,
    /// mean, rtt. Percent: errors. Numbers: rate (a second), calls, opened, open, failed, reset, retransmits, port. Sizes:
    /// bytes_out, bytes_in. Joined by `and`, `or`, `not` and parentheses.
    #[arg(long, value_name = "CONDITION")]
    find: Option<String>,
    /// No edges of which this is true, such as `protocol=dns`
    #[arg(long, value_name = "CONDITION")]
    hide: Option<String>,
    /// How it is shown
    #[arg(long, short, value_enum, default_value_t)]
    format: Format,
    /// Print JSON: the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Show it again and again, this often
    #[arg(long, value_name = "TIME", value_parser = parse_duration, num_args = 0..=1, default_missing_value = "2s")]
    watch: Option<Duration>,
}

/// Of when.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Stretch {
    /// When the stretch of time ends: `10m-ago`, or RFC 3339 such as 2026-01-02T03:04:05Z [default: now]
    #[arg(long, value_name = "WHEN")]
    pub(super) at: Option<String>,
    /// How long it is, such as 5m [default: all since the agent's start, or a minute with --at]
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// Graphviz
    Dot,
    /// A flowchart for Mermaid
    Mermaid,
    /// GraphML, for yEd, Gephi, networkx
    Graphml,
    /// A picture
    Svg,
    /// The frames of Grafana's node graph panel
    Grafana,
}

/// The query of a request: names and values, those that are there.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| {
        let value = percent_encode((*value)?.as_bytes(), NON_ALPHANUMERIC);
        Some(format!("{name}={value}"))
    });
    let given: Vec<String> = given.collect();
    if given.is_empty() {
        String::new()
    } else {
        format!("?{}", given.join("&"))
    }
}

/// A group as the API has it.
pub(super) fn group_name(group: Group) -> &'static str {
    match group {
        Group::Process => "process",
        Group::Service => "service",
        Group::Host => "host",
    }
}

pub(super) async fn run(args: MapArgs) -> Result<()> {
    let Some(period) = args.watch else {
        return show(&args).await.map(|text| print_bytes(&text))?;
    };
    if period < Duration::from_millis(100) {
        bail!("--watch {period:?} is too often; the least is 100ms");
    }
    let is_terminal = std::io::stdout().is_terminal();
    // Listened to all the time: a Ctrl-C while the agent is asked must not be lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let showing = async {
        loop {
            let text = show(&args).await?;
            if is_terminal {
                // Home, and whatever is left of the last time goes.
                print("\x1b[H\x1b[2J")?;
            }
            print_bytes(&text)?;
            tokio::time::sleep(period).await;
        }
    };
    tokio::select! {
        done = showing => done,
        _ = interrupt.recv() => Ok(()),
    }
}

fn print_bytes(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text)?;
    Ok(out.flush()?)
}

async fn show(args: &MapArgs) -> Result<Vec<u8>> {
    let format = if args.json { Format::Json } else { args.format };
    let group = args.group.map(group_name);
    let mut pairs = vec![
        ("at", args.stretch.at.as_deref()),
        ("since", args.stretch.since.as_deref()),
        ("find", args.find.as_deref()),
        ("hide", args.hide.as_deref()),
    ];
    let draw = match format {
        Format::Table | Format::Json => None,
        Format::Dot => Some("dot"),
        Format::Mermaid => Some("mermaid"),
        Format::Graphml => Some("graphml"),
        Format::Svg => Some("svg"),
        Format::Grafana => Some("grafana"),
    };
    let path = if group.is_some() || draw.is_some() {
        pairs.extend([("group", group), ("format", draw)]);
        format!("/v1/map/graph{}", query(&pairs))
    } else {
        format!("/v1/map{}", query(&pairs))
    };
    if format != Format::Table {
        let mut text = args.client.text(&path).await?.to_vec();
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
        return Ok(text);
    }
    let (table, losses) = if group.is_some() {
        let graph: GraphView = args.client.get(&path).await?;
        (graph_table(&graph), graph.losses)
    } else {
        let mut map: MapView = args.client.get(&path).await?;
        // The sort is stable: edges with as many calls keep the agent's order.
        map.edges.sort_by_key(|edge| Reverse(edge.calls));
        (table(&map.edges), map.losses)
    };
    tell(&losses);
    Ok(table.to_string().into_bytes())
}

fn tell(losses: &[CounterView]) {
    for loss in losses {
        eprintln!("not on the map: {} {}", loss.count, loss.description);
    }
}

fn graph_table(graph: &GraphView) -> Table {
    let mut table = Table::new([
        Column::Text("FROM"),
        Column::Text("TO"),
        Column::Text("PROTO"),
        Column::Number("CALLS"),
        Column::Number("RATE"),
        Column::Number("ERR"),
        Column::Number("p50"),
        Column::Number("p90"),
        Column::Number("p99"),
        Column::Number("IN"),
        Column::Number("OUT"),
        Column::Number("OPEN"),
    ]);
    for link in &graph.edges {
        let time = |pick: fn(&LatencyView) -> u64| {
            link.latency
                .as_ref()
                .map_or_else(|| "-".to_owned(), |latency| micros(pick(latency)))
        };
        table.row([
            link.from.clone(),
            link.to.clone(),
            link.protocol.clone(),
            link.calls.to_string(),
            rate(link.rate),
            percent(link.error_percent),
            time(|latency| latency.p50_us),
            time(|latency| latency.p90_us),
            time(|latency| latency.p99_us),
            bytes(link.bytes_in),
            bytes(link.bytes_out),
            link.open.to_string(),
        ]);
    }
    table
}

fn table(edges: &[EdgeView]) -> Table {
    let mut table = Table::new([
        Column::Text("CALLER"),
        Column::Number("PID"),
        Column::Text("DESTINATION"),
        Column::Text("SERVICE"),
        Column::Text("PROTO"),
        Column::Number("CALLS"),
        Column::Number("ERR"),
        Column::Number("p50"),
        Column::Number("p90"),
        Column::Number("p99"),
        Column::Number("RTT"),
        Column::Number("RETR"),
        Column::Number("IN"),
        Column::Number("OUT"),
        Column::Number("OPEN"),
        Column::Number("CONF"),
    ]);
    for edge in edges {
        let dash = || "-".to_owned();
        let time = |pick: fn(&LatencyView) -> u64| {
            edge.latency
                .as_ref()
                .map_or_else(dash, |latency| micros(pick(latency)))
        };
        table.row([
            edge.caller
                .as_ref()
                .map(|caller| caller.service.clone())
                .or_else(|| edge.peer.clone())
                .unwrap_or_else(dash),
            edge.caller
                .as_ref()
                .map_or_else(dash, |caller| caller.pid.to_string()),
            address(&edge.destination),
            service(&edge.destination).unwrap_or_else(dash),
            edge.protocol.clone(),
            edge.calls.to_string(),
            (edge.failed + edge.reset).to_string(),
            time(|latency| latency.p50_us),
            time(|latency| latency.p90_us),
            time(|latency| latency.p99_us),
            edge.rtt_us.map_or_else(dash, micros),
            edge.retransmits.to_string(),
            bytes(edge.bytes_in),
            bytes(edge.bytes_out),
            edge.open.to_string(),
            edge.decoding.as_ref().map_or_else(dash, |decoding| {
                format!("{:.0}%", decoding.confidence_percent.floor())
            }),
        ]);
    }
    table
}

fn address(destination: &DestinationView) -> String {
    let DestinationView { address, port, .. } = destination;
    match address.parse() {
        Ok(IpAddr::V6(_)) => format!("[{address}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}

fn service(destination: &DestinationView) -> Option<String> {
    let process = destination.process.as_ref();
    process
        .map(|process| process.service.clone())
        .or_else(|| destination.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::view::{EdgeDecodingView, EndView};

    #[test]
    fn an_edge_is_a_line() {
        let edge = EdgeView {
            id: "1".to_owned(),
            caller: Some(EndView {
                pid: 7,
                name: "curl".to_owned(),
                service: "checkout".to_owned(),
                ..EndView::default()
            }),
            destination: DestinationView {
                address: "::1".to_owned(),
                port: 80,
                name: None,
                process: None,
            },
            protocol: "tcp".to_owned(),
            opened: 3,
            failed: 1,
            reset: 1,
            open: 1,
            calls: 2,
            bytes_out: 100,
            bytes_in: 2_000,
            latency: Some(LatencyView {
                p50_us: 900,
                p90_us: 200_000,
                p99_us: 201_000,
                max_us: 1,
                mean_us: 1,
            }),
            retransmits: 4,
            rtt_us: Some(50),
            decoding: Some(EdgeDecodingView {
                confidence_percent: 99.9,
                ..EdgeDecodingView::default()
            }),
            ..EdgeView::default()
        };
        let text = table(&[edge]).to_string();
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let wanted = [
            "checkout", "7", "[::1]:80", "-", "tcp", "2", "2", "900µs", "200ms", "201ms", "50µs", "4",
            "2.00kB", "100B", "1", "99%",
        ];
        assert_eq!(cells, wanted);
    }
}
