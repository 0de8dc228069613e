//! Turns selectors into rules that the kernel finds by look-up, so that its work does not grow with their number.
//!
//! What a rule cannot say is left out of it: it may choose too many connections, never too few. The kernel refuses a
//! connection by itself only where the rule says exactly what the selector says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use spike_common::{
    address::{Address, MAPPED_WORD},
    rule::{
        ADDRESS, Attempt, CGROUP, EXECUTABLE, FIXED_BITS, LEAF, MAX_MASKS, Masks, PORT, PREFIX, REDIRECT,
        RuleKey, RuleValue, TGID, depth,
    },
    task::{EXECUTABLE_LEN, executable_hash, padded},
};

use super::Selector;

/// A selector in force, and who carries out what it is for.
#[derive(Clone, Copy, Debug)]
pub struct RuleSource<'a> {
    /// Which connections.
    pub selector: &'a Selector,
    /// The fault that the kernel can decide alone, never 0; `None` sends the connections to the agent.
    pub kernel_fault: Option<u32>,
}

/// Finds cgroups by their path.
pub trait CgroupIds {
    /// The id of a cgroup and how many levels below the true root it is; the depth is `None` where only a part of
    /// the tree is visible. `None` when there is no such cgroup.
    fn id_and_depth(&self, path: &str) -> Option<(u64, Option<u32>)>;
}

/// What the hooks can do on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// They know the name of the executable.
    pub executable: bool,
    /// They know a process's ancestor cgroup at a depth.
    pub cgroup_depths: bool,
}

/// The rules in the form of the kernel's maps.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The kinds of rule in force.
    pub masks: Masks,
    /// For the hash map.
    pub exact: HashMap<RuleKey, RuleValue>,
    /// For the LPM map; as it finds only the longest prefix, each value holds those of the shorter ones too.
    pub prefix: HashMap<RuleKey, RuleValue>,
}

/// One rule before it meets those with the same key.
#[derive(Clone, Copy, Debug)]
struct Draft {
    key: RuleKey,
    /// First and last port.
    ports: (u16, u16),
    /// The rule says all that the selector says.
    is_exact: bool,
    kernel_fault: Option<u32>,
}

