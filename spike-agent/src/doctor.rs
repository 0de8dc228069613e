//! Tells what this host offers Spike, what is lost without the rest, and how to get it; found out by trying.

mod probe;

use std::fs;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::BpfHelper;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde::Serialize;
use utoipa::ToSchema;

use crate::safety::{self, KernelVersion, OLDEST_KERNEL, effective_capabilities};

/// What the host offers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Report {
    /// One for each facility, the required ones among them.
    pub checks: Vec<Check>,
}

impl Report {
    /// Nothing that the agent needs to start is known to be absent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.present || !check.required || !check.known)
    }
}

/// One facility of the kernel or of this process.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Check {
    /// What it is called.
    pub name: &'static str,
    /// It is there and works.
    pub present: bool,
    /// False when it could not be tried, mostly for want of root; `present` is false then too.
    pub known: bool,
    /// The agent does not start without it.
    pub required: bool,
    /// What was found.
    pub detail: String,
    /// What Spike cannot do where it is absent.
    pub lost: &'static str,
    /// How to get it.
    pub remedy: &'static str,
}

/// What trying a facility showed, with the details.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Present(String),
    Absent(String),
    Unknown(String),
}

/// What has to be said of a facility beside what was found.
struct Facility {
    name: &'static str,
    required: bool,
    lost: &'static str,
    remedy: &'static str,
}

const AGENT: &str = "everything: the agent does not start";
const AS_ROOT: &str = "run as root (sudo spike doctor), or give the unit this capability";
const NEWER: &str = "boot kernel 5.10 or later, with CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y";

/// Tries every facility that Spike uses. Changes nothing on the host; takes some milliseconds.
#[must_use]
pub fn report() -> Report {
    let mut checks = vec![kernel()];
    checks.extend(privileges());
    checks.extend([cgroup2(), btf()]);
    checks.extend(maps());
    checks.extend(programs());
    checks.extend(helpers());
    checks.extend(traffic_control());
    checks.extend(sockets());
    checks.push(open_files());
    Report { checks }
}

fn check(facility: Facility, finding: Finding) -> Check {
    let Facility {
        name,
        required,
        lost,
        remedy,
    } = facility;
    let (present, known, detail) = match finding {
        Finding::Present(detail) => (true, true, detail),
        Finding::Absent(detail) => (false, true, detail),
        Finding::Unknown(detail) => (false, false, detail),
    };
    Check {
        name,
        present,
        known,
        required,
        detail,
        lost,
        remedy,
    }
}

fn present(yes: bool, detail: impl Into<String>) -> Finding {
    if yes {
        Finding::Present(detail.into())
    } else {
        Finding::Absent(detail.into())
    }
}

fn kernel() -> Check {
    let finding = match KernelVersion::running() {
        Ok(version) => {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            present(version >= OLDEST_KERNEL, release.trim_end())
        }
        Err(error) => Finding::Unknown(format!("unknown: {error}")),
    };
    check(
        Facility {
            name: "kernel 5.10 or later",
            required: true,
            lost: AGENT,
            remedy: "boot a newer kernel",
        },
        finding,
    )
}

fn privileges() -> impl Iterator<Item = Check> {
    let effective = effective_capabilities();
    let facility = |name, required, lost| Facility {
        name,
        required,
        lost,
        remedy: AS_ROOT,
    };
    // CAP_SYS_ADMIN includes what CAP_BPF and CAP_PERFMON allow.
    [
        (
            facility("CAP_BPF", true, AGENT),
            CapabilitySet::BPF | CapabilitySet::SYS_ADMIN,
        ),
        (facility("CAP_NET_ADMIN", true, AGENT), CapabilitySet::NET_ADMIN),
        (
            facility("CAP_PERFMON", true, AGENT),
            CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN,
        ),
        (
            facility(
                "CAP_SYS_ADMIN",
                false,
                "faults on callers in other network namespaces (setns)",
            ),
            CapabilitySet::SYS_ADMIN,
        ),
        (
            facility(
                "CAP_SYS_PTRACE",
                false,
                "names of other users' processes for connections opened before the agent",
            ),
            CapabilitySet::SYS_PTRACE,
        ),
    ]
    .into_iter()
    .map(move |(facility, any_of)| {
        let has = effective.intersects(any_of);
        check(
            facility,
            present(
                has,
                if has {
                    "effective"
                } else {
                    "not effective for this process"
                },
            ),
        )
    })
}

