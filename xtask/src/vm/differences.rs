//! The README's table of what differs from kernel to kernel, as `spike doctor` found it in each of them.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::machine::Boot;
use crate::cargo::workspace;

const START: &str = "<!-- kernels: written by cargo xtask vm --write -->";
const END: &str = "<!-- end of kernels -->";

/// Compares the README's table with what was found, or writes it.
pub(crate) fn check(boots: &[(&str, Boot)], write: bool) -> Result<()> {
    let path = workspace().join("README.md");
    let text = fs::read_to_string(&path)?;
    let table = table(boots)?;
    let (before, rest) = text
        .split_once(START)
        .with_context(|| format!("README.md has no {START}"))?;
    let (now, after) = rest
        .split_once(END)
        .with_context(|| format!("README.md has no {END}"))?;
    if now.trim() == table.trim() {
        return Ok(());
    }
    if !write {
        bail!(
            "README.md's table of kernels is not what was found: cargo xtask vm --write mends it. Found:\n{table}"
        );
    }
    fs::write(&path, format!("{before}{START}\n{table}{END}{after}"))?;
    println!("wrote README.md's table of kernels");
    Ok(())
}

/// A row for each facility that some kernel has and some other has not.
fn table(boots: &[(&str, Boot)]) -> Result<String> {
    // By the order in which the first kernel names them.
    let mut names: Vec<&str> = Vec::new();
    let mut found: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    let mut lost: BTreeMap<&str, &str> = BTreeMap::new();
    for (version, boot) in boots {
        let doctor = boot
            .doctor
            .as_ref()
            .with_context(|| format!("kernel {version}: spike doctor said nothing"))?;
        for check in doctor["checks"].as_array().into_iter().flatten() {
            let text = |key: &str| check[key].as_str().unwrap_or_default();
            if !names.contains(&text("name")) {
                names.push(text("name"));
            }
            found.insert((text("name"), version), check["present"] == Value::Bool(true));
            lost.insert(text("name"), text("lost"));
        }
    }
    let has = |name: &&str, version: &str| found.get(&(*name, version)) == Some(&true);
    let differs = |name: &&str| {
        let count = boots.iter().filter(|(version, _)| has(name, version)).count();
        count > 0 && count < boots.len()
    };
    let versions: String = boots.iter().map(|(version, _)| format!(" {version} |")).collect();
    let mut table = format!(
        "| facility |{versions} lost without it |\n|---|{}---|\n",
        "---|".repeat(boots.len())
    );
    for name in names.iter().filter(|name| differs(name)) {
        let cells: String = boots
            .iter()
            .map(|(version, _)| if has(name, version) { " yes |" } else { " no |" })
            .collect();
        table += &format!("| {name} |{cells} {} |\n", lost.get(name).unwrap_or(&""));
    }
    Ok(table)
}
