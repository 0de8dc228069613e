//! `cargo xtask bench intercept`: what it costs to be carried by Spike, and by the proxies that one would use instead.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result};

use super::{
    load::{self, Pin, Usage, Wrk, at},
    peers::{self, Peer},
    report::{self, Bounds, Line, Spread},
};
use crate::{cargo::build_spike, demo::stage::Stage};

/// Measure what interception costs: requests, bulk, latency, new connections, memory.
///
/// The same clients and servers talk directly, through Spike with a fault armed that hits none of the calls, and through
/// HAProxy, nginx's stream module and Envoy where these are on PATH. All take turns in short runs; a ratio is the median
/// of those of each turn. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each is measured.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    seconds: u32,
    /// Idle connections that memory is measured with.
    #[arg(long, default_value_t = 2000)]
    idle: usize,
}

const CLIENT: &str = "client";
const PEERS: &str = "peers";
const SERVERS: [&str; 3] = ["web", "db", "bulk"];
/// Calls whose latency is measured in a run.
const CALLS: usize = 4000;

/// The way from the client to the servers.
struct Way<'a> {
    name: &'a str,
    /// Of nginx, redis-server and iperf3, as the client reaches them.
    ports: [u16; 3],
    intercepted: bool,
}

/// What is measured. More is better but for latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Requests,
    Bulk,
    NewConnections,
    Latency,
}

/// What all rounds gave.
struct Found {
    /// By way, then by round; of latency the median of a run.
    values: Vec<Vec<f64>>,
    /// 99th percentiles of latency.
    tails: Vec<Vec<f64>>,
    /// Cores that the agent took while it carried.
    agent: f64,
    /// Cores that client and servers took meanwhile.
    applications: f64,
    /// What was carried by the way of Spike, a second.
    rate: f64,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    let from = stage.place(CLIENT)?;
    for place in SERVERS.into_iter().chain([PEERS]) {
        stage.place(place)?;
    }
    let ports = [stage.nginx("web")?, stage.redis("db")?, stage.iperf3("bulk")?];
    stage.start_agent()?;
    let peers = peers::start(&mut stage, PEERS, &ports)?;
    println!("{}", report::machine());
    for peer in &peers {
        println!("{}: {}", peer.name, peer.version);
    }
    let mut ways = vec![
        Way {
            name: "direct",
            ports,
            intercepted: false,
        },
        Way {
            name: "Spike",
            ports,
            intercepted: true,
        },
    ];
    for peer in &peers {
        if let [web, db, bulk] = peer.ports[..] {
            ways.push(Way {
                name: peer.name,
                ports: [web, db, bulk],
                intercepted: false,
            });
        }
    }
    let mut lines = Vec::new();
    for measure in [
        Measure::Requests,
        Measure::Bulk,
        Measure::NewConnections,
        Measure::Latency,
    ] {
        let found = rounds(&stage, &from, measure, &ways, options)?;
        print(measure, &ways, &found);
        lines.extend(lines_of(measure, &ways, &found));
    }
    lines.extend(idle_memory(&stage, &from, &ways, &peers, options)?);
    stage.stop_agent()?;
    report::keep("intercept", &lines)?;
    Ok(lines)
}

