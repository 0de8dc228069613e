//! `spike record import`: a recording made of another file.

use std::{fs::File, io::Read as _, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::words::redaction_rules;
use crate::cli::{human, output::note};
use crate::recording::{Redaction, import};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// HAR, pcapng or pcap file
    file: PathBuf,
    /// Recording to write, which must not exist yet
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// What else is a secret, as for `spike record start`
    #[arg(long, value_name = "RULES", value_delimiter = ',')]
    redact: Vec<String>,
}

pub(super) fn run(args: &ImportArgs) -> Result<()> {
    let rules = Redaction::parse(&redaction_rules(&args.redact)?).context("--redact")?;
    let shown = args.file.display();
    let mut file = File::open(&args.file).with_context(|| format!("open {shown}"))?;
    let mut start = [0; 16];
    let length = file.read(&mut start).with_context(|| format!("read {shown}"))?;
    let file = File::open(&args.file).with_context(|| format!("open {shown}"))?;
    let from = args.file.to_string_lossy();
    // A HAR is JSON, with or without a byte order mark; captures begin with numbers of their own.
    let text = start[..length]
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(&start[..length]);
    let imported = match text.trim_ascii_start().first() {
        Some(b'{') => import::har(file, &from, &args.output, rules),
        Some(_) => import::packets(file, &from, &args.output, rules),
        None => bail!("{shown} is empty"),
    };
    let imported = imported.with_context(|| format!("import {shown}"))?;
    let mut text = format!(
        "{}: {} calls in {} connections, {}",
        args.output.display(),
        imported.calls,
        imported.connections,
        human::bytes(imported.bytes)
    );
    if imported.left_out > 0 {
        text += &format!("; {} entries or packets are left out", imported.left_out);
    }
    if imported.missing > 0 {
        text += &format!("; {} bytes are missing in the file", imported.missing);
    }
    if imported.is_cut {
        text += "; the file ends within a packet";
    }
    note(text);
    Ok(())
}
