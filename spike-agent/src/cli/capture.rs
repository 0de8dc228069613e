//! `spike capture run`: writes packets of chosen calls to a pcapng file.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    client::Client,
    output::note,
    recorder::{Recorder, stop},
};
use crate::model::{RawCapture, fault_words::EndWords};

/// How long the last packets may take to arrive once the capture was stopped.
const LAST_PACKETS: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    #[command(subcommand)]
    verb: CaptureVerb,
}

#[derive(Debug, Subcommand)]
enum CaptureVerb {
    /// Capture until the time or the count is over, or Ctrl-C
    Run(RunArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    client: Client,
    /// pcapng file to write, `-` for standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: PathBuf,
    /// End after this time, such as 10s
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<String>,
    /// End after this many packets
    #[arg(long)]
    count: Option<u64>,
    /// Interface to capture on; may be given several times [default: all that are up]
    #[arg(long = "interface", short, value_name = "NAME", value_delimiter = ',')]
    interfaces: Vec<String>,
    /// Bytes kept of each packet, from 64 [default: 262144]
    #[arg(long, value_name = "BYTES")]
    snaplen: Option<u32>,
    #[command(flatten)]
    ends: EndWords,
}

pub(super) async fn run(args: CaptureArgs) -> Result<ExitCode> {
    let CaptureVerb::Run(args) = args.verb;
    // Before anything is started, so that no signal is missed.
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("watch for SIGHUP")?;
    let request = RawCapture {
        from: args.ends.from()?,
        to: args.ends.to()?,
        everything: false,
        interfaces: args.interfaces,
        snaplen: args.snaplen,
        count: args.count,
        duration: args.duration,
    };
    let recorder = Recorder::start(&args.client, &request, &args.output).await?;
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
