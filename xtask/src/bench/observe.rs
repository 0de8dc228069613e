//! `cargo xtask bench observe`: wrk against nginx, with the agent off and on.

use anyhow::{Result, bail};

/// Measure requests per second and latency of wrk against nginx with the agent off and on.
///
/// Off and on take turns, so that a drift of the machine meets both alike.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options) -> Result<()> {
    bail!("the bench is not written yet")
}
