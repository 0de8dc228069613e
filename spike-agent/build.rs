//! Builds the kernel programs for the agent to embed, so that plain `cargo build`, `check` and `clippy` work.

#[path = "../xtask/src/kernel_build.rs"]
mod kernel_build;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use kernel_build::Toolchain;

/// What the kernel programs are made of, from the workspace's root.
const SOURCES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "spike-ebpf/Cargo.toml",
    "spike-ebpf/src",
    "spike-common/Cargo.toml",
    "spike-common/src",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Missing(lines)) => {
            for line in lines {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
        Err(Failure::Compile(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Why there are no kernel programs.
enum Failure {
    /// One line for each thing that the machine lacks.
    Missing(Vec<String>),
    /// What the compiler said.
    Compile(String),
}

fn build() -> Result<(), Failure> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?)
        .join("..")
        .canonicalize()
        .map_err(|error| Failure::Missing(vec![format!("find the workspace: {error}")]))?;
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        let line = "the kernel programs are built for little-endian machines only".to_owned();
        return Err(Failure::Missing(vec![line]));
    }
    let toolchain = kernel_build::find(&workspace, variable("RUSTC")?.as_ref()).map_err(Failure::Missing)?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    // Another compiler or linker means other kernel programs.
    println!("cargo::rerun-if-changed={}", toolchain.rustc.display());
    println!("cargo::rerun-if-changed={}", toolchain.bpf_linker.display());

    let warnings = compile(&toolchain, &workspace)?;
    for line in warnings.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning={line}");
    }
    Ok(())
}

/// Builds the object into the build script's output directory; returns the compiler's warnings.
fn compile(toolchain: &Toolchain, workspace: &Path) -> Result<String, Failure> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = own_target_dir(&out_dir);
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let mut command = toolchain
        .cargo("build", workspace, &target_dir, &arch)
        .map_err(Failure::Compile)?;
    command.args(["--quiet", "--color", "never"]);

    // Builds of several profiles share the directory: without this one could replace the object that another copies.
    let guard = target_dir.join("object.lock");
    let _held = fs::File::create(&guard)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|error| Failure::Compile(format!("lock {}: {error}", guard.display())))?;
    let output = command
        .output()
        .map_err(|error| Failure::Compile(format!("run {command:?}: {error}")))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let text = format!(
            "{stderr}\nkernel programs: {} ({})",
            output.status, toolchain.description
        );
        return Err(Failure::Compile(text));
    }
    let object = target_dir.join(kernel_build::TARGET).join("release/spike-ebpf");
    fs::copy(&object, out_dir.join("spike-ebpf"))
        .map_err(|error| Failure::Compile(format!("copy {}: {error}", object.display())))?;
    Ok(stderr)
}

/// A directory that the outer cargo does not lock, and that all profiles share: beside them in the target directory,
/// which cargo marks with CACHEDIR.TAG.
fn own_target_dir(out_dir: &Path) -> PathBuf {
    let outer = out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    outer.unwrap_or(out_dir).join("kernel")
}

fn variable(name: &str) -> Result<String, Failure> {
    env::var(name)
        .map_err(|error| Failure::Missing(vec![format!("{name}: {error}; cargo sets it for build scripts")]))
}
