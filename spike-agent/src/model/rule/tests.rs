//! The compiled rules held against the plain meaning of the selectors.

use std::net::SocketAddr;

use proptest::{collection::vec, option, prelude::*, sample::select};
use spike_common::{
    address::Endpoint,
    name::NameHash,
    rule::{ADDRESS, COMM, EXECUTABLE, PORT},
    task::{Task, comm, executable_hash, padded},
};

use super::*;
use crate::model::{Caller, Destination, NetnsName, PortRange, ProcessPattern, User};

/// Inode and cookie of each.
const NETNS: [(u64, u64); 2] = [(4_026_531_840, 1), (4_026_531_999, 70)];

/// Where redis listens.
const LISTENERS: [&str; 2] = ["10.1.2.3:80", "10.9.9.9:444"];

fn of_inode(inode: u64) -> NetnsName {
    NetnsName {
        inode,
        name: None,
        is_host: inode == NETNS[0].0,
    }
}

/// What is known of a destination, as the agent finds it out.
fn called(address: SocketAddr) -> Destination {
    let hosts = match address.ip().to_string().as_str() {
        "10.1.2.3" => vec!["db.test".into()],
        "10.9.9.9" => vec!["late.test".into()],
        _ => Vec::new(),
    };
    let redis = || Caller {
        service: Some("redis".to_owned()),
        ..Caller::default()
    };
    let process = LISTENERS.contains(&address.to_string().as_str()).then(redis);
    Destination {
        address,
        hosts,
        process,
    }
}

/// Path, id and depth of each.
const CGROUPS: [(&str, u64, u32); 6] = [
    ("/", 1, 0),
    ("/a", 2, 1),
    ("/a/b", 3, 2),
    ("/a/b/c", 4, 3),
    ("/ab", 5, 1),
    ("/ab/c", 6, 2),
];
const ALL: Capabilities = Capabilities {
    executable: true,
    cgroup_depths: true,
};

struct Tree;

impl Identities for Tree {
    fn uid(&self, name: &str) -> Option<u32> {
        (name == "www").then_some(33)
    }

    fn netns_cookies(&self, netns: &Netns) -> Vec<u64> {
        NETNS
            .iter()
            .filter(|(inode, _)| netns.matches(&of_inode(*inode)))
            .map(|(_, cookie)| *cookie)
            .collect()
    }

    fn listeners(&self, to: &EndSelector) -> Vec<(Option<IpAddr>, u16)> {
        let process = EndSelector {
            host: None,
            cidr: None,
            port: None,
            ..to.clone()
        };
        let all = LISTENERS.iter().map(|text| text.parse::<SocketAddr>().unwrap());
        let meant = all.filter(|listener| process.matches_destination(&called(*listener)));
        meant
            .map(|listener| (Some(listener.ip()), listener.port()))
            .collect()
    }

    fn addresses(&self, host: &NamePattern) -> Vec<IpAddr> {
        // Known by the agent's own resolver alone.
        if host.matches("late.test") {
            vec!["10.9.9.9".parse().unwrap()]
        } else {
            Vec::new()
        }
    }

    fn executables_invoked_as(&self, name: &str) -> Vec<String> {
        if name == "redis-server" {
            vec!["redis-check-rdb".to_owned()]
        } else {
            Vec::new()
        }
    }
}

/// Knows the addresses of all names, as the agent does of those that were resolved: the packet hooks know no names.
struct Resolved;

impl CgroupIds for Resolved {
    fn id_and_depth(&self, path: &str) -> Option<(u64, Option<u32>)> {
        Tree.id_and_depth(path)
    }
}

impl Identities for Resolved {
    fn uid(&self, name: &str) -> Option<u32> {
        Tree.uid(name)
    }

    fn listeners(&self, to: &EndSelector) -> Vec<(Option<IpAddr>, u16)> {
        Tree.listeners(to)
    }

    fn addresses(&self, host: &NamePattern) -> Vec<IpAddr> {
        let mut found = Tree.addresses(host);
        if host.matches("db.test") {
            found.push("10.1.2.3".parse().unwrap());
        }
        found
    }

    fn executables_invoked_as(&self, name: &str) -> Vec<String> {
        Tree.executables_invoked_as(name)
    }
}

impl CgroupIds for Tree {
    fn id_and_depth(&self, path: &str) -> Option<(u64, Option<u32>)> {
        let found = CGROUPS.iter().find(|(known, ..)| *known == path);
        found.map(|&(_, id, depth)| (id, Some(depth)))
    }
}

fn is_below(cgroup: &str, top: &str) -> bool {
    top == "/" || cgroup == top || cgroup.starts_with(&format!("{top}/"))
}

