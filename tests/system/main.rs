//! Runs every system test: `cargo xtask test --system`, or `cargo test -p spike-tests -- NAME` with a built agent.
//!
//! Without root all tests are ignored; with `SPIKE_REQUIRE_ROOT=1` that is a failure.

mod api;
mod calls;
mod capture;
mod captures;
mod chance;
mod connect;
mod datagrams;
mod effects;
mod exec;
mod export;
mod identity;
mod latency;
mod map;
mod namespaces;
mod observe;
mod packets;
mod record;
mod replay;
mod safety;
mod selectors;
mod stopped;
mod streams;
mod topology;
mod toxiproxy;
mod transparent;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use spike_tests::needs::{self, Skip};

/// The name of a test and what it does; it panics to fail.
type Test = (&'static str, fn());

/// Groups about what the agent does with what it was told, which is the same on every kernel: an emulated processor
/// would take hours for them. `SPIKE_ALL_TESTS=1` runs them there, too.
const ALIKE_ON_ALL_KERNELS: [&str; 12] = [
    "api",
    "chance",
    "effects",
    "exec",
    "export",
    "identity",
    "latency",
    "map",
    "record",
    "replay",
    "topology",
    "toxiproxy",
];

fn main() -> ExitCode {
    spike_tests::init::main();
    if let Some(code) = spike_tests::helper::main() {
        return code;
    }
    // The many connections of some tests have both ends here.
    raise_open_files();
    let groups: &[(&str, &[Test])] = &[
        ("observe", observe::TESTS),
        ("calls", calls::TESTS),
        ("latency", latency::TESTS),
        ("map", map::TESTS),
        ("effects", effects::TESTS),
        ("streams", streams::TESTS),
        ("toxiproxy", toxiproxy::TESTS),
        ("chance", chance::TESTS),
        ("namespaces", namespaces::TESTS),
        ("transparent", transparent::TESTS),
        ("capture", capture::TESTS),
        ("captures", captures::TESTS),
        ("packets", packets::TESTS),
        ("packets_queue", packets::QUEUE_TESTS),
        ("exec", exec::TESTS),
        ("record", record::TESTS),
        ("export", export::TESTS),
        ("identity", identity::TESTS),
        ("api", api::TESTS),
        ("replay", replay::TESTS),
        ("safety", safety::TESTS),
        ("selectors", selectors::TESTS),
        ("connect", connect::TESTS),
        ("datagrams", datagrams::TESTS),
        ("stopped", stopped::TESTS),
        ("topology", topology::TESTS),
    ];
    let trials = groups.iter().flat_map(|&(group, tests)| {
        tests.iter().map(move |&(name, test)| {
            Trial::ignorable_test(format!("{group}::{name}"), move || run(group, test))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn run(group: &str, test: fn()) -> Result<Completion, Failed> {
    let wants_all = std::env::var_os("SPIKE_ALL_TESTS").is_some_and(|value| value == "1");
    if ALIKE_ON_ALL_KERNELS.contains(&group) && needs::is_emulated() && !wants_all {
        return Ok(Completion::ignored_with(
            "the same on every kernel, and this processor is emulated; SPIKE_ALL_TESTS=1 runs it",
        ));
    }
    if !rustix::process::geteuid().is_root() {
        if std::env::var_os("SPIKE_REQUIRE_ROOT").is_some_and(|value| value == "1") {
            return Err("not root, and SPIKE_REQUIRE_ROOT=1 asks for every test".into());
        }
        return Ok(Completion::ignored_with("not root"));
    }
    match std::panic::catch_unwind(test) {
        Ok(()) => Ok(Completion::Completed),
        Err(thrown) => match thrown.downcast::<Skip>() {
            Ok(skip) => Ok(Completion::ignored_with(skip.0)),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // What cannot be raised shows in the tests that need it.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}
