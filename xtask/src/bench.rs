//! `cargo xtask bench`: what Spike costs, measured on this machine.

mod capture;
mod client;
mod edges;
mod faults;
mod intercept;
mod load;
mod map;
mod observe;
mod peers;
mod report;
mod scale;

use anyhow::Result;
use clap::Parser as _;

/// The benches, in the order of the page.
const ALL: [&str; 7] = [
    "observe",
    "intercept",
    "scale",
    "faults",
    "capture",
    "map",
    "edges",
];

/// Measure what Spike costs on this machine.
///
/// Every bench states its machine, runs on real programs, and repeats enough to give a spread, not one number. Its
/// numbers are kept in `target/bench/`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    /// Run them all with their defaults, and write the table of docs/performance.md anew.
    All,
    /// Write the table of docs/performance.md from what the benches kept when they last ran.
    Table,
    Capture(capture::Options),
    Edges(edges::Options),
    Faults(faults::Options),
    Intercept(intercept::Options),
    Map(map::Options),
    Observe(observe::Options),
    Scale(scale::Options),
    Connect(scale::ConnectOptions),
    #[command(hide = true)]
    Client(client::Options),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.bench {
        Bench::All => all(),
        Bench::Table => report::publish(&ALL),
        Bench::Client(options) => client::run(options),
        Bench::Connect(options) => scale::connect(options),
        bench => bench.lines().map(drop),
    }
}

impl Bench {
    /// Runs it and gives what it found.
    fn lines(&self) -> Result<Vec<report::Line>> {
        match self {
            Self::Capture(options) => capture::run(options),
            Self::Edges(options) => edges::run(options),
            Self::Faults(options) => faults::run(options),
            Self::Intercept(options) => intercept::run(options),
            Self::Map(options) => map::run(options),
            Self::Observe(options) => observe::run(options),
            Self::Scale(options) => scale::run(options),
            Self::All | Self::Table | Self::Client(_) | Self::Connect(_) => Ok(Vec::new()),
        }
    }
}

fn all() -> Result<()> {
    /// A bench as a command line has it.
    #[derive(clap::Parser)]
    struct Alone {
        #[command(subcommand)]
        bench: Bench,
    }
    for name in ALL {
        println!("\n== {name}");
        Alone::parse_from(["bench", name]).bench.lines()?;
    }
    report::publish(&ALL)
}
