//! `cargo xtask bench observe`: what calls cost that the agent sees, against the same that it does not.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    load::{self, Pin, Usage, Wrk},
    report::{self, Bounds, Line, Spread},
};
use crate::{
    cargo::build_spike,
    demo::stage::{Stage, text_of, wait_for_port},
};

/// How long the agent gets to choose what it samples of a load, before the load is measured.
const SETTLE: Duration = Duration::from_secs(2);
/// Whether the kernel times the programs; since Linux 5.1.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const OBSERVED: &str = "seen";
const UNSEEN: &str = "unseen";

/// Measure what it costs to be observed: wrk against nginx, redis-benchmark against redis-server, iperf3.
///
/// The same servers and clients run twice, in a cgroup that the agent watches and in one that it does not; the two take
/// turns in short runs, so that a drift of the machine meets both alike, and a ratio is the median of those of each turn.
/// The client is pinned to one processor, the server to another: where the scheduler puts them makes more of a
/// difference than what is measured. Once without decoding (`--decode-budget 0`), once within its default budget.
/// Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each of the two is measured.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    seconds: u32,
}

/// The servers of one side.
#[derive(Debug)]
struct Side {
    client: String,
    web: u16,
    redis: u16,
    bulk: u16,
}

/// A load and its unit.
const LOADS: [(&str, &str); 3] = [
    ("keep-alive requests", "req/s"),
    ("redis-benchmark", "op/s"),
    ("iperf3", "Gbit/s"),
];

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    let unseen = side(&mut stage, UNSEEN)?;
    let seen = side(&mut stage, OBSERVED)?;
    stage.observe(OBSERVED);
    println!("{}", report::machine());
    println!(
        "{}, wrk with 32 connections, {} s a run",
        report::version("nginx", "-v"),
        options.seconds
    );
    let mut lines = Vec::new();
    for (mode, args, must, goal) in [
        (
            "agent on, nothing armed, no decoding",
            &["--decode-budget", "0"][..],
            0.95,
            0.99,
        ),
        ("agent on, decoding at the default budget", &[], 0.93, 0.98),
    ] {
        stage.start_agent_with(args)?;
        for (load, (name, unit)) in LOADS.into_iter().enumerate() {
            let found = take_turns(&stage, load, [&unseen, &seen], options)?;
            println!(
                "{mode}: {name}: {:.0} {unit} unseen, {:.0} seen; agent {:.1} % of a core, {:.0} MiB",
                Spread::of(&found.unseen).median,
                Spread::of(&found.seen).median,
                found.agent.seconds * 100.0,
                found.agent.mebibytes
            );
            lines.push(Line {
                what: format!("{mode}: {name}"),
                against: "unobserved".to_owned(),
                found: Spread::of_ratios(&found.seen, &found.unseen),
                bounds: Some(Bounds::AtLeast { must, goal }),
            });
            for (what, taken) in [
                ("agent", found.agent.seconds),
                ("applications", found.applications),
            ] {
                lines.push(Line {
                    what: format!("{mode}: {name}: processor time of the {what}"),
                    against: "cores".to_owned(),
                    found: Spread::one(taken),
                    bounds: None,
                });
            }
        }
        lines.extend(program_times(&stage, &seen, mode, options)?);
        if args.is_empty() {
            lines.push(steady(&stage, &seen)?);
        }
        stage.stop_agent()?;
    }
    report::keep("observe", &lines)?;
    Ok(lines)
}

fn side(stage: &mut Stage, name: &str) -> Result<Side> {
    stage.place(name)?;
    let place = |what: &str| format!("{name}/{what}");
    for what in ["web", "db", "bulk", "client"] {
        stage.place(&place(what))?;
    }
    stage.pin(Some(0));
    let web = stage.nginx(&place("web"))?;
    let redis = stage.redis(&place("db"))?;
    let bulk = stage.iperf3(&place("bulk"))?;
    stage.pin(None);
    wait_for_port(web, "nginx")?;
    Ok(Side {
        client: place("client"),
        web,
        redis,
        bulk,
    })
}

/// What the turns of one load gave.
#[derive(Debug, Default)]
struct Found {
    unseen: Vec<f64>,
    seen: Vec<f64>,
    /// Of the agent while it observed: cores, and MiB at the end.
    agent: Usage,
    /// Cores that the observed side took.
    applications: f64,
}

