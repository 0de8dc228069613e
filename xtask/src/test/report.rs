//! Adds up what several test runners said, and keeps why tests were ignored.

use anyhow::{Result, bail};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// With the reason.
    Ignored(String),
}

/// The totals of all runners.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u64,
    failed: u64,
    skipped: u64,
    /// Name and end of each test, in the order of their ends.
    outcomes: Vec<(String, Outcome)>,
    /// A test that runs, and has printed something.
    running: Option<String>,
    /// Commands that failed; one may have failed before it ran a test.
    failures: Vec<String>,
    /// Tests that failed among the others, and passed when they were run again alone.
    unsteady: Vec<String>,
}

impl Report {
    /// Takes in one line of a runner's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.skipped += count(result, "ignored");
            return;
        }
        let started = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ..."));
        // What a test prints comes between its name and its end.
        let (name, end) = match (started, self.running.take()) {
            (Some((name, end)), _) => (name.trim().to_owned(), end),
            (None, Some(name)) => (name, line),
            (None, None) => return,
        };
        match outcome(end.trim()) {
            Some(outcome) => self.outcomes.push((name, outcome)),
            None => self.running = Some(name),
        }
    }

    /// Name and end of each test, in the order of their ends.
    pub(crate) fn outcomes(&self) -> &[(String, Outcome)] {
        &self.outcomes
    }

    /// Names of the tests that failed.
    pub(crate) fn failed_tests(&self) -> Vec<String> {
        let failed = self.outcomes.iter().filter(|(_, end)| *end == Outcome::Failed);
        failed.map(|(name, _)| name.clone()).collect()
    }

    /// Notes that a test that had failed passed when it was run again. The command that ran it has then failed no more,
    /// once that is so of all of its tests.
    pub(crate) fn passed_again(&mut self, name: &str) {
        let failed = |(test, end): &&mut (String, Outcome)| test == name && *end == Outcome::Failed;
        let Some((_, end)) = self.outcomes.iter_mut().find(failed) else {
            return;
        };
        *end = Outcome::Passed;
        self.failed -= 1;
        self.passed += 1;
        self.unsteady.push(name.to_owned());
        if self.failed == 0 {
            self.failures.clear();
        }
    }

    /// Adds what another report has.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.outcomes.extend(other.outcomes);
        self.failures.extend(other.failures);
        self.unsteady.extend(other.unsteady);
    }

    /// Notes a command that failed.
    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Whether anything failed, a test or a command.
    pub(crate) fn broken(&self) -> bool {
        self.failed > 0 || !self.failures.is_empty()
    }

    /// An error if one of the commands failed that were to build, and run nothing.
    pub(crate) fn built(&self) -> Result<()> {
        match self.failures.first() {
            None => Ok(()),
            Some(failure) => bail!("{failure}"),
        }
    }

    /// Prints what a reader looks for last: what was ignored and why, what failed, how many.
    pub(crate) fn print(&self) {
        println!();
        for (name, outcome) in &self.outcomes {
            if let Outcome::Ignored(reason) = outcome {
                println!("ignored: {name}: {reason}");
            }
        }
        for (name, outcome) in &self.outcomes {
            if *outcome == Outcome::Failed {
                println!("failed: {name}");
            }
        }
        for name in &self.unsteady {
            println!("unsteady: {name}: failed at first, passed when run again alone");
        }
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        let ran = self.passed + self.failed;
        println!("{ran} tests ran; {} ignored", self.skipped);
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
    }
}

/// How a test ended by what its runner says; none while it has not.
fn outcome(end: &str) -> Option<Outcome> {
    if let Some(reason) = end.strip_prefix("ignored") {
        return Some(Outcome::Ignored(reason_of(reason)));
    }
    match end.split([' ', ',']).next() {
        Some("FAILED") => Some(Outcome::Failed),
        Some("ok") => Some(Outcome::Passed),
        _ => None,
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; 1 ignored; ...`.
fn count(result: &str, word: &str) -> u64 {
    let words: Vec<&str> = result
        .split([' ', ';', '.'])
        .filter(|part| !part.is_empty())
        .collect();
    let found = words.windows(2).find(|pair| pair[1] == word);
    found.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// `, reason` of the standard runner and ` (reason)` of libtest-mimic.
fn reason_of(rest: &str) -> String {
    let reason = rest.trim_start_matches(',').trim();
    let reason = reason
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
        .unwrap_or(reason);
    if reason.is_empty() {
        "no reason given".to_owned()
    } else {
        reason.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Report};

    #[test]
    fn adds_up_both_runners() {
        let mut report = Report::default();
        for line in [
            "test model::selector::tests::matches ... ok",
            "test slow ... ignored, takes an hour",
            "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test sees_a_call ... ignored (not root)",
            "test breaks_a_call ... ",
            "thread 'main' panicked at system/latency.rs:1:2:",
            "it took 5 s",
            "FAILED",
            "test result: FAILED. 4 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.10s",
        ] {
            report.read(line);
        }
        assert_eq!((report.passed, report.failed, report.skipped), (5, 1, 2));
        let ends: Vec<&Outcome> = report.outcomes.iter().map(|(_, outcome)| outcome).collect();
        let ignored = |reason: &str| Outcome::Ignored(reason.to_owned());
        assert_eq!(
            ends,
            [
                &Outcome::Passed,
                &ignored("takes an hour"),
                &ignored("not root"),
                &Outcome::Failed
            ]
        );
        assert!(report.broken());
        report.fail("the command".to_owned());
        assert_eq!(report.failed_tests(), ["breaks_a_call"]);
        report.passed_again("slow");
        assert!(report.broken());
        report.passed_again("breaks_a_call");
        assert!(!report.broken());
        assert_eq!((report.passed, report.failed), (6, 0));
        let mut all = Report::default();
        all.absorb(report);
        assert_eq!((all.passed, all.unsteady.len()), (6, 1));
    }
}
