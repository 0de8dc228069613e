//! `spike agent`: runs the agent.

use std::{
    io::{IsTerminal, stderr},
    path::PathBuf,
};

use anyhow::Result;
use clap::Args;
use tracing::level_filters::LevelFilter;

use crate::{
    app,
    config::{AgentConfig, Said},
};

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    said: Said,
    /// File with the same options as keys, such as `listen = "off"`; the command line wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: AgentArgs) -> Result<()> {
    let config = AgentConfig::load(args.said, args.config.as_deref())?;
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from(config.log_level))
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    app::run(config)
}
