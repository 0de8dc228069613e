//! What a test cannot do without: it is skipped, with the reason printed, where that is missing.

use std::{panic::resume_unwind, process::Command, time::Duration};

/// Thrown by what is missing; the runner reports the test as ignored.
#[derive(Debug)]
pub struct Skip(pub String);

/// Ends the test as skipped.
pub fn skip(reason: impl Into<String>) -> ! {
    // Unlike a panic this prints nothing.
    resume_unwind(Box::new(Skip(reason.into())))
}

/// For tests that hold times against a clock: an emulated processor is slow by turns.
pub fn real_time() {
    if is_emulated() {
        skip("measures times, and this processor is emulated");
    }
}

/// How long to wait for what takes `limit` at most on a real processor.
pub fn patience(limit: Duration) -> Duration {
    if is_emulated() { limit * 6 } else { limit }
}

/// For tests that need a program which is not part of every machine.
pub fn program(name: &str) {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", name])
        .output();
    if !found.is_ok_and(|found| found.status.success()) {
        skip(format!("no {name} here"));
    }
}

/// For tests of what newer kernels alone can do.
pub fn kernel(major: u32, minor: u32, what: &str) {
    if kernel_version() < (major, minor) {
        skip(format!("{what} needs Linux {major}.{minor}"));
    }
}

/// Version of the running kernel.
pub fn kernel_version() -> (u32, u32) {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the processor is one that QEMU makes up, instruction by instruction.
pub fn is_emulated() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
        let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat();
        name == b"TCGTCGTCGTCG"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}
