//! What goes to the terminal: data on standard output, remarks on standard error.

use std::{
    fmt,
    io::{self, Write},
};

use anyhow::Result;
use serde::Serialize;

/// Prints text as it is; a closed pipe is an error and not a panic.
pub(super) fn print(text: impl fmt::Display) -> Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints data for other programs.
pub(super) fn print_json(data: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(data)?;
    text.push('\n');
    print(text)
}

/// Tells the user something beside the data.
pub(super) fn note(text: impl fmt::Display) {
    // There is nowhere left to tell that standard error is gone.
    let _ = writeln!(io::stderr(), "spike: {text}");
}
