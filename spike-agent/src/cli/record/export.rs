//! `spike record export`: the calls of a recording for other tools.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::cli::output::note;
use crate::recording::{Reader, export};

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Format {
    /// HTTP calls as an HTTP archive, HAR 1.2
    #[arg(long)]
    har: bool,
    /// HTTP calls as commands of curl
    #[arg(long)]
    curl: bool,
    /// All calls with their fields, a JSON object a line
    #[arg(long)]
    jsonl: bool,
    /// All connections as packets, made up from their bytes
    #[arg(long)]
    pcapng: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A recording
    file: PathBuf,
    #[command(flatten)]
    format: Format,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE|-")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &ExportArgs) -> Result<()> {
    let reader = Reader::open(&args.file)?;
    let mut out: Box<dyn Write> = match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            // What is in a recording is not everyone's business.
            let file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(path);
            Box::new(BufWriter::new(
                file.with_context(|| format!("make {}", path.display()))?,
            ))
        }
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let format = &args.format;
    let written = if format.har {
        export::har(&reader, &mut out)?
    } else if format.curl {
        export::curl(&reader, &mut out)?
    } else if format.pcapng {
        export::pcapng(&reader, &mut out)?
    } else {
        export::jsonl(&reader, &mut out)?
    };
    out.flush()?;
    if written.left_out > 0 {
        note(format_args!(
            "{} written; {} have no place in this format, as they are not HTTP or not whole, and are left out",
            written.calls, written.left_out
        ));
    }
    Ok(())
}
