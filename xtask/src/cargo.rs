//! Cargo and the workspace as every verb sees them.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::kernel_build::{self, Toolchain};

/// The workspace's root, wherever the verb is called from.
pub(crate) fn workspace() -> PathBuf {
    // Cargo's word of now before that of the build: two copies of the tree may share a target directory.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = Path::new(&manifest);
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts what it builds; `build.target-dir` of a configuration file is not followed.
pub(crate) fn target_dir() -> PathBuf {
    let dir = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(dir)
}

/// The cargo that runs this very verb, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // What Cargo tells this program about its own package: ring's build script, for one, looks at it, and with another
    // value all that builds on ring would be built again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Builds the release `spike` that the system tests, the demo and the benchmarks run.
pub(crate) fn build_spike() -> Result<()> {
    check(cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "spike-agent",
        "--bin",
        "spike",
    ]))
}

/// Runs a command to its end with its output shown; an exit code other than zero is an error.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let shown = show(command);
    println!("$ {shown}");
    let status = command.status().with_context(|| format!("run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// The command as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The compiler for the kernel programs, or one error that lists every missing piece.
pub(crate) fn kernel_toolchain() -> Result<Toolchain> {
    let active = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    kernel_build::find(&workspace(), &active).map_err(|missing| anyhow::anyhow!(missing.join("\n       ")))
}

/// Whether a program can be found in PATH or where servers are installed.
pub(crate) fn installed(program: &str) -> bool {
    find_program(program).is_some()
}

/// Where a program is, in PATH or where servers are installed.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    dirs.into_iter()
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