fn leaves(top: &str) -> Vec<u64> {
    let below = CGROUPS.iter().filter(|(path, ..)| is_below(path, top));
    below.map(|&(_, id, _)| id).collect()
}

fn ask(compiled: &Compiled, caller: &Caller, to: SocketAddr, can: &Capabilities) -> (bool, Vec<u32>) {
    let name = caller.exe.rsplit('/').next().unwrap();
    let executable = padded(name).unwrap();
    let own = Tree.id_and_depth(&caller.cgroup).unwrap().0;
    let task = Task {
        cgroup: own,
        executable,
        tgid: caller.pid,
        uid: caller.uid.unwrap(),
    };
    let inode = caller.netns.as_ref().unwrap().inode;
    let invoked = caller.invoked.as_deref().unwrap_or(name);
    let attempt = Attempt {
        task: &task,
        executable: if can.executable {
            executable_hash(&executable)
        } else {
            0
        },
        comm: executable_hash(&comm(invoked)),
        // The kernel has seen the answer for one of them.
        name: if to.ip().to_string() == "10.1.2.3" {
            NameHash::of(b"\x02db\x04test\0").unwrap()
        } else {
            0
        },
        netns: NETNS.iter().find(|netns| netns.0 == inode).unwrap().1,
        destination: &Endpoint::from(to),
    };
    let ancestor = |depth| match depth {
        LEAF => own,
        depth => CGROUPS
            .iter()
            .find(|(path, _, at)| *at == depth && is_below(&caller.cgroup, path))
            .map_or(0, |found| found.1),
    };
    kernel_would(compiled, &attempt, &ancestor)
}

fn selectors() -> impl Strategy<Value = Selector> {
    let process = select(vec![
        "curl",
        "wg*",
        "/usr/bin/curl",
        "/usr/*/curl",
        "redis-server",
        "a-name-of-thirty-one-characters",
    ]);
    let cgroup = select(vec!["/", "/a", "/a/b", "/ab", "/gone"]);
    let user = select(vec![User::Id(0), User::Name("www".to_owned()), User::Id(7)]);
    let netns = select(vec![Netns::Host, Netns::Inode(NETNS[1].0)]);
    let service = select(vec!["redis", "shop"]);
    let host = select(vec!["db.test", "*.test", "late.test", "gone.test"]);
    let cidr = select(vec![
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "::/0",
        "fd00::/8",
        "fd00::/64",
        "fd00::1/128",
    ]);
    let port = select(vec![(80, 80), (443, 443), (80, 443), (1, 100), (1, 65_535)]);
    let named = |name: &str| NamePattern::parse(name, "x").unwrap();
    let from = (
        option::weighted(0.4, process),
        option::weighted(0.2, 7..9_u32),
        option::weighted(0.4, cgroup),
        option::weighted(0.2, user),
        option::weighted(0.2, netns),
        option::weighted(0.1, service.clone()),
    );
    let from = from.prop_map(move |(process, pid, cgroup, user, netns, service)| EndSelector {
        process: process.map(|text| ProcessPattern::parse(text).unwrap()),
        pid,
        cgroup: cgroup.map(str::to_owned),
        user,
        netns,
        service: service.map(named),
        ..EndSelector::default()
    });
    let to = (
        option::weighted(0.6, cidr),
        option::weighted(0.4, port),
        option::weighted(0.2, host),
        option::weighted(0.2, service),
    );
    let to = to.prop_map(move |(cidr, port, host, service)| EndSelector {
        cidr: cidr.map(|text| text.parse().unwrap()),
        port: port.map(|(first, last)| PortRange { first, last }),
        host: host.map(named),
        service: service.map(named),
        ..EndSelector::default()
    });
    (from, to).prop_map(|(from, to)| Selector {
        from,
        to,
        everything: false,
    })
}

fn callers() -> impl Strategy<Value = Caller> {
    let exe = select(vec![
        ("/usr/bin/curl", None),
        ("curl", None),
        ("/bin/wget", None),
        ("/usr/bin/redis-check-rdb", Some("redis-server")),
        ("/opt/a-name-of-thirty-one-characters", None),
    ]);
    let cgroup = select(CGROUPS.to_vec());
    let uid = select(vec![(0, "root"), (33, "www")]);
    let netns = select(NETNS.to_vec());
    (exe, 7..10_u32, cgroup, uid, netns).prop_map(|((exe, invoked), pid, cgroup, (uid, user), netns)| {
        Caller {
            pid,
            exe: exe.to_owned(),
            invoked: invoked.map(str::to_owned),
            cgroup: cgroup.0.to_owned(),
            uid: Some(uid),
            user: Some(user.to_owned()),
            netns: Some(of_inode(netns.0)),
            service: Some("shop".to_owned()),
            ..Caller::default()
        }
    })
}

