//! Finds a compiler and a linker for the kernel programs and calls them; the agent's build script and xtask share it.
//!
//! Needed: a Rust compiler with `core`'s source beside it (the `bpfel-unknown-none` target ships no `core`), and
//! bpf-linker, which loads an LLVM at run time. Both may come from rustup or from the distribution. Standard
//! library only, because a build script compiles this on every machine.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The target of the kernel programs; the agent refuses big-endian machines.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The one remedy that every missing piece names.
const REMEDY: &str = "run scripts/setup.sh";

/// Inherited variables that are safe for a nested cargo; every other CARGO*, RUST* one speaks of the outer build.
const KEPT: [&str; 9] = [
    "CARGO_HOME",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "CARGO_MAKEFLAGS",
    "RUSTUP_HOME",
    "RUST_BACKTRACE",
];

/// A compiler, with the linker and the LLVM that go with it.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Called directly and not by rustup's proxy, which would follow the outer build's toolchain.
    pub(crate) rustc: PathBuf,
    cargo: PathBuf,
    pub(crate) bpf_linker: PathBuf,
    /// What bpf-linker must load: an LLVM of another major could not read the compiler's bitcode.
    llvm: PathBuf,
    /// For messages: where it is and which version.
    pub(crate) description: String,
}

/// A compiler that was found, before it is judged.
struct Candidate {
    sysroot: PathBuf,
    release: String,
    llvm_major: u32,
}

/// Finds all that the kernel programs need, or says in one line a piece what is missing.
///
/// `active` is the compiler of the outer build (`$RUSTC`, else `rustc`); it is preferred, then rustup's other
/// toolchains, then the distribution's.
pub(crate) fn find(workspace: &Path, active: &OsStr) -> Result<Toolchain, Vec<String>> {
    let mut missing = Vec::new();
    let compiler = find_compiler(active).map_err(|line| missing.push(line)).ok();
    let bpf_linker = find_bpf_linker(workspace).map_err(|line| missing.push(line)).ok();
    let llvm = compiler
        .as_ref()
        .and_then(|found| find_llvm(found).map_err(|line| missing.push(line)).ok());
    let (Some(compiler), Some(bpf_linker), Some(llvm)) = (compiler, bpf_linker, llvm) else {
        return Err(missing);
    };
    Ok(Toolchain {
        rustc: compiler.tool("rustc").unwrap_or_else(|| "rustc".into()),
        cargo: compiler.tool("cargo").unwrap_or_else(|| "cargo".into()),
        bpf_linker,
        llvm,
        description: format!("Rust {} in {}", compiler.release, compiler.sysroot.display()),
    })
}

impl Toolchain {
    /// A cargo command for the kernel crate, freed of what the outer build left in the environment.
    ///
    /// `arch` is the machine whose register layout the programs read, as in `CARGO_CFG_TARGET_ARCH`.
    pub(crate) fn cargo(
        &self,
        verb: &str,
        workspace: &Path,
        target_dir: &Path,
        arch: &str,
    ) -> Result<Command, String> {
        let mut command = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let rusty = text.starts_with("CARGO") || text.starts_with("RUST");
            if rusty && !KEPT.iter().any(|kept| text.starts_with(kept)) {
                command.env_remove(&name);
            }
        }
        let arch = if arch.starts_with("riscv64") {
            "riscv64"
        } else {
            arch
        };
        command
            .current_dir(workspace)
            .args([
                verb,
                "--package",
                "spike-ebpf",
                "--bin",
                "spike-ebpf",
                "--release",
                "--locked",
            ])
            .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
            .arg(target_dir)
            .env("RUSTC", &self.rustc)
            // Lets a stable compiler take `-Z build-std` and the target's few unstable features.
            .env("RUSTC_BOOTSTRAP", "1")
            // A wrapper from the user's configuration would be made for another compiler.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.bpf_linker)
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                format!("--cfg=bpf_target_arch=\"{arch}\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf"),
            )
            .env("LD_LIBRARY_PATH", self.llvm_dir(target_dir)?);
        Ok(command)
    }

    /// A directory with the one LLVM that bpf-linker shall load: it takes the first `libLLVM*` of
    /// `LD_LIBRARY_PATH`, and a distribution's library directory may hold several majors.
    fn llvm_dir(&self, target_dir: &Path) -> Result<PathBuf, String> {
        let dir = target_dir.join("llvm");
        let link = dir.join("libLLVM-of-bpf-linker.so");
        if fs::read_link(&link).ok().as_deref() != Some(&*self.llvm) {
            fs::create_dir_all(&dir)
                .and_then(|()| {
                    let _ = fs::remove_file(&link);
                    std::os::unix::fs::symlink(&self.llvm, &link)
                })
                .map_err(|error| format!("link {} to {}: {error}", link.display(), self.llvm.display()))?;
        }
        Ok(dir)
    }
}

