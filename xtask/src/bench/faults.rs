//! `cargo xtask bench faults`: how exact delays and rates are, and what interception costs.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    load::{self, Pings, at},
    report::{self, Bounds, Line, Spread},
};
use crate::{cargo::build_spike, demo::stage::Stage};

/// Measure how exact delays and rates are, and what interception costs.
///
/// Connections that are kept open to redis-server ask one after the other, so that the machine is as idle as it can be.
/// The error of a delay is a call's time less the delay and less the median time of intercepted calls without a delay,
/// measured in the same round.
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
    /// Rounds of all delays; the medians count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
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
    for (what, pings) in [("no agent", &direct), ("agent, no fault", &observed)] {
        println!(
            "{what:<24} p50 {:>8.1} us  p99 {:>8.1} us",
            at(&pings.seen, 50),
            at(&pings.seen, 99)
        );
    }
    let mut lines = delays(&stage, &from, port, options)?;
    if !options.no_rates {
        lines.extend(rates(&stage, &from, port)?);
    }
    stage.stop_agent()?;
    report::keep("faults", &lines)?;
    Ok(lines)
}

const DELAYS_MS: [u32; 3] = [1, 10, 100];

/// By delay, the errors of each round.
#[derive(Default)]
struct Errors {
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// As the client saw the answers.
    seen_p50: Vec<f64>,
    seen_p99: Vec<f64>,
}

/// In each round a run without a delay and one of each delay, so that all have met the machine in the same state.
fn delays(stage: &Stage, from: &str, port: u16, options: &Options) -> Result<Vec<Line>> {
    let mut errors = DELAYS_MS.map(|_| Errors::default());
    for _ in 0..options.rounds {
        // Through the proxy, with nothing done to the bytes.
        let through = with_fault(stage, from, "slow_close --delay 1ms", |stage| {
            ping(stage, port, options)
        })?;
        println!(
            "{:<24} p50 {:>8.1} us  p99 {:>8.1} us",
            "intercepted, no delay",
            at(&through.seen, 50),
            at(&through.seen, 99)
        );
        for (delay, errors) in DELAYS_MS.iter().zip(&mut errors) {
            let words = format!("latency --delay {delay}ms");
            let delayed = with_fault(stage, from, &words, |stage| ping(stage, port, options))?;
            let beyond = |times: &[f64], without: &[f64], percent| {
                at(times, percent) - f64::from(*delay) * 1000.0 - at(without, 50)
            };
            for (percent, errors, seen_errors) in [
                (50, &mut errors.p50, &mut errors.seen_p50),
                (99, &mut errors.p99, &mut errors.seen_p99),
            ] {
                errors.push(beyond(&delayed.arrived, &through.arrived, percent));
                seen_errors.push(beyond(&delayed.seen, &through.seen, percent));
            }
        }
    }
    let mut lines = Vec::new();
    for (delay, errors) in DELAYS_MS.iter().zip(&errors) {
        for (what, values, bounds) in [
            (
                "p50",
                &errors.p50,
                Some(Bounds::AtMost {
                    must: 50.0,
                    goal: 20.0,
                }),
            ),
            (
                "p99",
                &errors.p99,
                Some(Bounds::AtMost {
                    must: 500.0,
                    goal: 100.0,
                }),
            ),
            ("p50, as a sleeping client sees it", &errors.seen_p50, None),
            ("p99, as a sleeping client sees it", &errors.seen_p99, None),
        ] {
            lines.push(Line {
                what: format!("error of a delay of {delay} ms, {what}"),
                against: "the set delay, us".to_owned(),
                found: Spread::of(values),
                bounds,
            });
        }
    }
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

fn ping(stage: &Stage, port: u16, options: &Options) -> Result<Pings> {
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
