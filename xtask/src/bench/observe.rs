//! `cargo xtask bench observe`: wrk against nginx, with the agent off and on.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    cargo::build_spike,
    demo::stage::{Stage, text_of},
};

/// Measure requests per second and latency of wrk against nginx with the agent off and on.
///
/// 1 KiB over connections that are kept open, nothing armed. Off and on take turns, so that a drift of the machine
/// meets both alike; the medians are compared. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each of the two is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    seconds: u32,
    /// Connections that wrk keeps busy.
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

/// What wrk said.
#[derive(Debug)]
struct Sample {
    /// Requests per second.
    rate: f64,
    /// As wrk prints it, such as `612.00us`.
    p50: String,
    p99: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    stage.place("web")?;
    stage.place("client")?;
    let port = stage.nginx("web")?;
    print_machine(options);
    // The first run warms up caches and the processor's clock; it does not count.
    measure(&stage, port, options)?;

    println!(
        "{:>5}  {:>12} {:>10} {:>10}  {:>12} {:>10} {:>10}",
        "round", "off req/s", "p50", "p99", "on req/s", "p50", "p99"
    );
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let without = measure(&stage, port, options)?;
        stage.start_agent()?;
        let with = measure(&stage, port, options)?;
        stage.stop_agent()?;
        println!(
            "{round:>5}  {:>12.0} {:>10} {:>10}  {:>12.0} {:>10} {:>10}",
            without.rate, without.p50, without.p99, with.rate, with.p50, with.p99
        );
        off.push(without.rate);
        on.push(with.rate);
    }
    let (without, with) = (median(&mut off), median(&mut on));
    println!(
        "median {without:>11.0} off, {with:.0} on; ratio {:.3}",
        with / without
    );
    println!("spread {:>11} off, {} on", spread(&off), spread(&on));
    Ok(())
}

fn measure(stage: &Stage, port: u16, options: &Options) -> Result<Sample> {
    let (connections, seconds) = (options.connections.to_string(), format!("{}s", options.seconds));
    let url = format!("http://127.0.0.1:{port}/small");
    let args = ["-t", "1", "-c", &connections, "-d", &seconds, "--latency", &url];
    let text = text_of(&mut stage.command("client", "wrk", &args))?;
    let after = |word: &str| {
        let line = text
            .lines()
            .map(str::trim)
            .find_map(|line| line.strip_prefix(word));
        line.map(|rest| rest.trim().to_owned())
            .with_context(|| format!("no {word} in wrk's output: {text}"))
    };
    Ok(Sample {
        rate: after("Requests/sec:")?.parse().context("wrk's rate")?,
        p50: after("50%")?,
        p99: after("99%")?,
    })
}

fn print_machine(options: &Options) {
    let nginx = Command::new("nginx")
        .arg("-v")
        .output()
        .map(|output| output.stderr)
        .unwrap_or_default();
    print_cpu();
    println!(
        "{}, wrk with {} connections for {} s",
        String::from_utf8_lossy(&nginx)
            .trim()
            .trim_start_matches("nginx version: "),
        options.connections,
        options.seconds,
    );
}

/// Says what machine this is.
pub(super) fn print_cpu() {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("");
    println!(
        "{cpus} x {}, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim()
    );
}

/// The middle one; sorts on the way.
fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Least and most of sorted rates.
fn spread(rates: &[f64]) -> String {
    let end = |rate: Option<&f64>| rate.copied().unwrap_or(f64::NAN);
    format!("{:.0}-{:.0}", end(rates.first()), end(rates.last()))
}
