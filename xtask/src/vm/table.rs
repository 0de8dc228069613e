//! One table of every test on every kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Boot;
use crate::test::report::Outcome;

/// Prints a row a test and a column a kernel, then why tests were skipped and what went wrong.
pub(crate) fn print(boots: &[(&str, Boot)]) {
    let mut rows: BTreeMap<&str, BTreeMap<&str, &Outcome>> = BTreeMap::new();
    for (version, boot) in boots {
        for (name, outcome) in boot.report.outcomes() {
            rows.entry(name).or_default().insert(version, outcome);
        }
    }
    let width = rows.keys().map(|name| name.len()).max().unwrap_or(0).max(4);
    let line = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:<8}")).collect();
        println!("{name:<width$}{}", cells.trim_end_matches(' '));
    };
    println!();
    line(
        "test",
        boots.iter().map(|(version, _)| (*version).to_owned()).collect(),
    );
    for (name, outcomes) in &rows {
        let cell = |(version, _): &(&str, Boot)| match outcomes.get(version) {
            Some(Outcome::Passed) => "ok",
            Some(Outcome::Failed) => "FAILED",
            Some(Outcome::Ignored(_)) => "skipped",
            // Never reached: the machine ended before.
            None => "-",
        };
        line(name, boots.iter().map(|boot| cell(boot).to_owned()).collect());
    }
    line(
        "seconds to the first test",
        boots.iter().map(|(_, boot)| seconds(boot.until_tests)).collect(),
    );
    line(
        "seconds in all",
        boots.iter().map(|(_, boot)| seconds(boot.took)).collect(),
    );
    println!();
    for (name, outcomes) in &rows {
        let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (version, outcome) in outcomes {
            if let Outcome::Ignored(reason) = outcome {
                reasons.entry(reason).or_default().insert(version);
            }
        }
        for (reason, versions) in reasons {
            let versions: Vec<&str> = boots
                .iter()
                .map(|(version, _)| *version)
                .filter(|version| versions.contains(version))
                .collect();
            println!("skipped: {name} on {}: {reason}", versions.join(", "));
        }
    }
    for (version, boot) in boots {
        if let Some(trouble) = &boot.trouble {
            println!("failed: kernel {version}: {trouble}");
        }
    }
}

fn seconds(time: std::time::Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
