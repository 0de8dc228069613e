//! `spike replay learn`: writes rules for what differs between two recordings of the same run.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::super::output::{note, print, print_json};
use crate::replay::{learn, load};

#[derive(Debug, Args)]
pub(super) struct LearnArgs {
    /// The recording of the first run
    #[arg(value_name = "A")]
    first: PathBuf,
    /// The recording of the second
    #[arg(value_name = "B")]
    second: PathBuf,
    /// File to write the rules to, `-` for standard output
    #[arg(long, short, value_name = "FILE|-", default_value = "-")]
    output: PathBuf,
}

pub(super) fn run(args: &LearnArgs, json: bool) -> Result<()> {
    let learned = learn(&load(&args.first)?.talks, &load(&args.second)?.talks);
    note(format_args!(
        "{} calls compared, {} rules",
        learned.compared,
        learned.noise.rules.len()
    ));
    for (kind, first, second) in &learned.uneven {
        note(format_args!(
            "{kind}: {first} calls in the one, {second} in the other"
        ));
    }
    if json {
        return print_json(&learned.noise);
    }
    let text = learned.noise.to_text();
    if args.output.as_os_str() == "-" {
        return print(text);
    }
    std::fs::write(&args.output, text).with_context(|| format!("write {}", args.output.display()))
}