fn rounds(stage: &Stage, from: &str, measure: Measure, ways: &[Way<'_>], options: &Options) -> Result<Found> {
    let pid = stage.agent_pid().context("the agent has ended")?;
    let mut found = Found {
        values: vec![Vec::new(); ways.len()],
        tails: vec![Vec::new(); ways.len()],
        agent: 0.0,
        applications: 0.0,
        rate: 0.0,
    };
    let (mut wall, mut done) = (0.0, 0.0);
    // The first round warms up caches; it does not count.
    for round in 0..=options.rounds {
        for (index, way) in ways.iter().enumerate() {
            if way.intercepted {
                arm(stage, from)?;
            }
            let start = std::time::Instant::now();
            let before = usage(stage, pid)?;
            let [value, tail] = once(stage, way, measure, options)?;
            let after = usage(stage, pid)?;
            if way.intercepted {
                stage.spike(&["fault", "clear"])?;
            }
            if round == 0 {
                continue;
            }
            if let (Some(values), Some(tails)) = (found.values.get_mut(index), found.tails.get_mut(index)) {
                values.push(value);
                tails.push(tail);
            }
            if way.intercepted {
                let took = start.elapsed().as_secs_f64();
                wall += took;
                done += value * took;
                found.agent += after[0] - before[0];
                found.applications += after[1] - before[1];
            }
        }
    }
    found.agent /= wall;
    found.applications /= wall;
    found.rate = done / wall;
    Ok(found)
}

/// Intercepts the client's calls, and hits one in a million of its connections.
fn arm(stage: &Stage, from: &str) -> Result<()> {
    let from = format!("cgroup={from}");
    let args = [
        "fault",
        "add",
        "latency",
        "--delay",
        "1ms",
        "--percent",
        "0.0001",
        "--from",
        &from,
    ];
    stage.spike(&args).map(drop)
}

/// Processor time of the agent, and of client and servers.
fn usage(stage: &Stage, agent: u32) -> Result<[f64; 2]> {
    let mut applications = stage.cpu_seconds(CLIENT)?;
    for place in SERVERS {
        applications += stage.cpu_seconds(place)?;
    }
    Ok([Usage::of(agent)?.seconds, applications])
}

fn once(stage: &Stage, way: &Way<'_>, measure: Measure, options: &Options) -> Result<[f64; 2]> {
    let [web, db, bulk] = way.ports;
    let wrk = Wrk {
        connections: 32,
        seconds: options.seconds,
        closes: measure == Measure::NewConnections,
        pin: Pin::Anywhere,
    };
    Ok(match measure {
        Measure::Requests | Measure::NewConnections => [load::wrk(stage, CLIENT, web, wrk)?, 0.0],
        Measure::Bulk => [
            load::iperf3(stage, CLIENT, bulk, options.seconds, Pin::Anywhere)?,
            0.0,
        ],
        Measure::Latency => {
            let times = load::ping(stage, CLIENT, db, 1, CALLS, 0)?.seen;
            [at(&times, 50), at(&times, 99)]
        }
    })
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "keep-alive requests",
            Self::Bulk => "bulk",
            Self::NewConnections => "new connections",
            Self::Latency => "latency of 1 connection",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Requests => "req/s",
            Self::Bulk => "Gbit/s",
            Self::NewConnections => "connections/s",
            Self::Latency => "us",
        }
    }
}

