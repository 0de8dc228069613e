//! The disk that every kernel boots from: the tests as `/init`, Spike, real programs with their libraries, modules.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::kernels::{Kernel, run};
use crate::cargo::find_program;

/// What the tests run, beside the programs that `cargo xtask test` names.
const SMALL_PROGRAMS: [&str; 13] = [
    "cat",
    "getent",
    "mount",
    "redis-benchmark",
    "redis-cli",
    "setpriv",
    "sh",
    "sleep",
    "tc",
    "timeout",
    "true",
    "umount",
    "unshare",
];

/// Files that programs read besides their libraries.
const DATA: [&str; 8] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/protocols",
    "/etc/services",
    "/usr/lib/ssl/openssl.cnf",
    "/usr/share/wireshark",
    "/usr/lib/x86_64-linux-gnu/wireshark",
    "/usr/lib/locale/C.utf8",
];

/// Modules that Spike or its tests use where the kernel has not built them in; what a kernel does not have is left out.
const MODULES: [&str; 11] = [
    "veth",
    "dummy",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "sch_fq",
    "sch_netem",
    "tcp_diag",
    "udp_diag",
    "inet_diag",
];

/// Where the list of a kernel's modules is, on the disk.
const LISTS: &str = "modules";

/// Makes the disk's file from a folder; both are made anew.
pub(crate) fn build(
    dir: &Path,
    init: &Path,
    spike: &Path,
    programs: &[&str],
    kernels: &[Kernel],
) -> Result<PathBuf> {
    let root = dir.join("root");
    let _ = fs::remove_dir_all(&root);
    for folder in [
        "dev", "proc", "sys", "tmp", "run", "var", "root", "etc", "usr/bin", "usr/lib",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib"),
    ] {
        symlink(target, root.join(link))?;
    }
    symlink("bin", root.join("usr/sbin"))?;
    // Tests put their own over it.
    fs::write(root.join("etc/resolv.conf"), "")?;
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    copy(init, &root.join("init"))?;
    strip(init, &root.join("init"));
    copy(spike, &root.join("usr/bin/spike"))?;
    strip(spike, &root.join("usr/bin/spike"));
    let mut libraries = libraries(spike)?;
    for &program in programs.iter().chain(&SMALL_PROGRAMS) {
        // A test that wants a program says so, and is skipped without it.
        let Some(path) = find_program(program) else {
            continue;
        };
        place_program(&root, program, &path)?;
        libraries.extend(self::libraries(&path)?);
    }
    for library in &libraries {
        place(&root, library)?;
    }
    for data in DATA {
        place(&root, Path::new(data))?;
    }
    for kernel in kernels {
        modules(&root, kernel)?;
    }
    let image = dir.join("disk.img");
    let _ = fs::remove_file(&image);
    let mke2fs = find_program("mke2fs").context("no mke2fs: install e2fsprogs")?;
    run(Command::new(mke2fs)
        .args([
            "-q",
            "-t",
            "ext4",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-E",
            "root_owner=0:0",
            "-d",
        ])
        .arg(&root)
        .arg(&image)
        .arg("1G"))?;
    fs::remove_dir_all(&root)?;
    Ok(image)
}

/// A program that is a link to another file, as Debian's redis-server, is so on the disk, too.
fn place_program(root: &Path, name: &str, path: &Path) -> Result<()> {
    let bin = root.join("usr/bin");
    let real = path.canonicalize()?;
    let real_name = real.file_name().context("a program without a name")?;
    copy(&real, &bin.join(real_name))?;
    if real_name != name {
        symlink(real_name, bin.join(name))?;
    }
    Ok(())
}

/// Puts a file or folder of the host at the same path on the disk.
fn place(root: &Path, path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let relative = path.strip_prefix("/").unwrap_or(path);
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            place(root, &entry?.path())?;
        }
        return Ok(());
    }
    copy(path, &root.join(relative))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if !to.exists() {
        fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// A smaller file boots no faster, but the disk is made faster; without `strip` it stays as it is.
fn strip(from: &Path, to: &Path) {
    let _ = Command::new("strip")
        .arg("--strip-debug")
        .arg("-o")
        .arg(to)
        .arg(from)
        .output();
}

/// The libraries of a program, and its loader.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// Copies a kernel's modules, unpacked, and lists them in the order of loading.
fn modules(root: &Path, kernel: &Kernel) -> Result<()> {
    let dep = fs::read_to_string(kernel.modules.join("modules.dep"))?;
    let mut order: Vec<&str> = Vec::new();
    for module in MODULES {
        let name_of = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file.split('.').next().unwrap_or(file).replace('-', "_")
        };
        let Some((own, needed)) = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| name_of(path) == module)
        else {
            continue;
        };
        // modules.dep names what a module needs with the deepest last.
        for path in needed.split_whitespace().rev().chain([own]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    let folder = Path::new(LISTS).join(&kernel.release);
    fs::create_dir_all(root.join(&folder))?;
    let mut list = String::new();
    for path in order {
        let file = Path::new(path)
            .file_name()
            .context("a module without a name")?
            .to_string_lossy()
            .into_owned();
        let plain = file.trim_end_matches(".xz").trim_end_matches(".zst").to_owned();
        let to = root.join(&folder).join(&plain);
        let from = kernel.modules.join(path);
        match file.rsplit('.').next() {
            Some("xz") => unpack("xz", &from, &to)?,
            Some("zst") => unpack("zstd", &from, &to)?,
            _ => copy(&from, &to)?,
        }
        list += &format!("/{}/{plain}\n", folder.display());
    }
    fs::write(root.join(&folder).join("list"), list)?;
    Ok(())
}

fn unpack(program: &str, from: &Path, to: &Path) -> Result<()> {
    let output = Command::new(program).arg("-dc").arg(from).output();
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} -dc {}: {}", from.display(), output.status);
    }
    fs::write(to, output.stdout)?;
    Ok(())
}
