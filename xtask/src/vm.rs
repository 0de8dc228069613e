//! `cargo xtask vm`: the system tests on other kernels, each booted in seconds under QEMU.

mod differences;
mod image;
mod kernels;
mod machine;
mod table;

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cargo::{build_spike, cargo, show, target_dir},
    test::PROGRAMS,
};
use kernels::Kernel;
use machine::{Boot, Machine};

/// Run the system tests on other kernels.
///
/// Debian's kernels are fetched through apt and booted under QEMU with the system tests as the only process and real
/// servers beside them. QEMU emulates the processor, so this needs no /dev/kvm, and tests that measure times are
/// skipped. A panic, stall or lock-up of a kernel is a failure, and so is a kernel that does not come to an end.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Kernel series to boot; `all` is each of 5.10, 6.1, 6.12 and 7.3. May be given several times.
    #[arg(long, value_name = "VERSION", default_value = "all")]
    kernel: Vec<String>,

    /// Run only tests whose name contains this.
    #[arg(long, value_name = "TEST")]
    filter: Option<String>,

    /// How many kernels run at once; each has two emulated processors.
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,

    /// Minutes that one kernel may take.
    #[arg(long, value_name = "MINUTES", default_value_t = 25)]
    limit: u64,

    /// Write the README's table of what differs from kernel to kernel; without this it is only compared, and both only
    /// when every kernel is booted.
    #[arg(long)]
    write: bool,

    /// Show what the tests say while they run; it is in target/vm/logs in any case.
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let series = kernels::chosen(&options.kernel)?;
    let dir = target_dir().join("vm");
    let kernels = kernels::fetch(&series, &dir)?;
    build_spike()?;
    let init = build_init()?;
    let spike = target_dir().join("release/spike");
    let image = image::build(&dir, &init, &spike, &PROGRAMS, &kernels)?;
    let mut arguments = vec!["--test-threads=1".to_owned(), "--color=never".to_owned()];
    arguments.extend(options.filter.clone());
    let machine = Machine {
        image: &image,
        arguments: &arguments,
        limit: Duration::from_secs(options.limit * 60),
        logs: dir.join("logs"),
        verbose: options.verbose,
    };
    let boots = boot_all(&machine, &kernels, options.jobs)?;
    table::print(&boots);
    let bad = boots.iter().filter(|(_, boot)| boot.trouble.is_some()).count();
    if bad > 0 {
        bail!(
            "{bad} of {} kernels failed; their words are in {}",
            boots.len(),
            machine.logs.display()
        );
    }
    if boots.iter().any(|(_, boot)| boot.report.passed == 0) {
        bail!("no test ran on some kernel");
    }
    if boots.len() == kernels::ALL.len() {
        differences::check(&boots, options.write)?;
    }
    Ok(())
}

/// Boots the kernels, some at a time; what came of them is in their order.
fn boot_all<'k>(machine: &Machine<'_>, kernels: &'k [Kernel], jobs: usize) -> Result<Vec<(&'k str, Boot)>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<Boot>>>> = Mutex::new(kernels.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, kernels.len()) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(kernel) = kernels.get(index)
                {
                    println!("booting {}", kernel.release);
                    let boot = machine.boot(kernel);
                    println!("{} ended", kernel.release);
                    done.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(boot);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let boots = kernels.iter().zip(done);
    boots
        .map(|(kernel, boot)| {
            let boot = boot.context("a kernel was not booted")?;
            Ok((kernel.series.version, boot?))
        })
        .collect()
}

/// The system tests as a program that needs no library: it is all that a kernel starts.
fn build_init() -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = cargo();
    command
        .args([
            "test",
            "--no-run",
            "--locked",
            "--package",
            "spike-tests",
            "--test",
            "system",
            "--target",
        ])
        .arg(&target)
        .args(["--message-format", "json-render-diagnostics"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let shown = show(&command);
    println!("$ {shown}");
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found = text.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_system = message["target"]["name"] == "system";
        let path = message["executable"].as_str().filter(|_| is_system)?;
        Some(PathBuf::from(path))
    });
    found
        .next_back()
        .with_context(|| format!("{shown} named no program"))
}
