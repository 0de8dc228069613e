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
    print(table(&map.edges))
}

fn table(edges: &[EdgeView]) -> Table {
    let mut table = Table::new([
        Column::Text("CALLER"),
        Column::Number("PID"),
        Column::Text("DESTINATION"),
        Column::Text("SERVICE"),
        Column::Number("CALLS"),
        Column::Number("ERR"),
        Column::Number("p50"),
        Column::Number("p90"),
        Column::Number("p99"),
        Column::Number("IN"),
        Column::Number("OUT"),
        Column::Number("OPEN"),
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
            edge.calls.to_string(),
            (edge.failed + edge.reset).to_string(),
            time(|latency| latency.p50_us),
            time(|latency| latency.p90_us),
            time(|latency| latency.p99_us),
            bytes(edge.bytes_in),
            bytes(edge.bytes_out),
            edge.open.to_string(),
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
    let of_process = || {
        destination
            .process
            .as_ref()
            .map(|process| process.service.clone())
    };
    destination.name.clone().or_else(of_process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::view::{EndView, LatencyView, Role};

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
            peer: None,
            destination: DestinationView {
                address: "::1".to_owned(),
                port: 80,
                name: None,
                process: None,
            },
            role: Role::Client,
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
        };
        let text = table(&[edge]).to_string();
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let wanted = [
            "checkout", "7", "[::1]:80", "-", "2", "2", "900µs", "200ms", "201ms", "2.00kB", "100B", "1",
        ];
        assert_eq!(cells, wanted);
    }
}
