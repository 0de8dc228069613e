//! `spike map`: who calls whom.

use std::{cmp::Reverse, net::IpAddr};

use anyhow::Result;
use clap::Args;

use super::{
    client::Client,
    human::{bytes, micros},
    output::{print, print_json},
    table::{Column, Table},
};
use crate::model::view::{DestinationView, EdgeView, MapView};

#[derive(Debug, Args)]
pub(super) struct MapArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: MapArgs) -> Result<()> {
    let mut map: MapView = args.client.get("/v1/map").await?;
    if args.json {
        return print_json(&map);
    }
    // The sort is stable: edges with as many calls keep the agent's order.
    map.edges.sort_by_key(|edge| Reverse(edge.calls));
    print(table(&map.edges))?;
    for loss in &map.losses {
        eprintln!("not on the map: {} {}", loss.count, loss.description);
    }
    Ok(())
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
        let time = |pick: fn(&crate::model::view::LatencyView) -> u64| {
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
    use crate::model::view::{EdgeDecodingView, EndView, LatencyView};

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
