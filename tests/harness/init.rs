//! The test program as the first and only process of a virtual machine: `cargo xtask vm` boots kernels with it.
//!
//! It mounts what a host has mounted, loads the kernel's modules, runs itself with the arguments that the kernel got
//! after `--`, says what `spike doctor` finds and `SPIKE-RC=N`, and ends the machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use rustix::mount::{MountFlags, mount};

/// Folder with a file `RELEASE/list` for each kernel: paths of modules, one a line, those that others need first.
const MODULES: &str = "/modules";
/// What is said on: the kernel has the first serial line for itself.
const CONSOLE: &str = "/dev/ttyS1";
/// QEMU's `isa-debug-exit`: writing N ends it with status 2 N + 1.
const EXIT_PORT: u16 = 0xf4;

/// Does it all if this is process 1 of a machine with such a disk, and then does not come back.
pub fn main() {
    if std::process::id() != 1 || !Path::new(MODULES).exists() {
        return;
    }
    let code = match prepare().and_then(|()| run()) {
        Ok(status) => {
            say(&format!("SPIKE-DOCTOR {}\n", doctor().unwrap_or_default()));
            status.code().unwrap_or(101)
        }
        Err(error) => {
            eprintln!("init: {error}");
            102
        }
    };
    say(&format!("SPIKE-RC={code}\n"));
    end(code)
}

fn prepare() -> io::Result<()> {
    for (kind, target, options) in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("devtmpfs", "/dev", ""),
        ("tmpfs", "/tmp", "mode=1777"),
        ("tmpfs", "/run", "mode=755"),
        ("tmpfs", "/var", "mode=755"),
        ("cgroup2", "/sys/fs/cgroup", ""),
    ] {
        fs::create_dir_all(target)?;
        let options = std::ffi::CString::new(options)?;
        match mount(kind, target, kind, MountFlags::empty(), options.as_c_str()) {
            // The kernel mounts devtmpfs by itself.
            Err(rustix::io::Errno::BUSY) => {}
            other => other.map_err(|error| named(&format!("mount {kind} at {target}"), error.into()))?,
        }
    }
    fs::create_dir_all("/var/lib")?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let list = Path::new(MODULES).join(release).join("list");
    let list = fs::read_to_string(&list).map_err(|error| named(&list.display().to_string(), error))?;
    for module in list.lines() {
        load(module).map_err(|error| named(&format!("load {module}"), error))?;
    }
    let up = Command::new("/usr/bin/ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !up.success() {
        return Err(io::Error::other("ip link set lo up"));
    }
    Ok(())
}

fn load(module: &str) -> io::Result<()> {
    let file = File::open(module)?;
    match rustix::system::finit_module(&file, c"", 0) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// The tests in a process of their own, so that process 1 outlives whatever they do.
fn run() -> io::Result<ExitStatus> {
    let console = OpenOptions::new().write(true).open(CONSOLE)?;
    let mut tests = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/tmp")
        .env("SPIKE_BIN", "/usr/bin/spike")
        .env("SPIKE_REQUIRE_ROOT", "1")
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()?;
    // Process 1 inherits and buries orphans, too.
    loop {
        let mut status = 0;
        // SAFETY: a system call that writes to a local integer.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if u32::try_from(ended) == Ok(tests.id()) {
            use std::os::unix::process::ExitStatusExt as _;
            return Ok(ExitStatus::from_raw(status));
        }
        if ended < 0 {
            return tests.wait();
        }
    }
}

/// What Spike finds on this kernel, in one line of JSON.
fn doctor() -> Option<String> {
    let output = Command::new("/usr/bin/spike")
        .args(["doctor", "--json"])
        .output()
        .ok()?;
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(found.to_string())
}

fn say(text: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open(CONSOLE) {
        let _ = console.write_all(text.as_bytes());
        // SAFETY: a system call on an open descriptor: what was said has left before the machine ends.
        unsafe { libc::tcdrain(std::os::fd::AsRawFd::as_raw_fd(&console)) };
    }
}

fn end(code: i32) -> ! {
    rustix::fs::sync();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the port is QEMU's debug exit device, and this is the machine's only process.
    unsafe {
        if libc::iopl(3) == 0 {
            let code = u8::try_from(code).unwrap_or(1);
            std::arch::asm!("out dx, al", in("dx") EXIT_PORT, in("al") code, options(nomem, nostack));
        }
    }
    // Without that device.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    std::process::exit(code)
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