/// Compiles what the connect hooks look up. A selector whose cgroup does not exist gives no rule; compile again when
/// cgroups come and go.
pub fn compile(sources: &[RuleSource<'_>], cgroups: &dyn CgroupIds, can: &Capabilities) -> Compiled {
    let drafts = sources.iter().filter_map(|source| {
        let mut draft = Draft::new(source.selector, can);
        if let Some(path) = restricting_cgroup(source.selector) {
            let (id, depth) = cgroups.id_and_depth(path)?;
            match depth.filter(|&depth| can.cgroup_depths && depth < LEAF) {
                Some(depth) => draft.name_cgroup(depth, id),
                None => draft.is_exact = false,
            }
        }
        draft.kernel_fault = source.kernel_fault.filter(|_| draft.is_exact);
        Some(draft)
    });
    assemble(drafts.collect())
}

/// Compiles what the packet hooks look up for captures: they know a flow's own cgroup but not those above it, so
/// there is a rule for each cgroup of a chosen subtree. `leaf_cgroups` finds their ids, none for an unknown path.
///
/// There is always a kind of rule in force, if only one without rules.
pub fn compile_taps(
    selectors: &[&Selector],
    leaf_cgroups: &dyn Fn(&str) -> Vec<u64>,
    can: &Capabilities,
) -> Compiled {
    let mut drafts = Vec::new();
    for selector in selectors {
        let draft = Draft::new(selector, can);
        match restricting_cgroup(selector) {
            None => drafts.push(draft),
            Some(path) => drafts.extend(leaf_cgroups(path).into_iter().map(|id| {
                let mut draft = draft;
                draft.name_cgroup(LEAF, id);
                draft
            })),
        }
    }
    let mut compiled = assemble(drafts);
    compiled.masks.count = compiled.masks.count.max(1);
    compiled
}

/// What the kernel does with an attempt: whether it sends it to the agent, and which faults it decides itself.
/// `ancestors` gives the caller's cgroup at a depth, and its own for [`LEAF`].
///
/// The same look-ups as in the kernel, on the maps as they are here.
pub fn kernel_would(
    compiled: &Compiled,
    attempt: &Attempt<'_>,
    ancestors: &dyn Fn(u32) -> u64,
) -> (bool, Vec<u32>) {
    let (mut redirect, mut refusals) = (false, Vec::new());
    for &mask in compiled.masks.kinds.iter().take(compiled.masks.count as usize) {
        let cgroup = if mask & CGROUP == 0 {
            0
        } else {
            ancestors(depth(mask))
        };
        let key = RuleKey::of(mask, attempt, cgroup);
        let value = if mask & PREFIX == 0 {
            compiled.exact.get(&key)
        } else {
            let shorter = |bits| compiled.prefix.get(&shortened(key, bits));
            (0..=128).rev().find_map(shorter)
        };
        if let Some(value) = value.filter(|value| value.covers(attempt.destination.port)) {
            redirect |= value.flags & REDIRECT != 0;
            refusals.extend(value.refusals.iter().filter(|&&fault| fault != 0));
        }
    }
    (redirect, refusals)
}

/// The cgroup that callers must be in; everyone is in `/`.
fn restricting_cgroup(selector: &Selector) -> Option<&str> {
    selector.from.cgroup.as_deref().filter(|&path| path != "/")
}

/// The LPM key of the first `bits` bits of the address.
fn shortened(key: RuleKey, bits: u32) -> RuleKey {
    RuleKey {
        prefix_len: FIXED_BITS + bits,
        address: key.address.masked(bits),
        ..key
    }
}

impl Draft {
    /// All of the selector but its cgroup.
    fn new(selector: &Selector, can: &Capabilities) -> Self {
        let mut draft = Self {
            key: RuleKey::default(),
            ports: (0, u16::MAX),
            is_exact: true,
            kernel_fault: None,
        };
        if let Some(pid) = selector.from.pid {
            draft.key.mask |= TGID;
            draft.key.tgid = pid;
        }
        if let Some(pattern) = &selector.from.process {
            let name = pattern.exact_name().filter(|_| can.executable);
            if let Some(name) = name.and_then(padded) {
                draft.key.mask |= EXECUTABLE;
                draft.key.executable = executable_hash(&name);
                // One that fills the field may be a longer name that was cut.
                draft.is_exact = name[EXECUTABLE_LEN - 2] == 0;
            } else {
                draft.is_exact = false;
            }
        }
        if let Some(range) = selector.to.port {
            draft.ports = (range.first, range.last);
            if range.first == range.last {
                draft.key.mask |= PORT;
                draft.key.port = range.first;
            }
        }
        if let Some(network) = selector.to.cidr {
            draft.name_network(network);
        }
        draft
    }

    fn name_network(&mut self, network: IpNet) {
        let from_front = match network {
            IpNet::V4(v4) => 96 + u32::from(v4.prefix_len()),
            IpNet::V6(v6) => u32::from(v6.prefix_len()),
        };
        self.key.address = Address::from(network.addr()).masked(from_front);
        if from_front == 128 {
            self.key.mask |= ADDRESS;
            return;
        }
        self.key.mask |= PREFIX;
        self.key.prefix_len = FIXED_BITS + from_front;
        // A network such as `::/0` has all of IPv4 in its mapped form below it, but does not mean it.
        let has_ipv4_below = Address([0, 0, MAPPED_WORD, 0]).masked(from_front) == self.key.address;
        if has_ipv4_below && matches!(network, IpNet::V6(_)) {
            self.is_exact = false;
        }
    }

    fn name_cgroup(&mut self, depth: u32, id: u64) {
        self.key.mask |= CGROUP | depth << 8;
        self.key.cgroup = id;
    }

    fn value(&self) -> RuleValue {
        let mut value = RuleValue {
            port_first: self.ports.0,
            port_last: self.ports.1,
            ..RuleValue::default()
        };
        match self.kernel_fault {
            Some(fault) => value.refusals[0] = fault,
            None => value.flags = REDIRECT,
        }
        value
    }

    /// Leaves out one of the fields that a kind can do without.
    fn coarsen(&mut self) {
        self.is_exact = false;
        self.kernel_fault = None;
        if self.key.mask & EXECUTABLE != 0 {
            self.key.mask &= !EXECUTABLE;
            self.key.executable = 0;
        } else if self.key.mask & TGID != 0 {
            self.key.mask &= !TGID;
            self.key.tgid = 0;
        } else {
            self.key.mask &= !(CGROUP | LEAF << 8);
            self.key.cgroup = 0;
        }
    }
}

/// Fits the rules into the kinds that there can be, and merges those that share a key.
fn assemble(drafts: Vec<Draft>) -> Compiled {
    let mut by_kind = BTreeMap::<u32, Vec<Draft>>::new();
    for draft in drafts {
        by_kind.entry(draft.key.mask).or_default().push(draft);
    }
    while by_kind.len() > MAX_MASKS {
        let droppable = |mask: u32| mask & (EXECUTABLE | TGID | CGROUP) != 0;
        let kinds = by_kind.iter().filter(|&(&mask, _)| droppable(mask));
        // The six kinds without such a field fit, so there is one.
        let Some(rarest) = kinds
            .min_by_key(|(_, drafts)| drafts.len())
            .map(|(&mask, _)| mask)
        else {
            break;
        };
        for mut draft in by_kind.remove(&rarest).unwrap_or_default() {
            draft.coarsen();
            by_kind.entry(draft.key.mask).or_default().push(draft);
        }
    }
    let mut compiled = Compiled::default();
    for (slot, &mask) in compiled.masks.kinds.iter_mut().zip(by_kind.keys()) {
        *slot = mask;
        compiled.masks.count += 1;
    }
    for draft in by_kind.values().flatten() {
        let map = if draft.key.mask & PREFIX == 0 {
            &mut compiled.exact
        } else {
            &mut compiled.prefix
        };
        let value = draft.value();
        map.entry(draft.key)
            .and_modify(|merged| *merged = merge(*merged, value))
            .or_insert(value);
    }
    compiled.prefix = with_shorter_prefixes(&compiled.prefix);
    compiled
}

/// Adds to each prefix what holds for the shorter ones around it.
fn with_shorter_prefixes(rules: &HashMap<RuleKey, RuleValue>) -> HashMap<RuleKey, RuleValue> {
    let lengths: BTreeSet<u32> = rules.keys().map(|key| key.prefix_len - FIXED_BITS).collect();
    let complete = |(key, value): (&RuleKey, &RuleValue)| {
        let shorter = lengths.range(..key.prefix_len - FIXED_BITS);
        let around = shorter.filter_map(|&bits| rules.get(&shortened(*key, bits)));
        (*key, around.fold(*value, |merged, &other| merge(merged, other)))
    };
    rules.iter().map(complete).collect()
}

/// One value that chooses all that either chooses. What the kernel would then refuse by mistake goes to the agent.
fn merge(a: RuleValue, b: RuleValue) -> RuleValue {
    let mut merged = RuleValue {
        flags: a.flags | b.flags,
        port_first: a.port_first.min(b.port_first),
        port_last: a.port_last.max(b.port_last),
        ..RuleValue::default()
    };
    let refusals: BTreeSet<u32> = a
        .refusals
        .into_iter()
        .chain(b.refusals)
        .filter(|&fault| fault != 0)
        .collect();
    let same_ports = (a.port_first, a.port_last) == (b.port_first, b.port_last);
    if !same_ports && !refusals.is_empty() || refusals.len() > merged.refusals.len() {
        merged.flags |= REDIRECT;
    }
    if same_ports {
        for (slot, fault) in merged.refusals.iter_mut().zip(refusals) {
            *slot = fault;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::{collection::vec, option, prelude::*, sample::select};
    use spike_common::{address::Endpoint, task::Task};

    use super::*;
    use crate::model::{Caller, EndSelector, PortRange, ProcessPattern};

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
            uid: 0,
        };
        let attempt = Attempt {
            task: &task,
            executable: if can.executable {
                executable_hash(&executable)
            } else {
                0
            },
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
            "a-name-of-thirty-one-characters",
        ]);
        let cgroup = select(vec!["/", "/a", "/a/b", "/ab", "/gone"]);
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
        let from = (
            option::weighted(0.4, process),
            option::weighted(0.2, 7..9_u32),
            option::weighted(0.4, cgroup),
        );
        let to = (option::weighted(0.7, cidr), option::weighted(0.4, port));
        (from, to).prop_map(|((process, pid, cgroup), (cidr, port))| Selector {
            from: EndSelector {
                process: process.map(|text| ProcessPattern::parse(text).unwrap()),
                pid,
                cgroup: cgroup.map(str::to_owned),
                ..EndSelector::default()
            },
            to: EndSelector {
                cidr: cidr.map(|text| text.parse().unwrap()),
                port: port.map(|(first, last)| PortRange { first, last }),
                ..EndSelector::default()
            },
            everything: false,
        })
    }

    fn callers() -> impl Strategy<Value = Caller> {
        let exe = select(vec![
            "/usr/bin/curl",
            "curl",
            "/bin/wget",
            "/opt/a-name-of-thirty-one-characters",
        ]);
        let cgroup = select(CGROUPS.to_vec());
        (exe, 7..10_u32, cgroup).prop_map(|(exe, pid, cgroup)| Caller {
            pid,
            exe: exe.to_owned(),
            cgroup: cgroup.0.to_owned(),
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
            if is_there && selector.matches(caller, to) {
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
            let source = RuleSource { selector: &selector, kernel_fault: Some(9) };
            let compiled = compile(&[source], &Tree, &ALL);
            for to in to {
                let (redirect, refusals) = ask(&compiled, &caller, to, &ALL);
                let is_exact = compiled.exact.values().chain(compiled.prefix.values()).all(|value| value.flags == 0);
                if is_exact {
                    prop_assert!(!redirect);
                    prop_assert_eq!(selector.matches(&caller, to), refusals == [9]);
                }
            }
        }

        #[test]
        fn taps_see_what_a_selector_chooses(
            selectors in vec(selectors(), 0..6),
            caller in callers(),
            to in destinations(),
        ) {
            let compiled = compile_taps(&selectors.iter().collect::<Vec<_>>(), &leaves, &ALL);
            prop_assert!(compiled.masks.count >= 1);
            let (seen, refusals) = ask(&compiled, &caller, to, &ALL);
            prop_assert!(refusals.is_empty());
            prop_assert!(seen || !selectors.iter().any(|selector| selector.matches(&caller, to)));
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
        let (key, value) = compiled.exact.iter().next().unwrap();
        assert_eq!((compiled.masks.count, compiled.prefix.len()), (1, 0));
        assert_eq!(compiled.masks.kinds[0], PORT | EXECUTABLE | ADDRESS);
        assert_eq!(
            (key.mask, key.port, key.prefix_len),
            (compiled.masks.kinds[0], 80, 0)
        );
        assert_eq!(key.executable, executable_hash(&padded("curl").unwrap()));
        assert_eq!((value.flags, value.refusals), (0, [1, 0, 0, 0]));
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
        let all = compile_taps(&[&Selector::default()], &leaves, &ALL);
        assert_eq!((all.masks.count, all.masks.kinds[0]), (1, 0));
        assert!(all.exact.contains_key(&RuleKey::default()));
        let none = compile_taps(&[], &leaves, &ALL);
        assert_eq!((none.masks.count, none.exact.len()), (1, 0));
    }
}
