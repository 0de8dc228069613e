//! Turns selectors into rules that the kernel finds by look-up, so that its work does not grow with their number.
//!
//! What a rule cannot say is left out of it: it may choose too many connections, never too few. The kernel refuses a
//! connection by itself only where the rule says exactly what the selector says.

mod draft;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use spike_common::rule::{
    Attempt, CGROUP, FIXED_BITS, LEAF, MAX_MASKS, Masks, PREFIX, REDIRECT, RuleKey, RuleValue, depth,
};

use self::draft::{Draft, Hook};
use super::{EndSelector, NamePattern, Netns, Selector};

/// A selector in force, and who carries out what it is for.
#[derive(Clone, Copy, Debug)]
pub struct RuleSource<'a> {
    /// Which connections.
    pub selector: &'a Selector,
    /// The fault that the kernel can decide alone, never 0; `None` sends the connections to the agent.
    pub kernel_fault: Option<u32>,
    /// UDP datagrams are meant, not TCP connections.
    pub datagrams: bool,
    /// When it ends, on the hooks' clock (`CLOCK_MONOTONIC`, nanoseconds).
    pub deadline_ns: u64,
}

/// Finds cgroups by their path.
pub trait CgroupIds {
    /// The id of a cgroup and how many levels below the true root it is; the depth is `None` where only a part of
    /// the tree is visible. `None` when there is no such cgroup.
    fn id_and_depth(&self, path: &str) -> Option<(u64, Option<u32>)>;
}

/// What selectors name, as it is on this host now. What is not known gives no rule.
pub trait Identities: CgroupIds {
    /// The number of a user.
    fn uid(&self, _name: &str) -> Option<u32> {
        None
    }

    /// The kernel's cookies of the network namespaces that are meant.
    fn netns_cookies(&self, _netns: &Netns) -> Vec<u64> {
        Vec::new()
    }

    /// Where the processes listen that `to` means; no address for all of a namespace's.
    fn listeners(&self, _to: &EndSelector) -> Vec<(Option<IpAddr>, u16)> {
        Vec::new()
    }

    /// The addresses that hosts of such names are known to have.
    fn addresses(&self, _host: &NamePattern) -> Vec<IpAddr> {
        Vec::new()
    }

    /// The names of the executables of running processes that were invoked by this other name.
    fn executables_invoked_as(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }
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

/// Compiles what the connect hooks look up. A selector of something that does not exist gives no rule; compile again
/// when such things come and go.
pub fn compile(sources: &[RuleSource<'_>], known: &dyn Identities, can: &Capabilities) -> Compiled {
    let mut drafts = Vec::new();
    for source in sources {
        let cgroup = match restricting_cgroup(source.selector) {
            Some(path) => match known.id_and_depth(path) {
                Some(found) => Some(found),
                None => continue,
            },
            None => None,
        };
        for mut draft in Draft::all(source.selector, Hook::Connect, can, known) {
            if let Some((id, depth)) = cgroup {
                match depth.filter(|&depth| can.cgroup_depths && depth < LEAF) {
                    Some(depth) => draft.name_cgroup(depth, id),
                    None => draft.is_exact = false,
                }
            }
            draft.kernel_fault = source.kernel_fault.filter(|_| draft.is_exact);
            draft.datagrams = source.datagrams;
            draft.deadline_ns = source.deadline_ns;
            drafts.push(draft);
        }
    }
    assemble(drafts)
}

/// Compiles what the packet hooks look up for captures: they know a flow's own cgroup but not those above it, so
/// there is a rule for each cgroup of a chosen subtree. `leaf_cgroups` finds their ids, none for an unknown path.
///
/// There is always a kind of rule in force, if only one without rules.
pub fn compile_taps(
    selectors: &[&Selector],
    leaf_cgroups: &dyn Fn(&str) -> Vec<u64>,
    can: &Capabilities,
    known: &dyn Identities,
) -> Compiled {
    let mut drafts = Vec::new();
    for selector in selectors {
        let own = Draft::all(selector, Hook::Tap, can, known);
        match restricting_cgroup(selector) {
            None => drafts.extend(own),
            Some(path) => {
                for id in leaf_cgroups(path) {
                    drafts.extend(own.iter().map(|draft| {
                        let mut draft = *draft;
                        draft.name_cgroup(LEAF, id);
                        draft
                    }));
                }
            }
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
        if let Some(value) = value.filter(|value| value.covers(attempt)) {
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

/// Fits the rules into the kinds that there can be, and merges those that share a key.
fn assemble(drafts: Vec<Draft>) -> Compiled {
    let mut by_kind = BTreeMap::<u32, Vec<Draft>>::new();
    for draft in drafts {
        by_kind.entry(draft.key.mask).or_default().push(draft);
    }
    while by_kind.len() > MAX_MASKS {
        let kinds = by_kind.iter().filter(|&(&mask, _)| Draft::can_coarsen(mask));
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
        deadline_ns: a.deadline_ns.max(b.deadline_ns),
        port_first: a.port_first.min(b.port_first),
        port_last: a.port_last.max(b.port_last),
        unless_executable: if a.unless_executable == b.unless_executable {
            a.unless_executable
        } else {
            0
        },
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
mod tests;
