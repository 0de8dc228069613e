//! `cargo xtask bench edges`: what the agent's memory is after very many connections to very many addresses.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    load::{self, Usage},
    report::{self, Bounds, Line, Spread},
};
use crate::{cargo::build_spike, demo::stage::Stage};

/// How long the last edges get to move from the hooks' table to the agent.
const SETTLE: Duration = Duration::from_secs(6);

/// Measure the agent's memory after 1,000,000 connections on 100,000 edges.
///
/// A client connects to as many addresses of 127.0.0.0/8, several times to each, and says nothing. Needs root; takes
/// some minutes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Addresses, each of which makes an edge.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=120_000))]
    edges: u32,
    /// Connections to each.
    #[arg(long, default_value_t = 10)]
    each: u32,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    stage.place("client")?;
    let port = load::accept_all(Ipv4Addr::UNSPECIFIED)?.port();
    stage.start_agent()?;
    let pid = stage.agent_pid().context("the agent has ended")?;
    println!("{}", report::machine());
    let (before, start) = (Usage::of(pid)?, Instant::now());
    let words = [
        "spread".to_owned(),
        port.to_string(),
        "0".to_owned(),
        options.edges.to_string(),
        options.each.to_string(),
    ];
    load::own_client(&stage, "client", &words)?;
    let took = start.elapsed();
    thread::sleep(SETTLE);
    let status: serde_json::Value = serde_json::from_str(&stage.spike(&["status", "--json"])?)?;
    let lost = status["losses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|loss| loss["name"] == "edges_full")
        .map_or(0, |loss| loss["count"].as_u64().unwrap_or(0));
    let after = Usage::of(pid)?;
    let connections = u64::from(options.edges) * u64::from(options.each);
    println!(
        "{connections} connections in {:.0} s; {} edges, {lost} connections not drawn; agent {:.0} MiB before, {:.0} MiB after",
        took.as_secs_f64(),
        status["edges"],
        before.mebibytes,
        after.mebibytes
    );
    let what = format!("{connections} connections seen, {} edges", options.edges);
    let lines = vec![
        Line {
            what: format!("{what}: the agent's memory"),
            against: "MiB".to_owned(),
            found: Spread::one(after.mebibytes),
            bounds: Some(Bounds::AtMost {
                must: 400.0,
                goal: 150.0,
            }),
        },
        Line {
            what: format!("{what}: connections not drawn"),
            against: "of all".to_owned(),
            found: Spread::one(lost as f64),
            bounds: Some(Bounds::AtMost { must: 0.0, goal: 0.0 }),
        },
    ];
    stage.stop_agent()?;
    report::keep("edges", &lines)?;
    Ok(lines)
}
