//! The command line: the agent's start, and a client of its API for everything else.

mod agent;
mod analyze;
mod calls;
mod capture;
mod cleanup;
mod client;
mod diff;
mod doctor;
mod exec;
mod fault;
mod human;
mod map;
mod output;
mod panic;
mod record;
mod recorder;
mod replay;
mod status;
mod table;
mod top;

use std::{io, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Sees, breaks and captures the calls between services on this host.
#[derive(Debug, Parser)]
#[command(
    name = "spike",
    version,
    after_help = "Start the agent as root with `spike agent`; every other command but `doctor` and `cleanup` talks \
                  to it.\nFor example: spike fault add latency --delay 200ms --from process=curl --to port=8080"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent (root, in the foreground)
    Agent(Box<agent::AgentArgs>),
    /// Show how the agent is doing
    Status(status::StatusArgs),
    /// Show which kernel facilities are there, and what is lost without the others
    Doctor(doctor::DoctorArgs),
    /// Show who calls whom
    Map(map::MapArgs),
    /// Show what is different on the map between two times
    Diff(diff::DiffArgs),
    /// Show what is wrong with the architecture, and what to try
    Analyze(analyze::AnalyzeArgs),
    /// Watch the edges of the map live, look into them, break them
    Top(top::TopArgs),
    /// Show calls as they end, a line each
    Calls(calls::CallsArgs),
    /// Break chosen calls for a limited time
    Fault(fault::FaultArgs),
    /// Everything off: remove all faults and stubs, stop all captures and recordings
    Panic(panic::PanicArgs),
    /// Capture packets of chosen calls
    Capture(capture::CaptureArgs),
    /// Record requests and responses of chosen calls
    Record(record::RecordArgs),
    /// Stand in for servers from a recording, or send recorded requests again and compare
    Replay(replay::ReplayArgs),
    /// Run a command with faults, a capture, a recording and stubs that touch it and its children alone
    Exec(exec::ExecArgs),
    /// Remove what a killed agent left behind
    Cleanup(cleanup::CleanupArgs),
}

/// Reads the command line, does what it says, and tells how that went by the exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        // `spike map | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Agent(args) => agent::run(*args).map(done),
        Command::Status(args) => block_on(status::run(args)).map(done),
        Command::Doctor(args) => doctor::run(&args),
        Command::Map(args) => block_on(map::run(args)).map(done),
        Command::Diff(args) => block_on(diff::run(args)).map(done),
        Command::Analyze(args) => block_on(analyze::run(args)).map(done),
        Command::Top(args) => block_on(top::run(args)).map(done),
        Command::Calls(args) => block_on(calls::run(args)).map(done),
        Command::Fault(args) => block_on(fault::run(args)).map(done),
        Command::Panic(args) => block_on(panic::run(args)).map(done),
        Command::Capture(args) => block_on(capture::run(args)),
        Command::Record(args) => block_on(record::run(args)),
        Command::Replay(args) => block_on(replay::run(args)),
        Command::Exec(args) => exec::run(args),
        Command::Cleanup(args) => cleanup::run(&args),
    }
}

/// Runs a client command on this thread.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(work)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_examples_of_the_manual_are_read() {
        for line in [
            "spike agent --listen off --socket /s --state-dir /d --cgroup /sys/fs/cgroup --config spike.toml",
            "spike status --json",
            "spike map",
            "spike map --at 10m-ago --since 5m --group service --find p99>100ms --hide protocol=dns --format svg",
            "spike map --watch",
            "spike map --watch 500ms --json",
            "spike diff 1h-ago",
            "spike diff 1h-ago 10m-ago --length 1m --group process --json",
            "spike analyze --since 1h --json",
            "spike analyze --without redis",
            "spike top",
            "spike calls --follow --json",
            "spike calls --for 10s",
            "spike doctor --json",
            "spike fault add latency --delay 200ms --jitter 50ms --from process=curl --to port=8080 --percent 50 \
             --ttl 10m --name slow",
            "spike fault add refuse --everything --socket /s --json",
            "spike fault change slow latency --delay 100ms --percent 10",
            "spike fault add latency --delay 1s --to port=1 --then reset --existing reset --dry-run --abort-when errors=5",
            "spike fault log --last 5 --json",
            "spike fault list --json",
            "spike fault remove slow fast",
            "spike fault clear",
            "spike panic",
            "spike capture run --output - --for 10s --count 5 --interface lo --interface eth0 --to port=80",
            "spike exec --fault refuse --fault reset --capture out.pcapng -- curl -v --fault x",
            "spike exec curl -v",
            "spike exec --record a.spike --redact field=x -- curl -v",
            "spike record start --from process=shop --to port=5432 --body-limit 1MB --redact header=x-a,field=b -o a.spike",
            "spike record stop r1 --json",
            "spike record stop",
            "spike record list",
            "spike record show a.spike --call 3",
            "spike record show a.spike --connections --json",
            "spike record grep -i pattern a.spike",
            "spike record export a.spike --har -o a.har",
            "spike record import a.har -o b.spike --redact none",
            "spike exec --stub a.spike --strict -- pytest",
            "spike replay stub a.spike --to port=80 --from process=curl --latency 2x --miss pass --strict --noise n.toml",
            "spike replay stub a.spike --detach --name x --ttl 1h --json",
            "spike replay drive a.spike --target http://localhost:8080 --speed 2x --header a:b --replace a=b --carry body.t",
            "spike replay drive a.spike --target localhost:6379 --rate 100 --concurrency 8 --loop=3 --junit a.xml --html a.html",
            "spike replay drive a.spike --target localhost:6379 --loop --json",
            "spike replay list",
            "spike replay misses x",
            "spike replay restart x",
            "spike replay stop x y",
            "spike replay learn a.spike b.spike -o n.toml",
            "spike cleanup --check",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "spike",
            "spike agent --listen 0.0.0.0:1",
            "spike capture run",
            "spike exec",
            "spike fault add",
            "spike record export a.spike",
            "spike record export a.spike --har --curl",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
