//! `cargo xtask bench scale`: what a connect costs that no fault is about, with one fault armed and with 65,536.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    load,
    report::{self, Bounds, Line, Spread},
};
use crate::{
    cargo::build_spike,
    demo::stage::{Stage, text_of},
};

/// Clients that arm faults at one time: the agent makes the kernel's rules once for all that wait.
const CLIENTS: usize = 256;
/// Measurements of a state, of which the middle one counts.
const PASSES: usize = 9;

/// Measure the time of a TCP connect that matches no fault, with none armed, one, and many; and of one that is refused.
///
/// Half of the faults name an address, half a network, each its own, with a port. The states take turns; the medians are
/// compared. A refusal in the connect hook is held against the kernel's own for a port that nobody listens on. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each of the two is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connects in one measurement.
    #[arg(long, default_value_t = 10_000)]
    connects: usize,
    /// Faults armed in the second of the two.
    #[arg(long, default_value_t = 65_536)]
    faults: usize,
}

/// The part that runs within the observed cgroup: connects so often to ADDRESS, refused or not, and prints nanoseconds,
/// one a line: median, 99th percentile.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct ConnectOptions {
    address: SocketAddr,
    count: usize,
}

pub(crate) fn connect(options: &ConnectOptions) -> Result<()> {
    let mut times = Vec::with_capacity(options.count);
    for _ in 0..options.count {
        let start = Instant::now();
        let connected = TcpStream::connect(options.address);
        times.push(start.elapsed());
        match connected {
            // Closed by a reset: ports that wait for their time-out would run out.
            Ok(stream) => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
    }
    times.sort();
    for share in [0.5, 0.99] {
        let at = (times.len() as f64 * share) as usize;
        println!("{}", times.get(at).context("no connects")?.as_nanos());
    }
    Ok(())
}

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    let from = stage.place("client")?;
    let address = load::accept_all(Ipv4Addr::LOCALHOST)?;
    println!("{}", report::machine());
    println!("{} connects a run to {address}", options.connects);
    // The first run warms up caches and the processor's clock; it does not count.
    measure(&stage, address, options)?;
    let states = [0, 1, options.faults];
    let mut found = [const { Vec::new() }; 3];
    println!("{:>5}  {:>10}  {:>10} {:>10}", "round", "armed", "p50", "p99");
    for round in 1..=options.rounds {
        for (count, medians) in states.into_iter().zip(&mut found) {
            let (median, tail) = with_armed(&mut stage, count, address, options)?;
            let us = |ns: u64| format!("{:.1} us", ns as f64 / 1000.0);
            println!("{round:>5}  {count:>10}  {:>10} {:>10}", us(median), us(tail));
            medians.push(median as f64);
        }
    }
    let [none, one, many] = found;
    let lines = vec![
        Line {
            what: format!(
                "{} selectors armed, none matching: time of a connect",
                options.faults
            ),
            against: "one armed".to_owned(),
            found: Spread::of_ratios(&many, &one),
            bounds: Some(Bounds::AtMost { must: 1.1, goal: 1.0 }),
        },
        Line {
            what: format!(
                "{} selectors armed, none matching: connects a second",
                options.faults
            ),
            against: "none armed".to_owned(),
            found: Spread::of_ratios(&none, &many),
            bounds: Some(Bounds::AtLeast {
                must: 0.95,
                goal: 1.0,
            }),
        },
        refusals(&mut stage, &from, options)?,
    ];
    report::keep("scale", &lines)?;
    Ok(lines)
}

fn refusals(stage: &mut Stage, from: &str, options: &Options) -> Result<Line> {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let from = format!("cgroup={from}");
    let (mut own, mut hook) = (Vec::new(), Vec::new());
    stage.start_agent()?;
    for _ in 0..options.rounds {
        own.push(measure(stage, closed, options)?.0 as f64);
        stage.spike(&["fault", "add", "refuse", "--from", &from])?;
        hook.push(measure(stage, closed, options)?.0 as f64);
        stage.spike(&["fault", "clear"])?;
    }
    stage.stop_agent()?;
    Ok(Line {
        what: "`refuse` in the connect hook: connects a second".to_owned(),
        against: "the kernel's own refusal".to_owned(),
        found: Spread::of_ratios(&own, &hook),
        bounds: Some(Bounds::AtLeast { must: 0.9, goal: 1.0 }),
    })
}

fn with_armed(stage: &mut Stage, count: usize, address: SocketAddr, options: &Options) -> Result<(u64, u64)> {
    stage.start_agent()?;
    let start = Instant::now();
    arm(stage, count)?;
    if count > 1 {
        println!("armed {count} in {:.1} s", start.elapsed().as_secs_f64());
    }
    // One run says little: the machine's other work meets it or not.
    let mut measured = (0..PASSES)
        .map(|_| measure(stage, address, options))
        .collect::<Result<Vec<_>>>()?;
    stage.stop_agent()?;
    measured.sort_unstable();
    measured.get(PASSES / 2).copied().context("no measurement")
}

fn measure(stage: &Stage, address: SocketAddr, options: &Options) -> Result<(u64, u64)> {
    let own = env::current_exe()?.display().to_string();
    let (address, count) = (address.to_string(), options.connects.to_string());
    let text = text_of(&mut stage.command("client", &own, &["bench", "connect", &address, &count]))?;
    let mut numbers = text.lines().map(str::parse::<u64>);
    let mut next = || {
        numbers
            .next()
            .context("a number is missing")?
            .context("read a number")
    };
    Ok((next()?, next()?))
}

/// Arms so many faults, none of which is about an address of this machine.
fn arm(stage: &Stage, count: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let socket = stage.socket();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS.min(count))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = Client::new(UnixStream::connect(&socket)?)?;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return Ok(());
                        }
                        client.post(&fault(number))?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(())
    })
}

fn fault(number: usize) -> String {
    let half = number / 2;
    let (high, low) = (half / 256 % 256, half % 256);
    let network = if number.is_multiple_of(2) {
        format!("198.18.{high}.{low}")
    } else {
        format!("10.{high}.{low}.0/24")
    };
    format!(
        r#"{{"name":"f{number}","to":{{"cidr":"{network}","port":81}},"effect":{{"type":"latency","delay":"1ms"}}}}"#
    )
}

/// As much of HTTP as arming a fault takes.
struct Client {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Client {
    fn new(stream: UnixStream) -> Result<Self> {
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, reader })
    }

    fn post(&mut self, body: &str) -> Result<()> {
        let request = format!(
            "POST /v1/faults HTTP/1.1\r\nhost: spike\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        let mut status = String::new();
        self.reader.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.reader.read_exact(&mut answer)?;
        if !status.contains(" 201 ") && !status.contains(" 200 ") {
            bail!("arm a fault: {}{}", status, String::from_utf8_lossy(&answer));
        }
        Ok(())
    }
}
