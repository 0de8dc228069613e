//! The client of benches, a process of its own in the cgroup that faults choose: asks redis-server.

use std::{
    io::{IoSliceMut, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Range,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};

/// The hidden verb that runs it.
pub(super) const VERB: &str = "client";

/// What to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, clap::Subcommand)]
enum Ask {
    /// Time small calls on connections that are kept open; prints a line each: microseconds until the answer was read,
    /// and until the kernel had it for this process.
    Ping {
        port: u16,
        connections: usize,
        calls: usize,
        /// Between two calls, in nanoseconds.
        interval: u64,
    },
    /// Time a large answer; prints bytes a second.
    Fetch { port: u16, bytes: usize },
    /// Connect so often to each of so many addresses of 127.0.0.0/8.
    Spread {
        port: u16,
        /// Number of the first address.
        first: u32,
        addresses: u32,
        each: u32,
        /// Also ask with a byte and wait for an answer of one.
        #[arg(long)]
        call: bool,
    },
    /// Keep connections open, each of which has asked once: prints `open`, waits for the end of input.
    Hold { port: u16, connections: usize },
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.ask {
        Ask::Ping {
            port,
            connections,
            calls,
            interval,
        } => ping(port, connections, calls, Duration::from_nanos(interval)),
        Ask::Fetch { port, bytes } => fetch(port, bytes),
        Ask::Spread {
            port,
            first,
            addresses,
            each,
            call,
        } => spread(port, first..first + addresses, each, call),
        Ask::Hold { port, connections } => hold(port, connections),
    }
}

fn ping(port: u16, connections: usize, calls: usize, interval: Duration) -> Result<()> {
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connect to redis-server")?;
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::ReceiveTimestampns, &true)?;
        streams.push(stream);
    }
    let turn = interval * u32::try_from(connections)?;
    let start = Instant::now() + Duration::from_millis(200);
    let askers: Vec<_> = (0_u32..)
        .zip(streams)
        .map(|(place, mut stream)| {
            thread::spawn(move || -> Result<Vec<[Duration; 2]>> {
                let mut times = Vec::with_capacity(calls);
                let mut due = start + interval * place;
                for _ in 0..calls {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let begun = clock_gettime(ClockId::CLOCK_REALTIME)?;
                    stream.write_all(b"PING\r\n")?;
                    let arrived = read_pong(&stream)?;
                    let seen = clock_gettime(ClockId::CLOCK_REALTIME)?;
                    times.push([seen, arrived].map(|time| Duration::from(time - begun)));
                    due = (due + turn).max(Instant::now());
                }
                Ok(times)
            })
        })
        .collect();
    let mut text = String::new();
    for asker in askers {
        let Ok(times) = asker.join() else {
            bail!("an asking thread panicked");
        };
        for times in times.context("ask redis-server")? {
            let [seen, arrived] = times.map(|time| time.as_secs_f64() * 1e6);
            text += &format!("{seen:.1} {arrived:.1}\n");
        }
    }
    print!("{text}");
    Ok(())
}

/// Reads one answer; when the kernel had it, which is before a sleeping reader is awake (`SO_TIMESTAMPNS`, socket(7)).
fn read_pong(stream: &TcpStream) -> Result<TimeSpec> {
    let mut answer = [0; 7];
    let mut parts = [IoSliceMut::new(&mut answer)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_WAITALL,
    )?;
    let arrived = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmTimestampns(time) => Some(time),
        _ => None,
    });
    if message.bytes != answer.len() {
        bail!("the connection ended");
    }
    arrived.context("the kernel did not say when the answer came")
}

fn spread(port: u16, addresses: Range<u32>, each: u32, call: bool) -> Result<()> {
    for number in addresses {
        let [_, high, middle, low] = number.to_be_bytes();
        let address = SocketAddr::from(([127, 1 + high, middle, low], port));
        for _ in 0..each {
            let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
            if call {
                stream.write_all(&[1])?;
                stream.read_exact(&mut [0])?;
            }
            // Closed by a reset: ports that wait for their time-out would run out.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        }
    }
    Ok(())
}

fn hold(port: u16, connections: usize) -> Result<()> {
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect to redis-server")?;
        stream.write_all(b"PING\r\n")?;
        stream.read_exact(&mut [0; 7])?;
        streams.push(stream);
    }
    println!("open");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(streams);
    Ok(())
}

fn fetch(port: u16, bytes: usize) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect to redis-server")?;
    let last = bytes - 1;
    write!(stream, "SETRANGE big {last} x\r\n")?;
    let mut buffer = vec![0; 1 << 18];
    if stream.read(&mut buffer)? == 0 {
        bail!("redis-server closed the connection");
    }
    // The clock starts with the first bytes of the answer: what comes after them is paced.
    write!(stream, "GET big\r\n")?;
    let mut left = bytes.saturating_sub(stream.read(&mut buffer)?);
    let (start, paced) = (Instant::now(), left);
    while left > 0 {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            bail!("redis-server closed the connection {left} bytes early");
        }
        left = left.saturating_sub(length);
    }
    let rate = paced as f64 / start.elapsed().as_secs_f64();
    writeln!(stream, "DEL big")?;
    println!("{rate}");
    Ok(())
}
