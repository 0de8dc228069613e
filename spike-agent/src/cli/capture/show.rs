//! `spike capture show`: the calls in a capture file, a line each.

use std::{
    fs::File,
    io::{Read, Write as _, stdin, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::capture::show;
use crate::cli::{calls::line, output::note};
use crate::model::{CALL_FIELDS, Find};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// pcapng or pcap file, of Spike or of any other program; `-` for standard input
    file: PathBuf,
    /// Only calls of which this is true, such as `protocol=redis and (failed or total>100ms)`; see `spike calls --help`
    #[arg(long, value_name = "CONDITION")]
    find: Option<String>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ShowArgs) -> Result<()> {
    let find = args.find.as_deref().map(|text| Find::parse(text, CALL_FIELDS));
    let find = find
        .transpose()
        .map_err(|error| anyhow::anyhow!("--find: {error}"))?;
    let input: Box<dyn Read + Send> = if args.file == Path::new("-") {
        Box::new(stdin())
    } else {
        let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
        Box::new(file)
    };
    let mut out = stdout().lock();
    let mut failed = None;
    let totals = show::read(input, |call| {
        if failed.is_some() || find.as_ref().is_some_and(|find| !find.matches(&call)) {
            return;
        }
        let written = if args.json {
            serde_json::to_string(&call)
                .map_err(std::io::Error::other)
                .and_then(|text| writeln!(out, "{text}"))
        } else {
            writeln!(out, "{}", line(&call))
        };
        failed = written.err();
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    out.flush()?;
    let totals = totals.with_context(|| format!("read {}", args.file.display()))?;
    note(format_args!(
        "{} calls in {} connections, {} packets{}",
        totals.calls,
        totals.flows,
        totals.packets,
        if totals.is_cut {
            "; the file ends within a packet"
        } else {
            ""
        }
    ));
    Ok(())
}
