//! `cargo xtask demo`: Spike at work on a few real services of this machine.

pub(crate) mod stage;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::cargo::{build_spike, installed, kernel_toolchain, target_dir, workspace};
use stage::{Stage, text_of};

/// What the demo runs beside Spike.
const PROGRAMS: [&str; 6] = ["nginx", "redis-server", "redis-cli", "curl", "capinfos", "tshark"];

/// See, break and capture calls between nginx, redis-server and their clients.
///
/// Installs what is missing (`scripts/setup.sh --test`), builds Spike, starts two servers and three clients in cgroups
/// of their own, shows the service map, makes one client's calls 200 ms slower, shows the map again, captures the slow
/// calls to target/demo.pcapng, and clears everything away. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave services and agent running at the end, to play with; says how to stop them.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        bail!("the demo loads programs into the kernel and needs root: run it as root, or with sudo");
    }
    set_up()?;
    build_spike()?;

    let mut stage = Stage::new("demo", options.keep)?;
    for place in ["web", "db", "worker"] {
        stage.place(place)?;
    }
    let (shop, admin) = (stage.place("shop")?, stage.place("admin")?);
    say("nginx and redis-server start, then the agent");
    let web = stage.nginx("web")?;
    let db = stage.redis("db")?;
    stage.start_agent()?;
    say("three clients start: two curls, in the cgroups shop and admin, and redis-cli");
    let calls = calls_of_curl(web)?;
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    stage.start("shop", calls[0], &calls[1..])?;
    stage.start("admin", calls[0], &calls[1..])?;
    let db = db.to_string();
    stage.start(
        "worker",
        "redis-cli",
        &["-p", &db, "-r", "-1", "-i", "0.05", "INCR", "jobs"],
    )?;
    thread::sleep(Duration::from_secs(3));
    show(&stage, &["map"])?;

    say(&format!(
        "200 ms on the calls of one curl alone, the one in {shop}"
    ));
    let (from, to) = (format!("cgroup={shop}"), format!("port={web}"));
    let fault = [
        "fault", "add", "latency", "--delay", "200ms", "--from", &from, "--to", &to,
    ];
    show(&stage, &[&fault[..], &["--ttl", "5m", "--name", "slow"]].concat())?;
    let url = format!("http://127.0.0.1:{web}/small");
    for (place, cgroup) in [("shop", &shop), ("admin", &admin)] {
        let args = ["-s", "-o", "/dev/null", "-w", "%{time_total}", &url];
        let seconds = text_of(&mut stage.command(place, "curl", &args))?;
        println!("a fresh curl in {cgroup} takes {seconds} s");
    }

    say("the packets of the slow calls, for two seconds");
    let file = target_dir().join("demo.pcapng");
    let shown = file.to_string_lossy().into_owned();
    let capture = [
        "capture", "run", "--output", &shown, "--for", "2s", "-i", "lo", "--from", &from,
    ];
    show(&stage, &capture)?;
    let info = text_of(Command::new("capinfos").args(["-t", "-c", "-u", &shown]))?;
    print!("$ capinfos -t -c -u {shown}\n{info}");
    let fields = ["-e", "frame.comment", "-e", "http.time"];
    let mut tshark = Command::new("tshark");
    tshark
        .args(["-n", "-r", &shown, "-Y", "http.time", "-T", "fields"])
        .args(fields);
    let responses = text_of(tshark.stderr(Stdio::null()))?;
    let first = responses.lines().next().unwrap_or("no response in it");
    println!("tshark on its first response (comment, seconds since the request): {first}");

    say("the map, some slow calls later");
    thread::sleep(Duration::from_secs(6));
    show(&stage, &["map"])?;
    show(&stage, &["fault", "remove", "slow"])?;
    finish(stage, options.keep)
}

fn finish(mut stage: Stage, keep: bool) -> Result<()> {
    if keep {
        println!("\neverything still runs; look at it with:");
        println!("  export SPIKE_SOCKET={}", stage.socket().display());
        println!("  {} map", target_dir().join("release/spike").display());
        println!("and stop it with: sh {}", stage.leave()?.display());
        return Ok(());
    }
    say("everything off");
    let state_dir = stage.state_dir().to_string_lossy().into_owned();
    stage.stop_agent()?;
    show(&stage, &["cleanup", "--check", "--state-dir", &state_dir])
}

/// Installs what is missing, in silence unless it fails.
fn set_up() -> Result<()> {
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|program| !installed(program))
        .collect();
    if missing.is_empty() && kernel_toolchain().is_ok() {
        return Ok(());
    }
    say("scripts/setup.sh --test installs what is missing; this takes some minutes");
    let output = Command::new(workspace().join("scripts/setup.sh"))
        .arg("--test")
        .stdin(Stdio::null())
        .output()
        .context("run scripts/setup.sh")?;
    if !output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        bail!(
            "scripts/setup.sh: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// A curl that calls ten times a second, on a new connection each time.
fn calls_of_curl(port: u16) -> Result<Vec<String>> {
    let url = format!("http://127.0.0.1:{port}/small");
    let help = text_of(Command::new("curl").args(["--help", "all"]))?;
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    if !help.contains("--rate ") {
        // Before curl 7.84: a process for each call.
        let script = format!("while :; do curl -s -o /dev/null {url}; sleep 0.1; done");
        return Ok(words(&["sh", "-c", &script]));
    }
    let many = format!("{url}?[1-1000000]");
    let close = ["-H", "Connection: close"];
    let rate = ["--rate", "10/s", "-s", "-o", "/dev/null"];
    Ok(words(&[&["curl"], &rate[..], &close[..], &[&many]].concat()))
}

fn say(text: &str) {
    println!("\n==> {text}");
}

/// Runs a client command as a person would see it.
fn show(stage: &Stage, args: &[&str]) -> Result<()> {
    println!("$ spike {}", args.join(" "));
    let status = stage.spike_command(args).status().context("run spike")?;
    if !status.success() {
        bail!("spike {}: {status}", args.join(" "));
    }
    Ok(())
}
