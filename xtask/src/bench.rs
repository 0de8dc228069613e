//! `cargo xtask bench`: what Spike costs, measured on this machine.

mod map;
mod observe;
mod scale;

use anyhow::Result;

/// Measure what Spike costs on this machine.
///
/// Every bench states its machine, runs on real programs, and repeats enough to give a spread, not one number.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Map(map::Options),
    Observe(observe::Options),
    Scale(scale::Options),
    Connect(scale::ConnectOptions),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.bench {
        Bench::Map(options) => map::run(options),
        Bench::Observe(options) => observe::run(options),
        Bench::Scale(options) => scale::run(options),
        Bench::Connect(options) => scale::connect(options),
    }
}
