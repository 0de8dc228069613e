//! `cargo xtask test`: unit and property tests, then the system tests against the release binary, with one total.

pub(crate) mod report;
mod root;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::cargo::{build_spike, cargo, installed, kernel_toolchain, show, target_dir};
use report::Report;
use root::Root;

/// What the system tests run beside Spike.
pub(crate) const PROGRAMS: [&str; 16] = [
    "nginx",
    "redis-server",
    "h2load",
    "dnsmasq",
    "curl",
    "iperf3",
    "tshark",
    "tcpdump",
    "capinfos",
    "editcap",
    "mergecap",
    "tcpdump",
    "openssl",
    "bpftool",
    "wrk",
    "ip",
];

/// What some tests run beside these, too large for the disks of `cargo xtask vm`: there such tests are skipped.
const LARGE_PROGRAMS: [&str; 6] = ["nft", "podman", "prometheus", "promtool", "setpriv", "tcpdump"];

/// What the tests of the map run besides; in the virtual machines, which have none of these, they are skipped.
const MAP_PROGRAMS: [&str; 6] = ["dot", "rsvg-convert", "tmux", "perl", "node", "python3"];

/// Run all tests: unit and property tests, then the system tests.
///
/// The system tests need root and real servers. As root they must run, and so they must where `sudo` asks for no
/// password: then the test programs alone run as root. Else they are reported as ignored. They use the release binary that
/// this verb builds first. Nothing is installed: `scripts/setup.sh --test` does that.
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

    /// Build all that the tests need, and run none.
    #[arg(long)]
    no_run: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    kernel_toolchain()?;
    let root = Root::find();
    if root == Root::BySudo && !options.no_run {
        println!("not root: sudo runs the tests");
    }
    let mut report = Report::default();
    let filter = options.filter.as_deref();
    if !options.system {
        let but_system = ["--exclude", "spike-ebpf", "--exclude", "spike-tests"];
        suite(
            cargo_test(options, root)
                .args(["--no-fail-fast", "--workspace"])
                .args(but_system)
                .arg("--")
                // Tests that need root are ignored without it.
                .args((root != Root::No).then_some("--include-ignored"))
                .args(filter),
            &mut report,
        )?;
        let harness = ["--package", "spike-tests", "--lib", "--"];
        suite(cargo_test(options, root).args(harness).args(filter), &mut report)?;
    }
    if !options.unit {
        system(options, root, &mut report)?;
    }
    if options.no_run {
        return report.built();
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

fn system(options: &Options, root: Root, report: &mut Report) -> Result<()> {
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .chain(LARGE_PROGRAMS)
        .chain(MAP_PROGRAMS)
        .filter(|program| !installed(program))
        .collect();
    if !missing.is_empty() {
        println!(
            "missing for the system tests: {}; run scripts/setup.sh --test",
            missing.join(", ")
        );
    }
    build_spike()?;
    let mut command = cargo_test(options, root);
    command
        .args(["--package", "spike-tests", "--test", "system", "--"])
        .arg(format!("--test-threads={}", options.jobs))
        .args(options.filter.as_deref());
    command.env("SPIKE_BIN", target_dir().join("release/spike"));
    if root != Root::No {
        // A system test that cannot run as root is broken, not ignored.
        command.env("SPIKE_REQUIRE_ROOT", "1");
    }
    suite(&mut command, report)
}

/// `cargo test` whose test programs get as much root as can be had.
fn cargo_test(options: &Options, root: Root) -> Command {
    let mut command = cargo();
    command
        .args(root.cargo_options())
        .args(["test", "--locked"])
        .args(options.no_run.then_some("--no-run"));
    command
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
