//! Programs of the tests' own in `tests/programs`, and the packages that `scripts/setup.sh --test` keeps for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::needs;

/// A script of `tests/programs`.
pub fn script(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name);
    assert!(path.is_file(), "no {}", path.display());
    path
}

/// Where packages of other languages are kept, away from the machine's own.
pub fn packages(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/test-tools")
        .join(language)
}

/// Python that finds the packages of the tests.
pub fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages("python"));
    command
}

/// For tests that need a Python package.
pub fn python_module(name: &str) {
    let import = python()
        .args(["-c", &format!("import {name}")])
        .stderr(Stdio::null())
        .status();
    if !import.is_ok_and(|status| status.success()) {
        needs::skip(format!("no Python package {name}: run scripts/setup.sh --test"));
    }
}

/// Node.js that finds the packages of the tests; for tests that need one of them.
pub fn node(package: &str) -> Command {
    needs::program("node");
    let modules = packages("node").join("node_modules");
    if !modules.join(package).is_dir() {
        needs::skip(format!("no npm package {package}: run scripts/setup.sh --test"));
    }
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules);
    command
}

/// Directory of PostgreSQL's server programs, which Debian keeps off the `PATH`; for tests that need them.
pub fn postgres() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin"))
        .filter(|dir| dir.join("postgres").is_file())
        .collect();
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| needs::skip("no PostgreSQL here: run scripts/setup.sh --test"))
}
