//! What the benches found: a line each, printed, kept as JSON, and as the table of docs/performance.md.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cargo::{target_dir, workspace};

const PAGE: &str = "docs/performance.md";
/// The table stands between these in the page.
const BEGIN: &str = "<!-- made by `cargo xtask bench all` -->";
const END: &str = "<!-- end -->";

/// One measured number with what it is held against.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) what: String,
    /// What the number is a ratio to, or an absolute number's unit.
    pub(super) against: String,
    pub(super) found: Spread,
    /// What it must reach, and what is aimed at; none where it is told only.
    pub(super) bounds: Option<Bounds>,
}

/// A median, and the least and most of all rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bounds {
    AtLeast { must: f64, goal: f64 },
    AtMost { must: f64, goal: f64 },
}

impl Spread {
    /// Of values in any order.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let or_nan = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self {
            median: or_nan(sorted.get(sorted.len() / 2)),
            least: or_nan(sorted.first()),
            most: or_nan(sorted.last()),
        }
    }

    /// Of the ratios of values that were measured one beside the other.
    pub(super) fn of_ratios(values: &[f64], to: &[f64]) -> Self {
        let ratios: Vec<f64> = values.iter().zip(to).map(|(value, to)| value / to).collect();
        Self::of(&ratios)
    }

    /// Of one value.
    pub(super) fn one(value: f64) -> Self {
        Self::of(&[value])
    }
}

impl Bounds {
    /// `goal`, `must` or `short` of both.
    fn verdict(self, value: f64) -> &'static str {
        let (must, goal) = match self {
            Self::AtLeast { must, goal } => (value >= must, value >= goal),
            Self::AtMost { must, goal } => (value <= must, value <= goal),
        };
        match (must, goal) {
            (_, true) => "goal",
            (true, false) => "must",
            (false, false) => "short",
        }
    }

    fn shown(self) -> [String; 2] {
        let (sign, must, goal) = match self {
            Self::AtLeast { must, goal } => ("≥", must, goal),
            Self::AtMost { must, goal } => ("≤", must, goal),
        };
        [must, goal].map(|bound| format!("{sign} {bound}"))
    }
}

impl Line {
    fn row(&self) -> String {
        let [must, goal] = self.bounds.map_or_else(Default::default, Bounds::shown);
        let verdict = self.bounds.map_or("", |bounds| bounds.verdict(self.found.median));
        let Spread { median, least, most } = self.found;
        let range = if least == most {
            String::new()
        } else {
            format!("{} to {}", short(least), short(most))
        };
        format!(
            "| {} | {} | {} | {range} | {must} | {goal} | {verdict} |",
            self.what,
            self.against,
            short(median)
        )
    }

    fn json(&self) -> Value {
        json!({
            "row": self.row(), "what": self.what, "against": self.against,
            "median": self.found.median, "least": self.found.least, "most": self.found.most,
            "reached": self.bounds.map(|bounds| bounds.verdict(self.found.median)),
        })
    }
}

/// Three figures are all that such measurements hold.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Prints the lines and keeps them as `target/bench/NAME.json`.
pub(super) fn keep(name: &str, lines: &[Line]) -> Result<()> {
    let rows: Vec<String> = lines.iter().map(Line::row).collect();
    println!("\n{}", table(&rows));
    let dir = target_dir().join("bench");
    fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}.json"));
    let lines: Vec<Value> = lines.iter().map(Line::json).collect();
    let text = serde_json::to_string_pretty(&json!({ "machine": machine(), "lines": lines }))?;
    fs::write(&file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    println!("kept in {}", file.display());
    Ok(())
}

/// Writes the table of what these benches kept into the page; those that never ran are left out.
pub(super) fn publish(names: &[&str]) -> Result<()> {
    let mut rows = Vec::new();
    for name in names {
        let file = target_dir().join("bench").join(format!("{name}.json"));
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let kept: Value = serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?;
        let lines = kept["lines"].as_array().into_iter().flatten();
        rows.extend(lines.filter_map(|line| line["row"].as_str().map(str::to_owned)));
    }
    let path = workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("no {BEGIN} in {PAGE}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("no {END} in {PAGE}"))?;
    let page = format!("{before}{BEGIN}\n{}\n\n{}\n{END}{after}", machine(), table(&rows));
    fs::write(&path, page).with_context(|| format!("write {PAGE}"))
}

fn table(rows: &[String]) -> String {
    let mut text = "| what | against | median | rounds | must | goal | reached |\n".to_owned();
    text += "|---|---|---|---|---|---|---|";
    for row in rows {
        text += "\n";
        text += row;
    }
    text
}

/// Processors, kernel and the programs that took part.
pub(super) fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: String = kernel.trim().chars().take_while(|c| *c != '-').collect();
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches([' ', '\t', ':']);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<f64>()
                .ok()
        })
        .map_or(0.0, |kib| kib / 1024.0 / 1024.0);
    format!("{cpus} processors ({model}), {gib:.0} GiB, Linux {kernel}")
}

/// First line of what a program says of its version, on either output.
pub(super) fn version(program: &str, arg: &str) -> String {
    let said = Command::new(program).arg(arg).output().map(|output| {
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    });
    let said = said.unwrap_or_default();
    said.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_reached() {
        let line = |median: f64, bounds| Line {
            what: "a".into(),
            against: "b".into(),
            found: Spread::of(&[median, 0.5, 2.0]),
            bounds: Some(bounds),
        };
        let rate = Bounds::AtLeast { must: 0.9, goal: 1.0 };
        let time = Bounds::AtMost {
            must: 80.0,
            goal: 40.0,
        };
        assert_eq!(
            line(0.95, rate).row(),
            "| a | b | 0.950 | 0.500 to 2.00 | ≥ 0.9 | ≥ 1 | must |"
        );
        for (median, bounds, reached) in [(1.0, rate, "goal"), (0.6, rate, "short"), (1.5, time, "goal")] {
            assert_eq!(line(median, bounds).json()["reached"], reached);
        }
        assert_eq!(time.verdict(81.0), "short");
        assert_eq!(time.verdict(80.0), "must");
    }
}
