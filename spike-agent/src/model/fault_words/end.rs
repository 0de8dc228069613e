//! `--from` and `--to`: the ends of a call as `key=value` words.

use std::str::FromStr;

use clap::Args;

use crate::model::{
    FieldError, RawEnd,
    selector::{RawPort, RawUser},
};

/// What an end can be chosen by.
const KEYS: [&str; 11] = [
    "service",
    "process",
    "pid",
    "cgroup",
    "container",
    "unit",
    "user",
    "host",
    "cidr",
    "port",
    "netns",
];

/// Which calls, in words.
#[derive(Clone, Debug, Default, Args)]
pub struct EndWords {
    /// Who calls: service=, process=, pid=, cgroup=, container=, unit=, user=, host=, cidr=, port=, netns=; all that
    /// are given must match
    #[arg(long, value_name = "KEY=VALUE[,..]")]
    from: Vec<String>,
    /// What is called: the same keys, such as port=PORT|FIRST-LAST, host=NAME, cidr=ADDRESS[/BITS]; all that are given
    /// must match
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
            "service" => set(&mut end.service, key, text())?,
            "process" => set(&mut end.process, key, text())?,
            "pid" => set(&mut end.pid, key, number(value))?,
            "cgroup" => set(&mut end.cgroup, key, text())?,
            "container" => set(&mut end.container, key, text())?,
            "unit" => set(&mut end.unit, key, text())?,
            "user" => set(&mut end.user, key, text().map(RawUser::Name))?,
            "host" => set(&mut end.host, key, text())?,
            "cidr" => set(&mut end.cidr, key, text())?,
            "port" => set(&mut end.port, key, Ok(port(value)))?,
            "netns" => set(&mut end.netns, key, text())?,
            _ => return Err(FieldError::new(key, no_such_key(key))),
        }
    }
    Ok(end)
}

/// Names the key that was probably meant, and all there are.
fn no_such_key(key: &str) -> String {
    let all = KEYS.join(", ");
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, key);
    match KEYS
        .iter()
        .min_by_key(distance)
        .filter(|known| distance(known) <= 2)
    {
        Some(meant) => format!("no such key, did you mean {meant}? There are {all}"),
        None => format!("no such key; there are {all}"),
    }
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
