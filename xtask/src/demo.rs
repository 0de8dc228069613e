//! `cargo xtask demo`: Spike at work on a few real services of this machine.

use anyhow::{Result, bail};

/// Start a few services with traffic, and Spike beside them, to look at.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options) -> Result<()> {
    bail!("the demo is not written yet")
}
