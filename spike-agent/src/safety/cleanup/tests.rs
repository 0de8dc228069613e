//! Leftovers are made on purpose, in namespaces and cgroups of the test's own; a host without them must be left as it is.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::*;
use crate::safety::tc::Place;

/// A process that waits until it is killed.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(
            Command::new("sleep")
                .arg("60")
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn is_in(&self, cgroup: &Path) -> bool {
        cgroup::processes(cgroup).contains(&self.0.id())
    }

    fn join(&self, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), self.0.id().to_string()).unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup of the test, so that tests do not see each other's.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn new(name: &str) -> Self {
        let path = find_cgroup2()
            .unwrap()
            .join(format!("spike-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn orphan(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = cgroup::remove(&self.0);
    }
}

#[test]
fn a_state_directory_that_is_missing_stays_missing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    assert!(Pending::read(&missing).unwrap().entries.is_empty());
    assert_eq!(StateLock::holder(&missing), None);
    assert!(!missing.exists());
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn orphaned_cgroup_goes_and_its_processes_move_up() {
    let parent = TestCgroup::new("orphan");
    let orphan = parent.orphan("spike-exec-1-0");
    let sleeper = Sleeper::new();
    sleeper.join(&orphan);

    let found = stray_cgroup(&orphan, true).unwrap();
    assert_eq!(
        (found.removed, found.what),
        (false, format!("{} with 1 process", orphan.display()))
    );
    assert!(sleeper.is_in(&orphan), "a check changes nothing");
    let found = stray_cgroup(&orphan, false).unwrap();
    assert_eq!((found.removed, found.problem), (true, None));
    assert!(!orphan.exists() && sleeper.is_in(&parent.0));
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn cgroup_with_an_owner_and_cgroups_of_others_stay() {
    let parent = TestCgroup::new("owned");
    let owned = cgroup::ExecCgroup::create(&parent.0).unwrap();
    let sleeper = Sleeper::new();
    sleeper.join(owned.path());
    assert_eq!(stray_cgroup(owned.path(), false), None);
    assert!(sleeper.is_in(owned.path()));
    let path = owned.path().to_owned();
    drop(owned);
    assert!(!path.exists() && sleeper.is_in(&parent.0));

    let other = parent.orphan("nginx");
    assert_eq!(undo_cgroup(&other, false), None);
    assert!(other.exists());
    fs::remove_dir(other).unwrap();
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn cgroup_that_the_command_divided_is_reported_with_the_reason() {
    let parent = TestCgroup::new("divided");
    let orphan = parent.orphan("spike-exec-1-0");
    let inner = orphan.join("container");
    fs::create_dir(&inner).unwrap();
    let found = stray_cgroup(&orphan, false).unwrap();
    assert!(!found.removed && found.problem.unwrap().contains("container"));
    assert!(inner.exists());
    fs::remove_dir(inner).unwrap();
    fs::remove_dir(orphan).unwrap();
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn journaled_cgroup_is_undone_once_and_never_under_a_live_agent() {
    let parent = TestCgroup::new("journal");
    let orphan = parent.orphan("spike-exec-1-0");
    let what = orphan.display().to_string();
    let state = tempfile::tempdir().unwrap();
    let agent = InstanceLock::acquire(&parent.0, state.path()).unwrap();
    let journal = Journal::open(&agent).unwrap();
    // It has a process, so that only the journal says that nobody needs it.
    let sleeper = Sleeper::new();
    sleeper.join(&orphan);
    journal.record(Entry::Cgroup { path: orphan.clone() }).unwrap();
    drop(journal);

    let with_agent = cleanup(CleanupOptions {
        state_dir: state.path(),
        check: true,
        held: None,
    })
    .unwrap();
    assert_eq!(
        with_agent.agent,
        Some(LiveAgent {
            pid: Some(std::process::id())
        })
    );
    assert!(
        !with_agent
            .leftovers
            .iter()
            .any(|leftover| leftover.what.starts_with(&what))
    );
    drop(agent); // a kill has the same effect on both locks

    let what = format!("{what} with 1 process");
    assert_eq!(undo_journal(state.path(), true), [(what.clone(), false)]);
    assert!(orphan.exists());
    assert_eq!(undo_journal(state.path(), false), [(what, true)]);
    assert!(!orphan.exists() && sleeper.is_in(&parent.0));
    assert!(undo_journal(state.path(), false).is_empty());
    assert!(Pending::read(state.path()).unwrap().entries.is_empty());
}

/// Adds a clsact filter with a program that decides nothing, as an agent on an old kernel would. On `lo` of this namespace.
fn attach(name: &str, parent: u32) {
    const BPF_PROG_LOAD: i32 = 5;
    const SCHED_CLS: u32 = 3;
    // r0 = TC_ACT_UNSPEC; exit
    let program: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let mut attr = [0_u64; 6];
    attr[0] = u64::from(SCHED_CLS) | 2 << 32;
    attr[1] = program.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    // SAFETY: `attr` is a `union bpf_attr` cut after its first fields, of which the pointers live long enough.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, attr.as_ptr(), size_of_val(&attr)) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the system call made the descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };

    let attribute = |number: u16, value: &[u8]| {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        bytes.extend_from_slice(&number.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let terminated = [name.as_bytes(), b"\0"].concat();
    let fd_number = fd.as_raw_fd().to_ne_bytes();
    let direct_action = 1_u32.to_ne_bytes();
    let options = [
        attribute(6, &fd_number),
        attribute(7, &terminated),
        attribute(8, &direct_action),
    ]
    .concat();
    let mut message = Vec::new();
    // struct nlmsghdr: length, type and flags, sequence, port; struct tcmsg: family, interface, handle, parent, info.
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let all_protocols = 0x0003_u16.to_be();
    for word in [
        0,
        u32::from(libc::RTM_NEWTFILTER) | u32::from(flags) << 16,
        1,
        0,
        0,
        1,
        0,
        parent,
        50 << 16 | u32::from(all_protocols),
    ] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.extend(attribute(1, b"bpf\0"));
    message.extend(attribute(2, &options));
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket.send(&message, 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    assert_eq!(answer[16..20], [0; 4], "the kernel refused the filter");
}

const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

fn names(tc: &Tc) -> Vec<String> {
    tc.filters(1)
        .unwrap()
        .into_iter()
        .map(|filter| filter.name.unwrap())
        .collect()
}

fn undo_journal(state_dir: &Path, check: bool) -> Vec<(String, bool)> {
    let found = journaled(CleanupOptions {
        state_dir,
        check,
        held: None,
    })
    .unwrap();
    found
        .into_iter()
        .map(|leftover| (leftover.what, leftover.removed))
        .collect()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn stray_filters_go_and_those_of_others_stay() {
    netns::inside_new(|| {
        let tc = Tc::open().unwrap();
        tc.add_qdisc(1, "clsact", Place::Clsact).unwrap();
        for (name, parent) in [
            ("spike_tap_in", INGRESS),
            ("cil_from_netdev", INGRESS),
            ("spike_tap_out", EGRESS),
        ] {
            attach(name, parent);
        }
        let whats = |found: &[Leftover]| found.iter().map(|found| found.what.clone()).collect::<Vec<_>>();
        let expected = [
            "filter spike_tap_in on lo ingress",
            "filter spike_tap_out on lo egress",
        ];
        assert_eq!(whats(&stray_filters(true).unwrap()), expected);
        assert_eq!(names(&tc).len(), 3);
        let removed = stray_filters(false).unwrap();
        assert_eq!(whats(&removed), expected);
        assert!(removed.iter().all(|leftover| leftover.removed), "{removed:?}");
        assert_eq!(names(&tc), ["cil_from_netdev"]);
        assert!(stray_filters(false).unwrap().is_empty());
    })
    .unwrap();
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn journaled_filter_and_qdisc_go_in_another_namespace() {
    let (hold, wait) = std::sync::mpsc::channel::<()>();
    let (ready_tx, ready) = std::sync::mpsc::channel();
    // A namespace that lives as long as its thread, which is not the one that cleans up.
    let namespace = std::thread::spawn(move || {
        netns::inside_new(move || {
            let tc = Tc::open().unwrap();
            tc.add_qdisc(1, "clsact", Place::Clsact).unwrap();
            attach("spike_tap_in", INGRESS);
            // What /proc/<pid>/ns/net of a process there would be; threads are not listed in /proc.
            ready_tx
                .send((
                    netns::current().unwrap(),
                    fs::File::open("/proc/thread-self/ns/net").unwrap(),
                ))
                .unwrap();
            let _ = wait.recv();
        })
        .unwrap();
    });
    let (number, file) = ready.recv().unwrap();
    let of_a_process = netns::inside(&file, Sleeper::new).unwrap();
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open_in(state.path()).unwrap();
    let ifname = || "lo".to_owned();
    journal
        .record(Entry::ClsactQdisc {
            netns: number,
            ifindex: 1,
            ifname: ifname(),
            created_by_us: true,
        })
        .unwrap();
    journal
        .record(Entry::TcFilter {
            netns: number,
            ifindex: 1,
            ifname: ifname(),
            direction: Direction::Ingress,
            name: "spike_tap_in".to_owned(),
            handle: 0,
            priority: 50,
        })
        .unwrap();
    // Void: no such interface there.
    journal
        .record(Entry::ClsactQdisc {
            netns: number,
            ifindex: 9,
            ifname: ifname(),
            created_by_us: true,
        })
        .unwrap();

    let of = format!(" of network namespace {number}");
    let whats = [
        format!("filter spike_tap_in on lo ingress{of}"),
        format!("clsact qdisc on lo{of}"),
    ];
    assert_eq!(
        undo_journal(state.path(), true),
        whats.clone().map(|what| (what, false))
    );
    assert_eq!(undo_journal(state.path(), false), whats.map(|what| (what, true)));
    assert!(undo_journal(state.path(), true).is_empty());
    netns::inside(&file, || {
        assert!(Tc::open().unwrap().clsacts().unwrap().is_empty())
    })
    .unwrap();
    drop((hold, of_a_process));
    namespace.join().unwrap();
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn journaled_qdisc_stays_when_it_was_there_before_or_others_use_it() {
    netns::inside_new(|| {
        let number = netns::current().unwrap();
        let tc = Tc::open().unwrap();
        tc.add_qdisc(1, "clsact", Place::Clsact).unwrap();
        let entry = |created_by_us| Entry::ClsactQdisc {
            netns: number,
            ifindex: 1,
            ifname: "lo".to_owned(),
            created_by_us,
        };
        assert_eq!(undo_tc_here(&entry(false), "", false).unwrap(), None);
        attach("cil_from_netdev", INGRESS);
        assert_eq!(undo_tc_here(&entry(true), "", false).unwrap(), None);
        assert_eq!(
            (tc.clsacts().unwrap(), names(&tc)),
            (vec![1], vec!["cil_from_netdev".to_owned()])
        );
        tc.delete_filter(&tc.filters(1).unwrap()[0]).unwrap();
        assert!(undo_tc_here(&entry(true), "", false).unwrap().unwrap().removed);
    })
    .unwrap();
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn namespace_that_is_gone_took_everything_with_it() {
    let entry = Entry::ClsactQdisc {
        netns: 1,
        ifindex: 1,
        ifname: "lo".to_owned(),
        created_by_us: true,
    };
    assert_eq!(undo_tc(1, &entry, false).unwrap(), None);
}