fn cgroup2() -> Check {
    let finding = match safety::find_cgroup2() {
        Ok(path) => Finding::Present(format!("mounted at {}", path.display())),
        Err(error) => Finding::Absent(error.to_string()),
    };
    check(
        Facility {
            name: "cgroup v2",
            required: true,
            lost: AGENT,
            remedy: "boot with systemd.unified_cgroup_hierarchy=1, or: mount -t cgroup2 none /sys/fs/cgroup/unified",
        },
        finding,
    )
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    let finding = match fs::metadata(path) {
        Ok(found) => Finding::Present(format!("{path}, {} KiB", found.len() / 1024)),
        Err(error) => Finding::Absent(format!("{path}: {error}")),
    };
    check(
        Facility {
            name: "BTF of the kernel",
            required: false,
            lost: "names of executables where they differ from the thread's name, and host pids of containers",
            remedy: "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        },
        finding,
    )
}

fn maps() -> impl Iterator<Item = Check> {
    [
        ("ring buffer map", MapType::RingBuf),
        ("socket storage map", MapType::SkStorage),
        ("LPM trie map", MapType::LpmTrie),
    ]
    .into_iter()
    .map(|(name, kind)| {
        check(
            Facility {
                name,
                required: true,
                lost: AGENT,
                remedy: NEWER,
            },
            probe::map(kind),
        )
    })
}

fn programs() -> impl Iterator<Item = Check> {
    let required = |name| Facility {
        name,
        required: true,
        lost: AGENT,
        remedy: NEWER,
    };
    let packets = Facility {
        name: "sched_cls programs",
        required: false,
        lost: "captures and packet faults",
        remedy: "boot a kernel with CONFIG_NET_CLS_ACT=y",
    };
    [
        (required("cgroup_sock_addr programs"), ProgramType::CgroupSockAddr),
        (required("sock_ops programs"), ProgramType::SockOps),
        (required("cgroup_skb programs"), ProgramType::CgroupSkb),
        (packets, ProgramType::SchedClassifier),
    ]
    .into_iter()
    .map(|(facility, kind)| check(facility, probe::program(kind)))
}

fn helpers() -> impl Iterator<Item = Check> {
    let required = |name| Facility {
        name,
        required: true,
        lost: AGENT,
        remedy: NEWER,
    };
    let sock_addr = ProgramType::CgroupSockAddr;
    [
        (required("bpf_sk_lookup_tcp in cgroup_sock_addr"), sock_addr, BpfHelper::BPF_FUNC_sk_lookup_tcp),
        (required("bpf_get_netns_cookie in cgroup_sock_addr"), sock_addr, BpfHelper::BPF_FUNC_get_netns_cookie),
        (required("bpf_sk_storage_get in cgroup_sock_addr"), sock_addr, BpfHelper::BPF_FUNC_sk_storage_get),
        (required("bpf_get_current_task in cgroup_sock_addr"), sock_addr, BpfHelper::BPF_FUNC_get_current_task),
        (required("bpf_probe_read_kernel in cgroup_sock_addr"), sock_addr, BpfHelper::BPF_FUNC_probe_read_kernel),
        (
            Facility {
                name: "bpf_set_retval in cgroup_sock_addr",
                required: false,
                lost: "nothing: refused connections go to a loopback port that nobody listens on",
                remedy: "boot kernel 5.18 or later",
            },
            sock_addr,
            BpfHelper::BPF_FUNC_set_retval,
        ),
        (
            Facility {
                name: "bpf_get_netns_cookie in sock_ops",
                required: false,
                lost: "telling apart two servers that bind one address in two network namespaces in the same moment",
                remedy: "boot kernel 5.15 or later",
            },
            ProgramType::SockOps,
            BpfHelper::BPF_FUNC_get_netns_cookie,
        ),
    ]
    .into_iter()
    .map(|(facility, kind, helper)| check(facility, probe::helper(kind, helper)))
}

fn traffic_control() -> [Check; 5] {
    [
        check(
            Facility {
                name: "TCX",
                required: false,
                lost: "captures that leave nothing on an interface: clsact is used instead, and cleaned up after",
                remedy: "boot kernel 6.6 or later",
            },
            probe::tcx(),
        ),
        check(
            Facility {
                name: "clsact qdisc",
                required: false,
                lost: "captures and packet faults where the kernel has no TCX either",
                remedy: "boot a kernel with CONFIG_NET_SCH_INGRESS=y or =m",
            },
            probe::qdisc("ingress", "clsact"),
        ),
        check(
            Facility {
                name: "bpf filter on clsact",
                required: false,
                lost: "captures and packet faults where the kernel has no TCX either",
                remedy: "boot a kernel with CONFIG_NET_CLS_BPF=y or =m",
            },
            probe::bpf_filter(),
        ),
        check(
            Facility {
                name: "fq qdisc",
                required: false,
                lost: "packet faults delay, jitter, reorder and rate: use the stream faults latency and bandwidth instead",
                remedy: "boot a kernel with CONFIG_NET_SCH_FQ=y or =m",
            },
            probe::qdisc("fq", "fq"),
        ),
        check(
            Facility {
                name: "netem qdisc",
                required: false,
                lost: "nothing of Spike itself: its packet faults can only not be compared with netem",
                remedy: "boot a kernel with CONFIG_NET_SCH_NETEM=y or =m",
            },
            probe::qdisc("netem", "netem"),
        ),
    ]
}

fn sockets() -> [Check; 3] {
    [
        check(
            Facility {
                name: "SO_NETNS_COOKIE",
                required: false,
                lost: "nothing while the agent runs in the cgroup that it observes; else faults and the joining of loopback calls",
                remedy: "boot kernel 5.14 or later",
            },
            probe::netns_cookie(),
        ),
        check(
            Facility {
                name: "pidfd_getfd",
                required: false,
                lost: "looking at sockets of other processes that were opened before the agent",
                remedy: "boot kernel 5.6 or later, and allow pidfd_getfd in the container's seccomp profile",
            },
            probe::copy_descriptor(),
        ),
        check(
            Facility {
                name: "INET_DIAG_DESTROY",
                required: false,
                lost: "\"existing\": \"reset\": connections that are open when a fault is armed stay as they are",
                remedy: "boot a kernel with CONFIG_INET_DIAG_DESTROY=y",
            },
            probe::sock_destroy(),
        ),
    ]
}

fn open_files() -> Check {
    /// An intercepted connection takes two descriptors: room for 10,000 and as many again.
    const ENOUGH: u64 = 65_536;
    let limit = getrlimit(Resource::Nofile);
    let most = match effective_capabilities().contains(CapabilitySet::SYS_RESOURCE) {
        true => fs::read_to_string("/proc/sys/fs/nr_open")
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        false => None,
    };
    // No limit is the highest one.
    let or_all = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let reachable = or_all(limit.maximum).max(most.unwrap_or(0));
    let detail = format!("{} now, {reachable} at most", or_all(limit.current));
    check(
        Facility {
            name: "65,536 open files",
            required: false,
            lost: "faults on more than some thousand connections at once",
            remedy: "set LimitNOFILE=1048576 in the unit, or ulimit -Hn 1048576",
        },
        present(reachable >= ENOUGH, detail),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_check_says_all_that_there_is_to_say() {
        let report = report();
        let names: HashSet<_> = report.checks.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), report.checks.len(), "a name twice");
        for check in &report.checks {
            let Check {
                name,
                present,
                known,
                detail,
                lost,
                remedy,
                ..
            } = check;
            assert!(
                !detail.is_empty() && !lost.is_empty() && !remedy.is_empty(),
                "{name}"
            );
            assert!(
                *known || (!present && detail.starts_with("unknown: ")),
                "{name}: {detail}"
            );
        }
    }

    #[test]
    fn what_is_absent_matters_only_when_required_and_known() {
        let facility = |required| Facility {
            name: "x",
            required,
            lost: "y",
            remedy: "z",
        };
        let ready = |required, finding| {
            Report {
                checks: vec![check(facility(required), finding)],
            }
            .is_ready()
        };
        assert!(ready(true, Finding::Present(String::new())));
        assert!(ready(false, Finding::Absent(String::new())));
        assert!(ready(true, Finding::Unknown(String::new())));
        assert!(!ready(true, Finding::Absent(String::new())));
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn as_root_everything_is_known_and_the_agent_could_start() {
        let report = report();
        let unknown: Vec<_> = report.checks.iter().filter(|check| !check.known).collect();
        assert!(unknown.is_empty(), "{unknown:#?}");
        assert!(report.is_ready(), "{report:#?}");
        safety::preflight().unwrap();
    }
}
