//! `spike replay`: recordings that answer in the place of servers, and recorded requests that are sent again.

mod drive;
mod learn;
mod manage;
mod stub;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::client::Client;
use crate::model::NoiseRule;
use crate::replay::Noise;

pub(super) use stub::{StubWords, report};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long, global = true, display_order = 1000)]
    json: bool,
    #[command(subcommand)]
    verb: ReplayVerb,
}

#[derive(Debug, Subcommand)]
enum ReplayVerb {
    /// Answer calls from a recording, with the real servers down or absent, until Ctrl-C
    Stub(stub::StubArgs),
    /// Send recorded requests again and compare the answers; works without an agent
    Drive(Box<drive::DriveArgs>),
    /// Show the stubs
    List,
    /// Show what a stub was asked that is not recorded, with what is most like it
    Misses {
        /// Its name
        #[arg(value_name = "STUB")]
        name: String,
    },
    /// Have a stub begin again with the first answers
    Restart {
        /// Its name
        #[arg(value_name = "STUB")]
        name: String,
    },
    /// End stubs
    Stop {
        /// Their names
        #[arg(required = true, value_name = "STUB")]
        names: Vec<String>,
    },
    /// Learn what is noise from two recordings of the same run; works without an agent
    Learn(learn::LearnArgs),
}

pub(super) async fn run(args: ReplayArgs) -> Result<ExitCode> {
    let ReplayArgs { client, json, verb } = args;
    let done = |()| ExitCode::SUCCESS;
    match verb {
        ReplayVerb::Stub(args) => stub::run(&client, json, args).await,
        ReplayVerb::Drive(args) => drive::run(*args, json).await,
        ReplayVerb::List => manage::list(&client, json).await.map(done),
        ReplayVerb::Misses { name } => manage::misses(&client, json, &name).await.map(done),
        ReplayVerb::Restart { name } => manage::restart(&client, json, &name).await.map(done),
        ReplayVerb::Stop { names } => manage::stop(&client, json, &names).await.map(done),
        ReplayVerb::Learn(args) => learn::run(&args, json).map(done),
    }
}

/// Reads files with rules of noise.
fn noise<P: AsRef<Path>>(files: &[P]) -> Result<Vec<NoiseRule>> {
    let mut all = Noise::default();
    for file in files {
        let shown = file.as_ref().display();
        let text = std::fs::read_to_string(file).with_context(|| format!("read {shown}"))?;
        let noise = Noise::parse(&text).map_err(|error| anyhow::anyhow!("{shown}: {error}"))?;
        all.merge(noise);
    }
    Ok(all.rules)
}

/// The path of a stub in the API.
fn stub_path(name: &str) -> String {
    let escaped = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("/v1/replays/{escaped}")
}