fn print(measure: Measure, ways: &[Way<'_>], found: &Found) {
    println!("\n{} ({})", measure.name(), measure.unit());
    for ((way, values), tails) in ways.iter().zip(&found.values).zip(&found.tails) {
        let Spread { median, least, most } = Spread::of(values);
        let tail = if measure == Measure::Latency {
            format!("  p99 {:.1}", Spread::of(tails).median)
        } else {
            String::new()
        };
        println!(
            "  {:<14} {median:>10.1}  ({least:.1} to {most:.1}){tail}",
            way.name
        );
    }
}

fn lines_of(measure: Measure, ways: &[Way<'_>], found: &Found) -> Vec<Line> {
    let (Some(direct), Some(spike)) = (found.values.first(), found.values.get(1)) else {
        return Vec::new();
    };
    let what = |more: &str| format!("intercepted, no effect: {}{more}", measure.name());
    let mut lines = Vec::new();
    if measure == Measure::Latency {
        let added = |of: &[Vec<f64>]| -> Spread {
            let pairs = of
                .get(1)
                .into_iter()
                .flatten()
                .zip(of.first().into_iter().flatten());
            Spread::of(&pairs.map(|(spike, direct)| spike - direct).collect::<Vec<f64>>())
        };
        for (name, found, must, goal) in [
            (", added p50", added(&found.values), 25.0, 15.0),
            (", added p99", added(&found.tails), 80.0, 40.0),
        ] {
            lines.push(Line {
                what: what(name),
                against: "direct, us".to_owned(),
                found,
                bounds: Some(Bounds::AtMost { must, goal }),
            });
        }
    } else {
        let bounds = match measure {
            Measure::Requests => Some(Bounds::AtLeast {
                must: 0.53,
                goal: 0.6,
            }),
            Measure::Bulk => Some(Bounds::AtLeast {
                must: 0.56,
                goal: 0.8,
            }),
            Measure::NewConnections | Measure::Latency => None,
        };
        lines.push(Line {
            what: what(""),
            against: "direct".to_owned(),
            found: Spread::of_ratios(spike, direct),
            bounds,
        });
    }
    let peers = ways.iter().zip(&found.values).skip(2);
    for (way, values) in peers.clone() {
        let (found, against) = if measure == Measure::Latency {
            let added: Vec<f64> = values
                .iter()
                .zip(direct)
                .map(|(peer, direct)| peer - direct)
                .collect();
            (Spread::of(&added), "direct, us")
        } else {
            (Spread::of_ratios(values, direct), "direct")
        };
        lines.push(Line {
            what: format!("{} instead: {}", way.name, measure.name()),
            against: against.to_owned(),
            found,
            bounds: None,
        });
    }
    if measure != Measure::Latency {
        let middle = |values: &Vec<f64>| Spread::of(values).median;
        let best = peers.max_by(|a, b| middle(a.1).total_cmp(&middle(b.1)));
        if let Some((way, values)) = best {
            let (must, goal) = if measure == Measure::NewConnections {
                (0.8, 1.2)
            } else {
                (1.0, 1.2)
            };
            lines.push(Line {
                what: what(""),
                against: format!("best peer ({})", way.name),
                found: Spread::of_ratios(spike, values),
                bounds: Some(Bounds::AtLeast { must, goal }),
            });
        }
        let each = |cores: f64| Spread::one(cores / found.rate * 1e6);
        for (who, cores) in [("agent", found.agent), ("client and server", found.applications)] {
            lines.push(Line {
                what: what(&format!(", processor time of the {who}")),
                against: format!("us for each {}", measure.unit().trim_end_matches("/s")),
                found: each(cores),
                bounds: None,
            });
        }
    }
    lines
}

/// Resident memory for each connection that is open and idle.
fn idle_memory(
    stage: &Stage,
    from: &str,
    ways: &[Way<'_>],
    peers: &[Peer],
    options: &Options,
) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for way in ways.iter().skip(1) {
        let pid = if way.intercepted {
            arm(stage, from)?;
            stage.agent_pid()
        } else {
            peers
                .iter()
                .find(|peer| peer.name == way.name)
                .map(|peer| peer.pid)
        };
        let pid = pid.context("the proxy has ended")?;
        // nginx's workers hold the connections, not its master.
        let whose = |pid: u32| -> Result<f64> {
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let mut sum = Usage::of(pid)?.mebibytes;
            for child in children.split_ascii_whitespace() {
                sum += Usage::of(child.parse()?)?.mebibytes;
            }
            Ok(sum)
        };
        let before = whose(pid)?;
        let words = [
            "hold".to_owned(),
            way.ports[1].to_string(),
            options.idle.to_string(),
        ];
        let mut client = load::own_command(stage, CLIENT, &words)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the client")?;
        let mut open = String::new();
        let said = client.stdout.take().context("the client's output")?;
        BufReader::new(said).read_line(&mut open)?;
        let after = whose(pid)?;
        // Its end of input lets it go.
        drop(client.stdin.take());
        let ended = client.wait()?;
        if way.intercepted {
            stage.spike(&["fault", "clear"])?;
        }
        anyhow::ensure!(
            ended.success() && open.trim() == "open",
            "the client that holds connections failed"
        );
        let each = (after - before) * 1024.0 / options.idle as f64;
        lines.push(Line {
            what: format!("memory for an idle connection: {}", way.name),
            against: format!("KiB, of {}", options.idle),
            found: Spread::one(each),
            bounds: way.intercepted.then_some(Bounds::AtMost {
                must: 24.0,
                goal: 6.0,
            }),
        });
    }
    Ok(lines)
}