impl Candidate {
    fn probe(rustc: &OsStr) -> Option<Self> {
        let sysroot = stdout_of(rustc, &["--print", "sysroot"])?;
        let version = stdout_of(rustc, &["-vV"])?;
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            sysroot: PathBuf::from(sysroot.trim()),
            release: field("release: ")?.to_owned(),
            llvm_major: field("LLVM version: ")?.split('.').next()?.parse().ok()?,
        })
    }

    /// Why this compiler cannot build the kernel programs, if it cannot.
    fn unfit(&self) -> Option<String> {
        let least = env!("CARGO_PKG_RUST_VERSION");
        let at = self.sysroot.display();
        if major_minor(&self.release) < major_minor(least) {
            return Some(format!("{at}: {} is older than {least}", self.release));
        }
        let source = self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !source.exists() {
            return Some(format!("{at}: no rust-src"));
        }
        ["rustc", "cargo"]
            .into_iter()
            .find(|tool| self.tool(tool).is_none())
            .map(|tool| format!("{at}: no {tool}"))
    }

    fn tool(&self, name: &str) -> Option<PathBuf> {
        let beside = self.sysroot.join("bin").join(name);
        // Some distributions keep versioned sysroots under /usr/lib and the programs in /usr/bin.
        let system = Path::new("/usr/bin").join(name);
        [beside, system].into_iter().find(|path| path.is_file())
    }
}

fn find_compiler(active: &OsStr) -> Result<Candidate, String> {
    let mut rustcs = vec![active.to_owned()];
    rustcs.extend(rustup_compilers());
    rustcs.push("/usr/bin/rustc".into());
    let mut reasons = Vec::new();
    for rustc in rustcs {
        let Some(candidate) = Candidate::probe(&rustc) else {
            continue;
        };
        match candidate.unfit() {
            None => return Ok(candidate),
            Some(reason) if !reasons.contains(&reason) => reasons.push(reason),
            Some(_) => {}
        }
    }
    let seen = if reasons.is_empty() {
        "found none".to_owned()
    } else {
        reasons.join("; ")
    };
    Err(format!(
        "kernel programs need a Rust compiler with core's source ({seen}): {REMEDY}"
    ))
}

/// The compilers of rustup's toolchains, stable ones first.
fn rustup_compilers() -> Vec<OsString> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(home_dir()?.join(".rustup")));
    let Some(entries) = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort_by_key(|path| (!path.to_string_lossy().contains("/stable"), path.clone()));
    found
        .into_iter()
        .map(|path| path.join("bin/rustc").into())
        .collect()
}

fn find_bpf_linker(workspace: &Path) -> Result<PathBuf, String> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(home_dir()?.join(".cargo")));
    let mut dirs: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    dirs.extend(cargo_home.map(|home| home.join("bin")));
    dirs.push(workspace.join("target/tools/bin"));
    dirs.iter()
        .map(|dir| dir.join("bpf-linker"))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("bpf-linker is neither in PATH nor in cargo's bin directory: {REMEDY}"))
}

/// The LLVM of the compiler's own major: in its sysroot with rustup, in the library directory with a distribution.
fn find_llvm(compiler: &Candidate) -> Result<PathBuf, String> {
    let major = compiler.llvm_major;
    let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    let own = format!("/usr/lib/llvm-{major}/lib");
    let dirs = [
        &*compiler.sysroot.join("lib"),
        Path::new(&multiarch),
        Path::new(&own),
        Path::new("/usr/lib64"),
    ];
    let wanted = [format!("libLLVM.so.{major}."), format!("libLLVM-{major}.so")];
    for dir in dirs {
        let names = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        let mut names: Vec<OsString> = names
            .filter(|name| {
                wanted
                    .iter()
                    .any(|start| name.to_string_lossy().starts_with(start))
            })
            .collect();
        names.sort();
        if let Some(name) = names.first() {
            return Ok(dir.join(name));
        }
    }
    Err(format!(
        "bpf-linker needs libLLVM {major}, which neither {} nor the system's library directories hold: {REMEDY}",
        compiler.sysroot.join("lib").display()
    ))
}

fn stdout_of(program: &OsStr, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn major_minor(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn home_dir() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}
