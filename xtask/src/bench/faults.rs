//! `cargo xtask bench faults`: how exact delays and rates are, and what interception costs.

use std::{env, time::Duration};

use anyhow::{Context as _, Result};

use super::{client, observe::print_cpu};
use crate::{
    cargo::build_spike,
    demo::stage::{Stage, text_of},
};

/// Measure how exact delays and rates are, and what interception costs.
///
/// Connections that are kept open to redis-server ask one after the other, so that the machine is as idle as it can be.
/// The error of a delay is a call's time less the delay and less the median time of intercepted calls without a delay.
/// Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections that ask in turn.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Calls of each connection.
    #[arg(long, default_value_t = 20)]
    calls: usize,
    /// Calls a second, of all connections together.
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Leave the rates out.
    #[arg(long)]
    no_rates: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    stage.place("db")?;
    let from = stage.place("client")?;
    let port = stage.redis("db")?;
    print_cpu();
    println!(
        "{} connections, {} calls each, {} calls a second in all, redis PING",
        options.connections, options.calls, options.rate
    );
    let direct = ping(&stage, port, options)?;
    stage.start_agent()?;
    let observed = ping(&stage, port, options)?;
    // Through the proxy, with nothing done to the bytes.
    let through = with_fault(&stage, &from, "slow_close --delay 1ms", |stage| {
        ping(stage, port, options)
    })?;
    for (what, times) in [
        ("no agent", &direct),
        ("agent, no fault", &observed),
        ("intercepted, no delay", &through),
    ] {
        println!(
            "{what:<24} p50 {:>8.1} us  p99 {:>8.1} us",
            at(times, 50),
            at(times, 99)
        );
    }
    println!(
        "{:<24} p50 {:>8.1} us  p99 {:>8.1} us",
        "interception costs",
        at(&through, 50) - at(&observed, 50),
        at(&through, 99) - at(&observed, 99)
    );
    for delay in [1, 10, 100] {
        let words = format!("latency --delay {delay}ms");
        let times = with_fault(&stage, &from, &words, |stage| ping(stage, port, options))?;
        let expected = f64::from(delay) * 1000.0 + at(&through, 50);
        let errors: Vec<f64> = times.iter().map(|time| time - expected).collect();
        println!(
            "{:<24} p50 {:>8.1} us  p99 {:>8.1} us",
            format!("error of {delay} ms"),
            at(&errors, 50),
            at(&errors, 99)
        );
    }
    if !options.no_rates {
        rates(&stage, &from, port)?;
    }
    stage.stop_agent()
}

fn rates(stage: &Stage, from: &str, port: u16) -> Result<()> {
    for (rate, bytes_per_second) in [
        ("64kbit", 8e3),
        ("1mbit", 125e3),
        ("10mbit", 1.25e6),
        ("100mbit", 12.5e6),
        ("1gbit", 125e6),
    ] {
        // Four seconds of it.
        let bytes = (bytes_per_second * 4.0).to_string();
        let words = format!("bandwidth --rate {rate} --direction response");
        let text = with_fault(stage, from, &words, |stage| {
            client(stage, &["fetch", &port.to_string(), &bytes])
        })?;
        let measured: f64 = text.trim().parse().context("the client's rate")?;
        println!(
            "{:<24} {:>12.0} B/s  off by {:>6.2} %",
            format!("rate of {rate}"),
            measured,
            (measured / bytes_per_second - 1.0) * 100.0
        );
    }
    Ok(())
}

fn with_fault<T>(
    stage: &Stage,
    from: &str,
    words: &str,
    measure: impl FnOnce(&Stage) -> Result<T>,
) -> Result<T> {
    let from = format!("cgroup={from}");
    let args: Vec<&str> = ["fault", "add"]
        .into_iter()
        .chain(words.split_whitespace())
        .chain(["--from", &from])
        .collect();
    stage.spike(&args)?;
    let measured = measure(stage);
    stage.spike(&["fault", "clear"])?;
    measured
}

/// Times of calls in microseconds, from least to most.
fn ping(stage: &Stage, port: u16, options: &Options) -> Result<Vec<f64>> {
    let interval = Duration::from_secs(1) / options.rate;
    let text = client(
        stage,
        &[
            "ping",
            &port.to_string(),
            &options.connections.to_string(),
            &options.calls.to_string(),
            &interval.as_nanos().to_string(),
        ],
    )?;
    let mut times = text
        .lines()
        .map(|line| line.parse().context("a time of the client's"))
        .collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn client(stage: &Stage, args: &[&str]) -> Result<String> {
    let program = env::current_exe().context("find this program")?;
    let all = [&["bench", client::VERB], args].concat();
    text_of(&mut stage.command("client", &program.to_string_lossy(), &all))
}

/// The value that so many percent of the sorted ones do not exceed.
fn at(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
