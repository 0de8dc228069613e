//! `spike record`: requests and responses of chosen calls, in one file.

mod export;
mod import;
mod manage;
mod show;
mod words;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(super) use manage::summary;
pub(super) use words::{absolute_path, redaction_rules};

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    #[command(subcommand)]
    verb: RecordVerb,
}

#[derive(Debug, Subcommand)]
enum RecordVerb {
    /// Start a recording; connections that are opened from then on are recorded
    Start(manage::StartArgs),
    /// Stop recordings; their files are whole when this returns
    Stop(manage::StopArgs),
    /// Show the recordings that run, and the last that ended
    List(manage::ListArgs),
    /// Show what is in a recording; works without an agent
    Show(show::ShowArgs),
    /// Find calls whose bytes or fields have a pattern; works without an agent
    Grep(show::GrepArgs),
    /// Write the calls of a recording in another format; works without an agent
    Export(export::ExportArgs),
    /// Make a recording of a HAR, or of the TCP connections of a pcapng or pcap file; works without an agent
    Import(import::ImportArgs),
}

pub(super) async fn run(args: RecordArgs) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match args.verb {
        RecordVerb::Start(args) => manage::start(args).await.map(done),
        RecordVerb::Stop(args) => manage::stop(args).await.map(done),
        RecordVerb::List(args) => manage::list(args).await.map(done),
        RecordVerb::Show(args) => show::show(&args).map(done),
        RecordVerb::Grep(args) => show::grep(&args),
        RecordVerb::Export(args) => export::run(&args).map(done),
        RecordVerb::Import(args) => import::run(&args).map(done),
    }
}
