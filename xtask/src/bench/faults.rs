//! `cargo xtask bench faults`: how exact delays and rates are, and what interception costs.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    load::{self, at},
    report::{self, Bounds, Line, Spread},
};
use crate::{cargo::build_spike, demo::stage::Stage};

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

const CLIENT: &str = "client";

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    stage.place("db")?;
    let from = stage.place(CLIENT)?;
    let port = stage.redis("db")?;
    println!("{}", report::machine());
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
    let mut lines = Vec::new();
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
        for (percent, must, goal) in [(50, 50.0, 20.0), (99, 500.0, 100.0)] {
            lines.push(Line {
                what: format!("error of a delay of {delay} ms, p{percent}"),
                against: "the set delay, us".to_owned(),
                found: Spread::one(at(&errors, percent)),
                bounds: Some(Bounds::AtMost { must, goal }),
            });
        }
    }
    if !options.no_rates {
        lines.extend(rates(&stage, &from, port)?);
    }
    stage.stop_agent()?;
    report::keep("faults", &lines)?;
    Ok(lines)
}

fn rates(stage: &Stage, from: &str, port: u16) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
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
            load::own_client(stage, CLIENT, &["fetch".to_owned(), port.to_string(), bytes])
        })?;
        let measured: f64 = text.trim().parse().context("the client's rate")?;
        println!(
            "{:<24} {:>12.0} B/s  off by {:>6.2} %",
            format!("rate of {rate}"),
            measured,
            (measured / bytes_per_second - 1.0) * 100.0
        );
        lines.push(Line {
            what: format!("error of a rate of {rate}/s"),
            against: "the set rate, %".to_owned(),
            found: Spread::one((measured / bytes_per_second - 1.0).abs() * 100.0),
            bounds: Some(Bounds::AtMost { must: 2.0, goal: 0.5 }),
        });
    }
    Ok(lines)
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

fn ping(stage: &Stage, port: u16, options: &Options) -> Result<Vec<f64>> {
    let interval = Duration::from_secs(1) / options.rate;
    load::ping(
        stage,
        CLIENT,
        port,
        options.connections,
        options.calls,
        interval.as_nanos(),
    )
}
