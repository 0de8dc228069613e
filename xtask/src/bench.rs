//! `cargo xtask bench`: what Spike costs, measured on this machine.

mod capture;
mod client;
mod faults;
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
    Capture(capture::Options),
    Faults(faults::Options),
    Map(map::Options),
    Observe(observe::Options),
    Scale(scale::Options),
    Connect(scale::ConnectOptions),
    #[command(hide = true)]
    Client(client::Options),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.bench {
        Bench::Capture(options) => capture::run(options),
        Bench::Faults(options) => faults::run(options),
        Bench::Map(options) => map::run(options),
        Bench::Observe(options) => observe::run(options),
        Bench::Scale(options) => scale::run(options),
        Bench::Connect(options) => scale::connect(options),
        Bench::Client(options) => client::run(options),
    }
}
