//! `spike capture`: packets of chosen calls, in a file or kept by the agent.

mod manage;
mod show;
mod words;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use self::words::CaptureWords;
use super::{
    client::Client,
    output::note,
    recorder::{Recorder, Target, stop},
};

/// How long the last packets may take to arrive once the capture was stopped.
const LAST_PACKETS: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    #[command(subcommand)]
    verb: CaptureVerb,
}

#[derive(Debug, Subcommand)]
enum CaptureVerb {
    /// Capture to a file until the time or the count is over, or Ctrl-C
    Run(RunArgs),
    /// Start a capture that the agent keeps on its disk
    Start(manage::StartArgs),
    /// Show the captures
    List(manage::ListArgs),
    /// Stop captures; what they took stays
    Stop(manage::IdArgs),
    /// Write a capture that the agent keeps to a file
    Export(manage::ExportArgs),
    /// Stop captures, and take them off the agent's disk
    Remove(manage::IdArgs),
    /// Tell captures that were started with --before that it has happened
    Trigger(manage::IdArgs),
    /// Show the calls in a capture file; works without an agent
    Show(show::ShowArgs),
}

/// A format of capture files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// With process, service and container on each packet
    #[default]
    Pcapng,
    /// For tools that read nothing else: packets with nanoseconds, and nothing more
    Pcap,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    client: Client,
    /// File to write, `-` for standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: PathBuf,
    /// Format of the file
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    words: CaptureWords,
}

pub(super) async fn run(args: CaptureArgs) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match args.verb {
        CaptureVerb::Run(args) => capture(args).await,
        CaptureVerb::Start(args) => manage::start(args).await.map(done),
        CaptureVerb::List(args) => manage::list(args).await.map(done),
        CaptureVerb::Stop(args) => manage::stop(args).await.map(done),
        CaptureVerb::Export(args) => manage::export(args).await.map(done),
        CaptureVerb::Remove(args) => manage::remove(args).await.map(done),
        CaptureVerb::Trigger(args) => manage::trigger(args).await.map(done),
        CaptureVerb::Show(args) => show::run(&args).map(done),
    }
}

async fn capture(args: RunArgs) -> Result<ExitCode> {
    // Before anything is started, so that no signal is missed.
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("watch for SIGHUP")?;
    let request = args.words.to_raw()?;
    let is_pcap = args.format == Format::Pcap;
    if is_pcap && request.file_size.is_some() {
        bail!(
            "--format pcap: a capture that is cut into files is pcapng; convert them with editcap -F nsecpcap"
        );
    }
    let target = Target {
        output: args.output,
        is_pcap,
        files: request.file_size.as_ref().map(|_| request.files),
    };
    let recorder = Recorder::start(&args.client, &request, target).await?;
    let id = recorder.id().to_owned();
    let mut writing = tokio::spawn(recorder.write_all());
    let asked_to_stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let ended = tokio::select! {
        ended = &mut writing => ended,
        () = asked_to_stop => {
            stop(&args.client, &id).await?;
            tokio::select! {
                ended = tokio::time::timeout(LAST_PACKETS, writing) => {
                    ended.context("the last packets did not arrive in time")?
                }
                // Asked again: what is written until now has to do.
                _ = interrupt.recv() => return Ok(ExitCode::from(130)),
            }
        }
    };
    note(ended.context("write the capture")??);
    Ok(ExitCode::SUCCESS)
}
