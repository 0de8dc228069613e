//! `cargo xtask tidy`: the project's own rules, which no compiler or linter checks.

mod modules;
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::cargo::workspace;

/// Check the rules that are Spike's own.
///
/// Each Rust file says on its first line why it exists; files stay short (a warning above 600 lines, a failure above
/// 900); the agent's modules depend on each other one way, by one table; nothing unfinished; no path of one machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// What is built, fetched or git's own.
const SKIPPED: [&str; 4] = ["target", ".git", "node_modules", "dist"];

/// Endings of the text that a person wrote; `run` is CI's script.
const TEXT: [&str; 12] = [
    "rs", "md", "toml", "sh", "run", "yml", "yaml", "js", "ts", "css", "html", "service",
];

/// What a check found in a file.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Counted from 1.
    line: usize,
    what: String,
    /// Said, but no failure.
    warning: bool,
}

pub(crate) fn run(_options: &Options) -> Result<()> {
    let workspace = workspace();
    let mut files = Vec::new();
    walk(&workspace, &mut files)?;
    files.sort();
    let mut failures = 0;
    for file in &files {
        let shown = file.strip_prefix(&workspace).unwrap_or(file);
        let content = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        for Finding { line, what, warning } in check(shown, &content) {
            let kind = if warning { "warning" } else { "error" };
            println!("{}:{line}: {kind}: {what}", shown.display());
            failures += usize::from(!warning);
        }
    }
    if failures > 0 {
        bail!("{failures} findings in {} files", files.len());
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

fn check(file: &Path, content: &str) -> Vec<Finding> {
    let mut findings = text::everywhere(content);
    if file.extension().is_some_and(|ending| ending == "rs") {
        findings.extend(text::rust(content));
        if let Ok(source) = file.strip_prefix("spike-agent/src") {
            findings.extend(modules::check(source, content));
        }
    }
    findings
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            walk(&entry.path(), files)?;
        }
        let ending = entry.path().extension().unwrap_or(&name).to_owned();
        if kind.is_file() && TEXT.iter().any(|text| ending == *text) {
            files.push(entry.path());
        }
    }
    Ok(())
}
