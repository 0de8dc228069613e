//! What the agent tells of itself.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

use super::{
    family::{Family, Metric, Unit, Value},
    source::{Host, Source},
};

static BUILD: Metric = Metric::gauge(
    "spike.build.info",
    Unit::Of(""),
    "Version of the agent and of the kernel; always 1.",
);
static BUDGET: Metric = Metric::gauge(
    "spike.decode.budget",
    Unit::Ratio,
    "What decoding may take, as a share of one processor core.",
);
static USED: Metric = Metric::gauge(
    "spike.decode.used",
    Unit::Ratio,
    "What decoding took lately, as a share of one processor core.",
);
static SAMPLED: Metric = Metric::gauge(
    "spike.decode.sampled",
    Unit::Ratio,
    "Share of the connections that is decoded now.",
);
static SEGMENTS: Metric = Metric::counter(
    "spike.decode.segments",
    Unit::Of("{segment}"),
    "Segments of sampled connections that were looked at.",
);
static NOT_FOLLOWED: Metric = Metric::counter(
    "spike.decode.segments.not_followed",
    Unit::Of("{segment}"),
    "Segments of sampled connections that were passed over: too many connections.",
);
static LOSSES: Metric = Metric::counter(
    "spike.lost",
    Unit::Of("{event}"),
    "What was lost or let through, by reason; spike status describes each.",
);
static CPU: Metric = Metric::counter(
    "process.cpu.time",
    Unit::Seconds,
    "Processor time of the agent, in user and kernel mode.",
)
.scraped_as("process_cpu_seconds");
static RESIDENT: Metric = Metric::gauge(
    "process.memory.usage",
    Unit::Bytes,
    "Physical memory that the agent uses.",
)
.scraped_as("process_resident_memory_bytes");
static VIRTUAL: Metric = Metric::gauge(
    "process.memory.virtual",
    Unit::Bytes,
    "Virtual memory of the agent.",
)
.scraped_as("process_virtual_memory_bytes");
static FILES: Metric = Metric::gauge(
    "process.unix.file_descriptor.count",
    Unit::Of("{file_descriptor}"),
    "File descriptors that the agent has open.",
)
.scraped_as("process_open_fds");
static UPTIME: Metric = Metric::gauge("process.uptime", Unit::Seconds, "Time since the agent's start.");

/// What the agent tells of itself, as of now.
pub(super) fn families(source: &dyn Source, host: &Host, up: Duration) -> Vec<Family> {
    let mut build = Family::new(&BUILD);
    let attributes = vec![
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("kernel_release", host.kernel.as_str().into()),
    ];
    build.add(attributes, Value::Count(1));
    let decoding = source.decoding();
    let share = |percent: f64| Value::Float(percent / 100.0);
    let mut losses = Family::new(&LOSSES);
    for loss in source.losses() {
        losses.add(
            vec![("reason", loss.name.as_str().into())],
            Value::Count(loss.count),
        );
    }
    let mut families = vec![
        build,
        Family::one(&BUDGET, share(decoding.budget_percent)),
        Family::one(&USED, share(decoding.used_percent)),
        Family::one(&SAMPLED, share(decoding.sampled_percent)),
        Family::one(&SEGMENTS, Value::Count(decoding.segments)),
        Family::one(&NOT_FOLLOWED, Value::Count(decoding.not_followed)),
        losses,
        Family::one(&UPTIME, Value::Float(up.as_secs_f64())),
    ];
    // Without /proc nothing of this can be told.
    families.extend(process().unwrap_or_default());
    families
}

fn process() -> procfs::ProcResult<Vec<Family>> {
    let own = procfs::process::Process::myself()?;
    let stat = own.stat()?;
    let ticks = stat.utime + stat.stime;
    let seconds = ticks as f64 / procfs::ticks_per_second() as f64;
    Ok(vec![
        Family::one(&CPU, Value::Float(seconds)),
        Family::one(&RESIDENT, Value::Count(stat.rss * procfs::page_size())),
        Family::one(&VIRTUAL, Value::Count(stat.vsize)),
        Family::one(&FILES, Value::Count(own.fd_count()? as u64)),
    ])
}

/// A number that nobody else has; not 0, which means none where ids are sent.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // So few bytes are never cut short, and from Linux 3.17 on always there.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    u64::from_ne_bytes(bytes).max(1)
}