fn take_turns(stage: &Stage, load: usize, [unseen, seen]: [&Side; 2], options: &Options) -> Result<Found> {
    let pid = stage.agent_pid().context("the agent has ended")?;
    let mut found = Found::default();
    // What comes first warms up caches, and lets the agent see how much there is to sample.
    for side in [unseen, seen, seen] {
        put(stage, load, side, options)?;
    }
    let (mut agent, mut applications, mut wall) = (0.0, 0.0, 0.0);
    for _ in 0..options.rounds {
        found.unseen.push(put(stage, load, unseen, options)?);
        let start = Instant::now();
        let (before, theirs) = (Usage::of(pid)?, stage.cpu_seconds(OBSERVED)?);
        found.seen.push(put(stage, load, seen, options)?);
        agent += Usage::of(pid)?.seconds - before.seconds;
        applications += stage.cpu_seconds(OBSERVED)? - theirs;
        wall += start.elapsed().as_secs_f64();
    }
    found.agent = Usage {
        seconds: agent / wall,
        mebibytes: Usage::of(pid)?.mebibytes,
    };
    found.applications = applications / wall;
    Ok(found)
}

fn put(stage: &Stage, load: usize, side: &Side, options: &Options) -> Result<f64> {
    let pin = Pin::To(1);
    match load {
        0 => {
            let wrk = Wrk {
                connections: 32,
                seconds: options.seconds,
                closes: false,
                pin,
            };
            load::wrk(stage, &side.client, side.web, wrk)
        }
        1 => load::redis(stage, &side.client, side.redis, 60_000 * options.seconds, pin),
        _ => load::iperf3(stage, &side.client, side.bulk, options.seconds, pin),
    }
}

/// What the agent takes of 10,000 calls a second.
fn steady(stage: &Stage, seen: &Side) -> Result<Line> {
    let pid = stage.agent_pid().context("the agent has ended")?;
    let (before, start) = (Usage::of(pid)?, Instant::now());
    load::ping(stage, &seen.client, seen.redis, 50, 1000, 100_000)?;
    let cores = (Usage::of(pid)?.seconds - before.seconds) / start.elapsed().as_secs_f64();
    Ok(Line {
        what: "agent's processor time at 10,000 calls a second (redis PING)".to_owned(),
        against: "cores".to_owned(),
        found: Spread::one(cores),
        bounds: Some(Bounds::AtMost {
            must: 0.2,
            goal: 0.05,
        }),
    })
}

/// Nanoseconds that a run of each kernel program takes, by the kernel's own statistics. These cost time themselves and
/// are on for this only.
fn program_times(stage: &Stage, seen: &Side, mode: &str, options: &Options) -> Result<Vec<Line>> {
    thread::sleep(SETTLE);
    let pid = stage.agent_pid().context("the agent has ended")?;
    let was = fs::read_to_string(STATISTICS).context("look at the kernel's BPF statistics")?;
    fs::write(STATISTICS, "1\n").context("turn the kernel's BPF statistics on")?;
    let before = program_runs(pid);
    let put = put(stage, 0, seen, options);
    let after = program_runs(pid);
    fs::write(STATISTICS, was)?;
    put?;
    let (before, after) = (before?, after?);
    let mut lines = Vec::new();
    for (id, (name, nanoseconds, runs)) in after {
        let (_, earlier, ran) = before.get(&id).cloned().unwrap_or_default();
        let runs = runs.saturating_sub(ran);
        // Fewer say nothing.
        if runs < 1000 {
            continue;
        }
        lines.push(Line {
            what: format!("{mode}: kernel program {name}, {runs} runs under wrk"),
            against: "ns a run".to_owned(),
            found: Spread::one((nanoseconds.saturating_sub(earlier)) as f64 / runs as f64),
            bounds: None,
        });
    }
    Ok(lines)
}

type Runs = BTreeMap<u64, (String, u64, u64)>;

/// Name, nanoseconds and runs of each program that the process holds, by id.
fn program_runs(pid: u32) -> Result<Runs> {
    let text = text_of(Command::new("bpftool").args(["--json", "prog", "show"]))?;
    let programs: Vec<serde_json::Value> = serde_json::from_str(&text).context("read bpftool's list")?;
    let is_agents = |program: &serde_json::Value| {
        let holders = program["pids"].as_array();
        // Without BTF bpftool does not tell who holds a program; then all of this name count.
        holders.is_none_or(|holders| holders.iter().any(|holder| holder["pid"] == pid))
            && program["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("spike_"))
    };
    let number = |program: &serde_json::Value, key: &str| program[key].as_u64().unwrap_or(0);
    let own = programs.iter().filter(|program| is_agents(program));
    Ok(own
        .map(|program| {
            let name = program["name"].as_str().unwrap_or("").to_owned();
            let times = (number(program, "run_time_ns"), number(program, "run_cnt"));
            (number(program, "id"), (name, times.0, times.1))
        })
        .collect())
}
