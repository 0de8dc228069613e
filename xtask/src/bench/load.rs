//! The load that benches put on servers by real programs, and what these programs say of it.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::client;
use crate::demo::stage::{Stage, text_of};

/// Requests a second of wrk for 1 KiB.
pub(super) fn wrk(stage: &Stage, place: &str, port: u16, load: Wrk) -> Result<f64> {
    let (connections, seconds) = (load.connections.to_string(), format!("{}s", load.seconds));
    let url = format!("http://127.0.0.1:{port}/small");
    let mut args = vec!["-t", "1", "-c", &connections, "-d", &seconds];
    if load.closes {
        args.extend(["-H", "Connection: close"]);
    }
    args.push(&url);
    let text = text_of(&mut load.pin.command(stage, place, "wrk", &args))?;
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    rate.with_context(|| format!("no Requests/sec: in wrk's output: {text}"))?
        .trim()
        .parse()
        .context("wrk's rate")
}

/// How wrk asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrk {
    pub(super) connections: u32,
    pub(super) seconds: u32,
    /// A connection for each request.
    pub(super) closes: bool,
    pub(super) pin: Pin,
}

/// Where a program may run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pin {
    Anywhere,
    To(usize),
}

impl Pin {
    /// A command in a place of the stage.
    pub(super) fn command(self, stage: &Stage, place: &str, program: &str, args: &[&str]) -> Command {
        match self {
            Self::Anywhere => stage.command(place, program, args),
            Self::To(cpu) => {
                let cpu = cpu.to_string();
                let all = [&["-c", &cpu, program], args].concat();
                stage.command(place, "taskset", &all)
            }
        }
    }
}

/// Operations a second of redis-benchmark: SET and GET of 16 bytes on 32 connections, one after the other on each.
pub(super) fn redis(stage: &Stage, place: &str, port: u16, requests: u32, pin: Pin) -> Result<f64> {
    let (port, requests) = (port.to_string(), requests.to_string());
    let args = [
        "-p", &port, "-n", &requests, "-c", "32", "-d", "16", "-t", "get", "--csv",
    ];
    let text = text_of(&mut pin.command(stage, place, "redis-benchmark", &args))?;
    let row = text.lines().last().unwrap_or("");
    let rate = row.split(',').nth(1).map(|field| field.trim_matches('"'));
    rate.and_then(|rate| rate.parse().ok())
        .with_context(|| format!("no rate in redis-benchmark's output: {text}"))
}

/// Gbit a second of one iperf3 stream.
pub(super) fn iperf3(stage: &Stage, place: &str, port: u16, seconds: u32, pin: Pin) -> Result<f64> {
    let (port, seconds) = (port.to_string(), seconds.to_string());
    let args = ["-c", "127.0.0.1", "-p", &port, "-t", &seconds, "-J"];
    let text = text_of(&mut pin.command(stage, place, "iperf3", &args))?;
    let said: Value = serde_json::from_str(&text).context("read iperf3's report")?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("no rate in iperf3's report")? / 1e9)
}

/// Times of calls in microseconds, from least to most.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// Until the client had read the answer.
    pub(super) seen: Vec<f64>,
    /// Until the kernel had the answer for the client, which had yet to wake up.
    pub(super) arrived: Vec<f64>,
}

/// Times PINGs of redis-server over connections that are kept open.
pub(super) fn ping(
    stage: &Stage,
    place: &str,
    port: u16,
    connections: usize,
    calls: usize,
    interval_ns: u128,
) -> Result<Pings> {
    let words = [
        "ping".to_owned(),
        port.to_string(),
        connections.to_string(),
        calls.to_string(),
        interval_ns.to_string(),
    ];
    let text = own_client(stage, place, &words)?;
    let mut pings = Pings::default();
    for line in text.lines() {
        let (seen, arrived) = line.split_once(' ').context("two times of the client's")?;
        pings.seen.push(seen.parse()?);
        pings.arrived.push(arrived.parse()?);
    }
    pings.seen.sort_by(f64::total_cmp);
    pings.arrived.sort_by(f64::total_cmp);
    Ok(pings)
}

/// What the client of this program prints.
pub(super) fn own_client(stage: &Stage, place: &str, words: &[String]) -> Result<String> {
    text_of(&mut own_command(stage, place, words)?)
}

/// The client of this program, in a place of the stage.
pub(super) fn own_command(stage: &Stage, place: &str, words: &[String]) -> Result<Command> {
    let program = env::current_exe().context("find this program")?;
    let words = words.iter().map(String::as_str);
    let all: Vec<&str> = ["bench", client::VERB].into_iter().chain(words).collect();
    Ok(stage.command(place, &program.to_string_lossy(), &all))
}

/// Where connections are taken and closed at once, until this program ends.
pub(super) fn accept_all(address: Ipv4Addr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).context("listen")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    Ok(at)
}

/// Where one caller at a time gets a byte for a byte, until this program ends.
pub(super) fn answer_all(address: Ipv4Addr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).context("listen")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who does not ask, or does not wait, gets nothing.
            let _ = stream.read_exact(&mut [0]).and_then(|()| stream.write_all(&[1]));
        }
    });
    Ok(at)
}

/// The value that so many percent of the sorted ones do not exceed.
pub(super) fn at(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// What a process has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Processor time in seconds, in user and kernel mode.
    pub(super) seconds: f64,
    /// Resident memory in MiB.
    pub(super) mebibytes: f64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read a process's times")?;
        // The name before the last parenthesis may hold any character.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |at: usize| -> Option<u64> { fields.split_ascii_whitespace().nth(at)?.parse().ok() };
        // Fields 14 and 15 of proc(5), in ticks of 10 ms on every Linux.
        let ticks = field(11).zip(field(12)).context("no times in /proc/PID/stat")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's memory")?;
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
