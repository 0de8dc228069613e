//! `cargo xtask bench observe`: wrk against nginx, with the agent off and on.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    cargo::build_spike,
    demo::stage::{Stage, text_of},
};

/// Measure requests per second and latency of wrk against nginx with the agent off and on.
///
/// 1 KiB over connections that are kept open, nothing armed, decoding within its default budget. Off and on take turns in
/// short runs, so that a drift of the machine meets both alike; the ratio is the median of those of each turn. What the
/// agent's process takes meanwhile is told beside it: its processor time, its memory at the end. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each of the two is measured.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
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
        "{:>5}  {:>12} {:>10} {:>10}  {:>12} {:>10} {:>10}  {:>9} {:>9}",
        "round", "off req/s", "p50", "p99", "on req/s", "p50", "p99", "agent cpu", "rss"
    );
    let (mut off, mut on, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut shares, mut sizes) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let without = measure(&stage, port, options)?;
        stage.start_agent()?;
        let pid = stage.agent_pid().context("the agent has ended")?;
        let (before, start) = (Usage::of(pid)?, Instant::now());
        let with = measure(&stage, port, options)?;
        let after = Usage::of(pid)?;
        let share = (after.seconds - before.seconds) / start.elapsed().as_secs_f64() * 100.0;
        stage.stop_agent()?;
        println!(
            "{round:>5}  {:>12.0} {:>10} {:>10}  {:>12.0} {:>10} {:>10}  {share:>8.1}% {:>5.1} MiB",
            without.rate, without.p50, without.p99, with.rate, with.p50, with.p99, after.mebibytes
        );
        ratios.push(with.rate / without.rate);
        off.push(without.rate);
        on.push(with.rate);
        shares.push(share);
        sizes.push(after.mebibytes);
    }
    let (without, with) = (median(&mut off), median(&mut on));
    println!("median {without:>11.0} off, {with:.0} on");
    let middle = median(&mut ratios);
    let at = |share: usize| ratios.get(ratios.len() * share / 4).copied().unwrap_or(f64::NAN);
    println!(
        "ratio  {middle:.3} of a turn's two runs (median; half of the turns lie between {:.3} and {:.3})",
        at(1),
        at(3)
    );
    println!("spread {:>11} off, {} on", spread(&off), spread(&on));
    println!(
        "agent  {:.1} % of a core, {:.1} MiB resident (medians)",
        median(&mut shares),
        median(&mut sizes)
    );
    Ok(())
}

/// What a process has taken.
#[derive(Debug)]
struct Usage {
    /// Processor time, in user and kernel mode.
    seconds: f64,
    /// Resident memory.
    mebibytes: f64,
}

impl Usage {
    fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the agent's times")?;
        // The name before the last parenthesis may hold any character.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |at: usize| -> Option<u64> { fields.split_ascii_whitespace().nth(at)?.parse().ok() };
        // Fields 14 and 15 of proc(5), in ticks of 10 ms on every Linux.
        let ticks = field(11).zip(field(12)).context("no times in /proc/PID/stat")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the agent's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line
            .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .context("no VmRSS in /proc/PID/status")?;
        Ok(Self {
            seconds: (ticks.0 + ticks.1) as f64 / 100.0,
            mebibytes: kib / 1024.0,
        })
    }
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
