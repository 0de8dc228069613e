//! `cargo xtask bench map`: a map of 1,000 services and 10,000 edges, in the agent and over the command line.

use std::{
    fs,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    load,
    report::{self, Bounds, Line, Spread},
};
use crate::{
    cargo::{build_spike, cargo, check},
    demo::stage::{Stage, text_of},
};

/// Measure what a map of 1,000 services and 10,000 edges costs: the graph, its JSON, its analysis, its history.
///
/// First of 10,000 edges that are called while the agent runs; then out of a history that the benchmark writes, in which
/// every edge is in use in every step of 10 s. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each command is run.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

const CLIENT: &str = "client";
const EDGES: u32 = 10_000;
/// So many edges that are new fit into the hooks' table at a time.
const AT_ONCE: u32 = 2_500;

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench-map", false)?;
    stage.place(CLIENT)?;
    let port = load::answer_all(Ipv4Addr::UNSPECIFIED)?.port().to_string();
    stage.start_agent()?;
    for part in 0..EDGES / AT_ONCE {
        let (first, count) = ((part * AT_ONCE).to_string(), AT_ONCE.to_string());
        let words = ["spread", &port, &first, &count, "2", "--call"].map(str::to_owned);
        load::own_client(&stage, CLIENT, &words)?;
        // Until edges at rest make room for the next.
        thread::sleep(Duration::from_secs(6));
    }
    let (map, analysis) = (
        Bounds::AtMost {
            must: 100.0,
            goal: 50.0,
        },
        Bounds::AtMost {
            must: 1000.0,
            goal: 500.0,
        },
    );
    let mut lines = Vec::new();
    for (args, bounds) in [
        ("map --json", Some(map)),
        ("map --json --group service", None),
        ("analyze --json", Some(analysis)),
        ("status", None),
    ] {
        lines.push(time(&stage, "10,000 edges", args, bounds, options)?);
    }
    print_memory(&stage)?;
    stage.stop_agent()?;
    check(
        cargo()
            .args([
                "bench",
                "--locked",
                "--package",
                "spike-agent",
                "--bench",
                "map",
                "--",
            ])
            .arg(stage.state_dir()),
    )?;
    stage.start_agent()?;
    for (args, bounds) in [
        ("map --json --group service --since 10s --at 1m-ago", None),
        ("map --json --group service --since 5m", None),
        ("analyze --json --since 5m", Some(analysis)),
    ] {
        lines.push(time(&stage, "history of 10,000 edges", args, bounds, options)?);
    }
    print_memory(&stage)?;
    stage.stop_agent()?;
    report::keep("map", &lines)?;
    Ok(lines)
}

/// How long a command takes, in milliseconds.
fn time(stage: &Stage, of: &str, args: &str, bounds: Option<Bounds>, options: &Options) -> Result<Line> {
    let words: Vec<&str> = args.split(' ').collect();
    let mut times = Vec::new();
    let mut size = 0;
    for _ in 0..options.rounds {
        let start = Instant::now();
        size = text_of(&mut stage.spike_command(&words))?.len();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let found = Spread::of(&times);
    println!("spike {args:<55} {:>8.1} ms, {} kB", found.median, size / 1000);
    Ok(Line {
        what: format!("{of}: `spike {args}`"),
        against: "ms".to_owned(),
        found,
        bounds,
    })
}

fn print_memory(stage: &Stage) -> Result<()> {
    let pid = stage.agent_pid().context("the agent runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for key in ["VmHWM:", "VmRSS:"] {
        let line = status
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        println!("the agent's {line}");
    }
    Ok(())
}
