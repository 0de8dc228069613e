//! `cargo xtask bench capture`: what Spike and dumpcap lose of the same packets, at the same time.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::report::{self, Bounds, Line, Spread};
use crate::{
    cargo::build_spike,
    demo::stage::{Stage, text_of},
};

/// How long programs get to start, and packets to arrive.
const PAUSE: Duration = Duration::from_millis(700);
/// Where iperf3 listens.
const PORT: &str = "17391";

/// Measure what Spike and dumpcap lose of the same packets at the same time.
///
/// iperf3 sends datagrams of one size over the loopback device, at several rates; both write whole packets to a file, and
/// each counts its own losses. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Datagrams a second, one measurement for each.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 30_000, 60_000, 120_000])]
    rates: Vec<u64>,
    /// Bytes of each datagram.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(16..=60_000))]
    bytes: u64,
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=10))]
    seconds: u64,
}

/// What one of the two said of a measurement.
#[derive(Debug)]
struct Taken {
    written: u64,
    lost: u64,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Line>> {
    build_spike()?;
    let mut stage = Stage::new("bench", false)?;
    for place in ["server", "client", "dumpcap"] {
        stage.place(place)?;
    }
    stage.start("server", "iperf3", &["-s", "-p", PORT, "-B", "127.0.0.1"])?;
    stage.start_agent()?;
    sleep(PAUSE);
    println!(
        "{}",
        text_of(Command::new("dumpcap").arg("--version"))?
            .lines()
            .next()
            .unwrap_or("")
    );
    println!(
        "{} bytes a datagram, {} s each\n{:>12}  {:>12} {:>10} {:>8}  {:>12} {:>10} {:>8}",
        options.bytes, options.seconds, "sent/s", "dumpcap", "lost", "", "spike", "lost", ""
    );
    let mut lines = Vec::new();
    for &rate in &options.rates {
        let (dumpcap, spike) = measure(&stage, rate, options)?;
        println!(
            "{rate:>12}  {:>12} {:>10} {:>7.3}%  {:>12} {:>10} {:>7.3}%",
            dumpcap.written,
            dumpcap.lost,
            dumpcap.percent(),
            spike.written,
            spike.lost,
            spike.percent()
        );
        lines.push(Line {
            what: format!("capture of {rate} packets a second: packets written"),
            against: "dumpcap".to_owned(),
            found: Spread::one(spike.written as f64 / dumpcap.written.max(1) as f64),
            bounds: Some(Bounds::AtLeast { must: 1.0, goal: 2.0 }),
        });
    }
    stage.stop_agent()?;
    report::keep("capture", &lines)?;
    Ok(lines)
}

impl Taken {
    fn percent(&self) -> f64 {
        self.lost as f64 * 100.0 / (self.written + self.lost).max(1) as f64
    }
}

fn measure(stage: &Stage, rate: u64, options: &Options) -> Result<(Taken, Taken)> {
    let files = ["dumpcap.pcapng", "spike.pcapng"].map(|name| stage.state_dir().join(name));
    let [theirs, ours] = files.each_ref().map(|file| file.to_string_lossy().into_owned());
    let filter = format!("udp port {PORT}");
    let mut dumpcap = stage.command(
        "dumpcap",
        "dumpcap",
        &["-q", "-i", "lo", "-f", &filter, "-w", &theirs],
    );
    let dumpcap = spawn(&mut dumpcap)?;
    let to = format!("port={PORT}");
    let args = [
        "capture", "run", "-i", "lo", "--to", &to, "-f", "udp", "-o", &ours,
    ];
    let spike = spawn(&mut stage.spike_command(&args))?;
    sleep(PAUSE);
    let bits = (rate * options.bytes * 8).to_string();
    let (bytes, seconds) = (options.bytes.to_string(), options.seconds.to_string());
    let args = [
        "-c",
        "127.0.0.1",
        "-p",
        PORT,
        "-u",
        "-b",
        &bits,
        "-l",
        &bytes,
        "-t",
        &seconds,
    ];
    let sent = text_of(&mut stage.command("client", "iperf3", &args));
    sleep(PAUSE);
    let (dumpcap, spike) = (end(dumpcap)?, end(spike)?);
    for file in files {
        remove(&file);
    }
    sent?;
    Ok((
        read_dumpcap(&dumpcap).with_context(|| format!("dumpcap said {dumpcap:?}"))?,
        read_spike(&spike).with_context(|| format!("spike said {spike:?}"))?,
    ))
}

fn spawn(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))
}

/// Ends a program by Ctrl-C; gives what it said.
fn end(child: Child) -> Result<String> {
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{}: {said}", output.status);
    }
    Ok(said)
}

fn remove(file: &Path) {
    // The stage's directory goes at the end in any case.
    let _ = std::fs::remove_file(file);
}

/// `Packets received/dropped on interface 'lo': 10/2 (pcap:...)`
fn read_dumpcap(said: &str) -> Option<Taken> {
    let line = said.lines().find(|line| line.contains("received/dropped"))?;
    let counts = line.rsplit_once("': ")?.1.split(' ').next()?;
    let (written, lost) = counts.split_once('/')?;
    Some(Taken {
        written: written.parse().ok()?,
        lost: lost.parse().ok()?,
    })
}

/// `spike: 10 packets of lo written to FILE (1KiB), 2 lost`
fn read_spike(said: &str) -> Option<Taken> {
    let line = said.lines().find(|line| line.contains(" packets of "))?;
    let written = line.split(' ').nth(1)?;
    let lost = line.rsplit_once(", ")?.1.split(' ').next()?;
    Some(Taken {
        written: written.parse().ok()?,
        lost: lost.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_understood() {
        let said = "Capturing on 'lo'\nPackets received/dropped on interface 'Loopback: lo': 120/3 (pcap:3/dumpcap:0)\n";
        let dumpcap = read_dumpcap(said).unwrap();
        assert_eq!((dumpcap.written, dumpcap.lost), (120, 3));
        let spike = read_spike("spike: 45 packets of lo written to /x (1KiB), 6 lost\n").unwrap();
        assert_eq!((spike.written, spike.lost), (45, 6));
    }
}