fn destinations() -> impl Strategy<Value = SocketAddr> {
    let ip = select(vec![
        "10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "11.0.0.1", "::1", "fd00::1", "fd00::2",
    ]);
    (ip, select(vec![80, 81, 443, 444])).prop_map(|(ip, port)| SocketAddr::new(ip.parse().unwrap(), port))
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    let often = prop::bool::weighted(0.8);
    (often, often).prop_map(|(executable, cgroup_depths)| Capabilities {
        executable,
        cgroup_depths,
    })
}

/// The faults whose number is even are for the kernel; a fault's id is its number and 1.
fn sources(selectors: &[Selector]) -> Vec<RuleSource<'_>> {
    let source = |(selector, id): (_, u32)| RuleSource {
        selector,
        kernel_fault: (id % 2 == 1).then_some(id),
        datagrams: false,
        deadline_ns: u64::MAX,
    };
    selectors.iter().zip(1..).map(source).collect()
}

/// The connections that the selectors choose are caught, and none is refused for a fault that does not choose it.
fn check(
    selectors: &[Selector],
    compiled: &Compiled,
    can: &Capabilities,
    caller: &Caller,
    to: SocketAddr,
) -> Result<(), TestCaseError> {
    let (redirect, refusals) = ask(compiled, caller, to, can);
    for (selector, id) in selectors.iter().zip(1..) {
        let is_there = selector.from.cgroup.as_deref() != Some("/gone");
        if is_there && selector.matches(caller, called(to)) {
            prop_assert!(
                redirect || id % 2 == 1 && refusals.contains(&id),
                "missed {selector:?}"
            );
        } else {
            prop_assert!(!refusals.contains(&id), "refused for {selector:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_a_selector_chooses_is_caught(
        selectors in vec(selectors(), 0..12),
        can in capabilities(),
        caller in callers(),
        to in vec(destinations(), 4),
    ) {
        let compiled = compile(&sources(&selectors), &Tree, &can);
        for to in to {
            check(&selectors, &compiled, &can, &caller, to)?;
        }
    }

    #[test]
    fn an_exact_rule_means_what_its_selector_means(
        selector in selectors(),
        caller in callers(),
        to in vec(destinations(), 4),
    ) {
        let source = RuleSource { selector: &selector, kernel_fault: Some(9), datagrams: false, deadline_ns: u64::MAX };
        let compiled = compile(&[source], &Tree, &ALL);
        for to in to {
            let (redirect, refusals) = ask(&compiled, &caller, to, &ALL);
            let is_exact = compiled.exact.values().chain(compiled.prefix.values()).all(|value| value.flags == 0);
            if is_exact {
                prop_assert!(!redirect);
                prop_assert_eq!(selector.matches(&caller, called(to)), refusals == [9]);
            }
        }
    }

    #[test]
    fn taps_see_what_a_selector_chooses(
        selectors in vec(selectors(), 0..6),
        caller in callers(),
        to in destinations(),
    ) {
        let compiled = compile_taps(&selectors.iter().collect::<Vec<_>>(), &leaves, &ALL, &Resolved);
        prop_assert!(compiled.masks.count >= 1);
        let (seen, refusals) = ask(&compiled, &caller, to, &ALL);
        prop_assert!(refusals.is_empty());
        prop_assert!(seen || !selectors.iter().any(|selector| selector.matches(&caller, called(to))));
    }

    #[test]
    fn more_kinds_than_fit_still_catch_all(
        selectors in vec(selectors(), 1..20),
        caller in callers(),
        to in destinations(),
    ) {
        // Depths beyond those of the tree make more kinds; they match nobody.
        let deep: Vec<Selector> = (0..60).map(|n| Selector {
            from: EndSelector { cgroup: Some(format!("/deep/{n}")), ..EndSelector::default() },
            ..Selector::default()
        }).collect();
        let selectors: Vec<Selector> = selectors.into_iter().chain(deep).collect();
        struct Deep;
        impl Identities for Deep {
            fn uid(&self, name: &str) -> Option<u32> {
                Tree.uid(name)
            }

            fn netns_cookies(&self, netns: &Netns) -> Vec<u64> {
                Tree.netns_cookies(netns)
            }

            fn listeners(&self, to: &EndSelector) -> Vec<(Option<IpAddr>, u16)> {
                Tree.listeners(to)
            }

            fn addresses(&self, host: &NamePattern) -> Vec<IpAddr> {
                Tree.addresses(host)
            }
        }
        impl CgroupIds for Deep {
            fn id_and_depth(&self, path: &str) -> Option<(u64, Option<u32>)> {
                match path.strip_prefix("/deep/") {
                    Some(n) => Some((1000, Some(4 + n.parse::<u32>().unwrap()))),
                    None => Tree.id_and_depth(path),
                }
            }
        }
        let compiled = compile(&sources(&selectors), &Deep, &ALL);
        prop_assert_eq!(compiled.masks.count as usize, MAX_MASKS);
        check(&selectors, &compiled, &ALL, &caller, to)?;
    }
}

fn selector(process: Option<&str>, cidr: Option<&str>, port: Option<(u16, u16)>) -> Selector {
    Selector {
        from: EndSelector {
            process: process.map(|text| ProcessPattern::parse(text).unwrap()),
            ..EndSelector::default()
        },
        to: EndSelector {
            cidr: cidr.map(|text| text.parse().unwrap()),
            port: port.map(|(first, last)| PortRange { first, last }),
            ..EndSelector::default()
        },
        everything: false,
    }
}

fn refuse(selectors: &[Selector]) -> Compiled {
    let source = |(selector, id)| RuleSource {
        selector,
        kernel_fault: Some(id),
        datagrams: false,
        deadline_ns: u64::MAX,
    };
    compile(
        &selectors.iter().zip(1..).map(source).collect::<Vec<_>>(),
        &Tree,
        &ALL,
    )
}

#[test]
fn a_key_holds_the_fields_of_its_mask() {
    let compiled = refuse(&[selector(Some("curl"), Some("10.1.2.3/32"), Some((80, 80)))]);
    assert_eq!((compiled.masks.count, compiled.prefix.len()), (2, 0));
    let kinds = [PORT | EXECUTABLE | ADDRESS, PORT | COMM | ADDRESS];
    assert_eq!(compiled.masks.kinds[..2], kinds);
    let of = |kind| compiled.exact.iter().find(|(key, _)| key.mask == kind).unwrap();
    let (key, value) = of(kinds[0]);
    assert_eq!((key.port, key.prefix_len), (80, 0));
    assert_eq!(key.executable, executable_hash(&padded("curl").unwrap()));
    assert_eq!((value.flags, value.refusals), (0, [1, 0, 0, 0]));
    // Whether it was invoked by that name is for the agent to find out.
    let (invoked, left) = of(kinds[1]);
    assert_eq!(invoked.executable, executable_hash(&comm("curl")));
    assert_eq!((left.flags, left.unless_executable), (REDIRECT, key.executable));
}

#[test]
fn a_prefix_counts_from_the_start_of_the_mapped_address() {
    let compiled = refuse(&[
        selector(None, Some("0.0.0.0/0"), None),
        selector(None, Some("10.0.0.0/8"), None),
    ]);
    let value_of = |bits| {
        let found = compiled
            .prefix
            .iter()
            .find(|(key, _)| key.prefix_len == FIXED_BITS + bits);
        found.unwrap().1.refusals
    };
    assert_eq!(value_of(96), [1, 0, 0, 0]);
    assert_eq!(value_of(104), [1, 2, 0, 0], "the shorter prefix holds there too");
}

#[test]
fn what_the_kernel_cannot_refuse_exactly_goes_to_the_agent() {
    let of = |selectors: &[Selector]| {
        let compiled = refuse(selectors);
        let value = *compiled
            .exact
            .values()
            .chain(compiled.prefix.values())
            .next()
            .unwrap();
        (value.flags, value.refusals)
    };
    let agent = (REDIRECT, [0; 4]);
    assert_eq!(of(&[selector(Some("cur*"), None, None)]), agent);
    assert_eq!(of(&[selector(None, Some("::/0"), None)]), agent);
    assert_eq!(
        of(&[
            selector(None, None, Some((1, 9))),
            selector(None, None, Some((5, 12)))
        ]),
        agent
    );
    let same = selector(None, None, Some((1, 9)));
    assert_eq!(of(&[same.clone(), same.clone()]), (0, [1, 2, 0, 0]));
    assert_eq!(of(&vec![same; 5]), (REDIRECT, [1, 2, 3, 4]));
}

#[test]
fn an_empty_tap_chooses_all_and_no_tap_nothing() {
    let all = compile_taps(&[&Selector::default()], &leaves, &ALL, &Resolved);
    assert_eq!((all.masks.count, all.masks.kinds[0]), (1, 0));
    assert!(all.exact.contains_key(&RuleKey::default()));
    let none = compile_taps(&[], &leaves, &ALL, &Resolved);
    assert_eq!((none.masks.count, none.exact.len()), (1, 0));
}
