//! What to record, in words of the command line.

use std::{
    fs,
    path::{Path, PathBuf, absolute},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::model::{RawRecording, fault_words::EndWords};

#[derive(Debug, Args)]
pub(super) struct RecordWords {
    #[command(flatten)]
    ends: EndWords,
    /// Record all connections of this host
    #[arg(long)]
    everything: bool,
    /// File to write, which must not exist yet [default: one in the agent's own directory]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep no more than so much of what one side says in one go, such as 1MB
    #[arg(long, value_name = "SIZE")]
    body_limit: Option<String>,
    /// What else is a secret: header=NAME or field=NAME, @FILE with a rule a line, or `none` to keep secrets readable; may
    /// be given several times
    #[arg(long, value_name = "RULES", value_delimiter = ',')]
    redact: Vec<String>,
    /// Let connections wait while the file is behind, so that nothing is lost
    #[arg(long)]
    backpressure: bool,
}

impl RecordWords {
    pub(super) fn to_raw(&self) -> Result<RawRecording> {
        let output = self.output.as_deref().map(absolute_path).transpose()?;
        Ok(RawRecording {
            from: self.ends.from()?,
            to: self.ends.to()?,
            everything: self.everything,
            output,
            body_limit: self.body_limit.clone(),
            redact: redaction_rules(&self.redact)?,
            backpressure: self.backpressure,
        })
    }
}

/// The path as the agent, which is elsewhere, finds it.
pub(in crate::cli) fn absolute_path(path: &Path) -> Result<String> {
    let path = absolute(path).with_context(|| format!("find {}", path.display()))?;
    let text = path.into_os_string().into_string();
    text.map_err(|path| anyhow::anyhow!("{}: the path must be UTF-8", path.display()))
}

/// Rules as they were given, those of files read.
pub(in crate::cli) fn redaction_rules(words: &[String]) -> Result<Vec<String>> {
    let mut rules = Vec::new();
    for word in words {
        let Some(file) = word.strip_prefix('@') else {
            rules.push(word.clone());
            continue;
        };
        let text = fs::read_to_string(file).with_context(|| format!("--redact {word}: read the rules"))?;
        let lines = text.lines().map(str::trim);
        rules.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    Ok(rules)
}
