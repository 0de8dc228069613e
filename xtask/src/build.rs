//! `cargo xtask build`: the release binary, with one clear line for each thing that the machine lacks.

use anyhow::Result;

use crate::cargo::{cargo, check, kernel_toolchain, target_dir};

/// Build the release binary, kernel programs included.
///
/// First looks for what the kernel programs need: a Rust compiler with core's source (rustup's rust-src component, or
/// the distribution's) and bpf-linker. What is missing is named, one line each; `scripts/setup.sh` installs it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only look for what the build needs.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let toolchain = kernel_toolchain()?;
    println!(
        "kernel programs: {}, {}",
        toolchain.description,
        toolchain.bpf_linker.display()
    );
    if options.check {
        return Ok(());
    }
    check(cargo().args(["build", "--release", "--locked"]))?;
    println!("built {}", target_dir().join("release/spike").display());
    Ok(())
}
