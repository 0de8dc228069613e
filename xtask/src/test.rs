//! `cargo xtask test`: unit and property tests, then the system tests against the release binary, with one total.

pub(crate) mod report;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::cargo::{build_spike, cargo, installed, kernel_toolchain, show, target_dir};
use report::Report;

/// What the system tests run beside Spike.
pub(crate) const PROGRAMS: [&str; 9] = [
    "nginx",
    "redis-server",
    "curl",
    "iperf3",
    "tshark",
    "capinfos",
    "bpftool",
    "wrk",
    "ip",
];

/// Run all tests: unit and property tests, then the system tests.
///
/// The system tests need root and real servers; without root they are reported as ignored, as root they must run.
/// They use the release binary that this verb builds first. Nothing is installed: `scripts/setup.sh --test` does that.
/// The last lines give every ignored test with its reason, and the totals.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Run only the system tests.
    #[arg(long, conflicts_with = "unit")]
    system: bool,

    /// Run only the unit and property tests; builds no release binary.
    #[arg(long)]
    unit: bool,

    /// How many system tests run at once; they measure times, so more is not always better.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    kernel_toolchain()?;
    let mut report = Report::default();
    let filter = options.filter.as_deref();
    if !options.system {
        let everything = [
            "test",
            "--locked",
            "--no-fail-fast",
            "--workspace",
            "--exclude",
            "spike-ebpf",
        ];
        let but_system = ["--exclude", "spike-tests"];
        suite(
            cargo()
                .args(everything)
                .args(but_system)
                .arg("--")
                // Tests that need root are ignored without it.
                .args(is_root().then_some("--include-ignored"))
                .args(filter),
            &mut report,
        )?;
        let harness = ["test", "--locked", "--package", "spike-tests", "--lib", "--"];
        suite(cargo().args(harness).args(filter), &mut report)?;
    }
    if !options.unit {
        system(options, &mut report)?;
    }
    report.print();
    if report.broken() {
        bail!("tests failed");
    }
    if report.passed == 0 {
        bail!(
            "no test ran{}",
            filter
                .map(|text| format!(" with {text:?} in its name"))
                .unwrap_or_default()
        );
    }
    Ok(())
}

fn system(options: &Options, report: &mut Report) -> Result<()> {
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|program| !installed(program))
        .collect();
    if !missing.is_empty() {
        println!(
            "missing for the system tests: {}; run scripts/setup.sh --test",
            missing.join(", ")
        );
    }
    build_spike()?;
    let mut command = cargo();
    command.args([
        "test",
        "--locked",
        "--package",
        "spike-tests",
        "--test",
        "system",
        "--",
    ]);
    command
        .arg(format!("--test-threads={}", options.jobs))
        .args(options.filter.as_deref());
    command.env("SPIKE_BIN", target_dir().join("release/spike"));
    if is_root() {
        // A system test that cannot run as root is broken, not ignored.
        command.env("SPIKE_REQUIRE_ROOT", "1");
    }
    suite(&mut command, report)
}

/// Runs one `cargo test`, showing its output as it comes and counting from it.
fn suite(command: &mut Command, report: &mut Report) -> Result<()> {
    let shown = show(command);
    println!("$ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {shown}"))?;
    let stdout = child.stdout.take().context("cargo's output is not a pipe")?;
    let mut out = std::io::stdout().lock();
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    // Bytes, not lines of text: a failing test may print anything.
    while reader.by_ref().read_until(b'\n', &mut line)? > 0 {
        out.write_all(&line)?;
        out.flush()?;
        report.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait().with_context(|| format!("wait for {shown}"))?;
    if !status.success() {
        report.fail(format!("{shown}: {status}"));
    }
    Ok(())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
