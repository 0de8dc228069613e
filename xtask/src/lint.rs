//! `cargo xtask lint`: format, clippy on both sides of the kernel, licences and advisories of dependencies.

use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::{cargo, check, installed, kernel_toolchain, target_dir, workspace};

/// Check format, lints, and the dependencies' licences, sources and advisories.
///
/// Runs everything even if something fails, and ends with one line for each check. `scripts/setup.sh --lint` installs
/// what this verb uses beyond the build.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fail when a check cannot run, as CI wants.
    #[arg(long, env = "SPIKE_LINT_STRICT")]
    strict: bool,
}

/// A check's name for the summary, and what runs it.
type Check = (&'static str, fn() -> Outcome);

enum Outcome {
    Passed,
    Failed(String),
    /// With the reason and the remedy.
    Skipped(String),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let checks: [Check; 5] = [
        ("format", format),
        ("clippy", clippy),
        ("clippy of the kernel programs", kernel_clippy),
        ("licences, sources, bans", deny),
        ("advisories", advisories),
    ];
    let outcomes: Vec<_> = checks.into_iter().map(|(name, lint)| (name, lint())).collect();
    println!();
    let mut bad = 0;
    for (name, outcome) in &outcomes {
        match outcome {
            Outcome::Passed => println!("passed: {name}"),
            Outcome::Failed(what) => println!("failed: {name}: {what}"),
            Outcome::Skipped(why) => println!("skipped: {name}: {why}"),
        }
        let counts = match outcome {
            Outcome::Passed => false,
            Outcome::Failed(_) => true,
            // No remedy helps a machine that cannot reach the advisory database.
            Outcome::Skipped(_) => options.strict && *name != "advisories",
        };
        bad += u32::from(counts);
    }
    if bad > 0 {
        bail!("{bad} of {} checks did not pass", outcomes.len());
    }
    Ok(())
}

fn format() -> Outcome {
    tool(
        "cargo-fmt",
        "rustup component add rustfmt",
        cargo().args(["fmt", "--all", "--check"]),
    )
}

fn clippy() -> Outcome {
    let mut command = cargo();
    command.args([
        "clippy",
        "--locked",
        "--workspace",
        "--exclude",
        "spike-ebpf",
        "--all-targets",
    ]);
    tool(
        "cargo-clippy",
        "rustup component add clippy",
        command.args(["--", "-D", "warnings"]),
    )
}

/// With the kernel programs' own compiler and target, because they do not compile for the host.
fn kernel_clippy() -> Outcome {
    let toolchain = match kernel_toolchain() {
        Ok(toolchain) => toolchain,
        Err(error) => return Outcome::Failed(format!("{error:#}")),
    };
    let driver = toolchain.rustc.with_file_name("clippy-driver");
    if !driver.is_file() {
        let why = format!(
            "{} has no clippy; run scripts/setup.sh --lint",
            toolchain.description
        );
        return Outcome::Skipped(why);
    }
    let command = toolchain.cargo(
        "check",
        &workspace(),
        &target_dir().join("kernel"),
        std::env::consts::ARCH,
    );
    match command {
        Err(error) => Outcome::Failed(error),
        // What `cargo clippy` itself does; that would look for its driver in the outer toolchain.
        Ok(mut command) => outcome(
            command
                .env("RUSTC_WORKSPACE_WRAPPER", driver)
                .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__"),
        ),
    }
}

fn deny() -> Outcome {
    let mut command = cargo();
    tool(
        "cargo-deny",
        "scripts/setup.sh --lint",
        command.args(["deny", "check", "bans", "licenses", "sources"]),
    )
}

fn advisories() -> Outcome {
    if !installed("cargo-deny") {
        return Outcome::Skipped("no cargo-deny; run scripts/setup.sh --lint".to_owned());
    }
    // Bounded, because a machine without the internet may hang and not fail.
    let mut fetch = Command::new("timeout");
    fetch
        .current_dir(workspace())
        .args(["120s", "cargo-deny", "fetch", "db"]);
    match check(&mut fetch) {
        Ok(()) => outcome(cargo().args(["deny", "check", "advisories"])),
        Err(error) => Outcome::Skipped(format!("no advisory database: {error:#}")),
    }
}

fn tool(program: &str, remedy: &str, command: &mut Command) -> Outcome {
    if installed(program) {
        outcome(command)
    } else {
        Outcome::Skipped(format!("no {program}; {remedy}"))
    }
}

fn outcome(command: &mut Command) -> Outcome {
    match check(command) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}
