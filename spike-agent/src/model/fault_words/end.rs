//! `--from` and `--to`: the ends of a call as `key=value` words.

use std::str::FromStr;

use clap::Args;

use crate::model::{FieldError, RawEnd, selector::RawPort};

/// Which calls, in words.
#[derive(Clone, Debug, Default, Args)]
pub struct EndWords {
    /// Who calls: process=NAME|GLOB|PATH, pid=PID, cgroup=PATH; all that are given must match
    #[arg(long, value_name = "KEY=VALUE[,..]")]
    from: Vec<String>,
    /// What is called: port=PORT|FIRST-LAST, cidr=ADDRESS[/BITS]; all that are given must match
    #[arg(long, value_name = "KEY=VALUE[,..]")]
    to: Vec<String>,
}

impl EndWords {
    /// The calling end.
    pub fn from(&self) -> Result<RawEnd, FieldError> {
        read(&self.from).map_err(|error| error.within("from"))
    }

    /// The called end.
    pub fn to(&self) -> Result<RawEnd, FieldError> {
        read(&self.to).map_err(|error| error.within("to"))
    }
}

fn read(words: &[String]) -> Result<RawEnd, FieldError> {
    let mut end = RawEnd::default();
    for word in words.iter().flat_map(|word| split_pairs(word)) {
        let Some((key, value)) = word.split_once('=') else {
            return Err(FieldError::new(
                "",
                format_args!("`{word}` is not key=value, such as process=curl"),
            ));
        };
        let text = || Ok(value.to_owned());
        match key {
            "process" => set(&mut end.process, key, text())?,
            "pid" => set(&mut end.pid, key, number(value))?,
            "cgroup" => set(&mut end.cgroup, key, text())?,
            "cidr" => set(&mut end.cidr, key, text())?,
            "port" => set(&mut end.port, key, Ok(port(value)))?,
            _ => {
                let message = "no such key: --from takes process, pid and cgroup, --to takes cidr and port";
                return Err(FieldError::new(key, message));
            }
        }
    }
    Ok(end)
}

/// Splits at commas, but not within the braces of a glob such as `process={curl,wget}`.
fn split_pairs(word: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    word.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn set<T>(slot: &mut Option<T>, key: &str, value: Result<T, String>) -> Result<(), FieldError> {
    let value = value.map_err(|message| FieldError::new(key, message))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FieldError::new(key, "is given twice")),
    }
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is not a whole number in range"))
}

fn port(value: &str) -> RawPort {
    value
        .parse()
        .map_or_else(|_| RawPort::Text(value.to_owned()), RawPort::Number)
}
