//! `cargo xtask bench map`: a map of 1,000 services and 10,000 edges, in the agent and over the command line.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::report::{self, Bounds, Line, Spread};
use crate::{
    cargo::{build_spike, cargo, check},
    demo::stage::{Stage, text_of},
};

/// Measure what a map of 1,000 services and 10,000 edges costs: the graph, its JSON, its analysis, its history.
///
/// The kernel side keeps 8,192 edges a host, so this map comes out of a history that the benchmark writes: what is
/// measured over the command line is that of the last five minutes, 30 steps of 10,000 edges, read, summed up, grouped
/// and sent. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each command is run.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench-map", false)?;
    let state = stage.state_dir();
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
            .arg(&state),
    )?;
    stage.start_agent()?;
    // Every edge of the history is in use in every step: the worst case.
    let mut lines = Vec::new();
    for (args, bounds) in [
        (
            &["map", "--json", "--group", "service", "--since", "5m"][..],
            None,
        ),
        (
            &[
                "map", "--json", "--group", "service", "--since", "10s", "--at", "1m-ago",
            ],
            Some(Bounds::AtMost {
                must: 100.0,
                goal: 50.0,
            }),
        ),
        (
            &["analyze", "--json", "--since", "5m"],
            Some(Bounds::AtMost {
                must: 1000.0,
                goal: 500.0,
            }),
        ),
        (&["status"], None),
    ] {
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..options.rounds {
            let start = Instant::now();
            size = text_of(&mut stage.spike_command(args))?.len();
            times.push(start.elapsed());
        }
        times.sort();
        let at = |index: usize| times.get(index).copied().unwrap_or(Duration::ZERO);
        println!(
            "spike {:<55} {:>8.1?} ({:.1?} to {:.1?}), {} kB",
            args.join(" "),
            at(times.len() / 2),
            at(0),
            at(times.len().saturating_sub(1)),
            size / 1000
        );
        let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        lines.push(Line {
            what: format!("10,000 edges: `spike {}`", args.join(" ")),
            against: "ms".to_owned(),
            found: Spread::of(&times),
            bounds,
        });
    }
    let pid = stage.agent_pid().context("the agent runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for key in ["VmHWM:", "VmRSS:"] {
        let line = status
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        println!("the agent's {line}");
    }
    stage.stop_agent()?;
    report::keep("map", &lines)?;
    Ok(lines)
}
