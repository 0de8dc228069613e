//! Looks a connection up among the rules in force.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{HashMap, LpmTrie};
use spike_common::rule::{Attempt, MAX_MASKS, Masks, PREFIX, RuleKey, RuleValue};

use crate::maps::PrefixData;

/// The rule of the `index`-th kind in force that the attempt falls under; `cgroup` gives the caller's ancestor for a
/// kind.
#[inline(always)]
pub(crate) fn find(
    masks: &Masks,
    index: usize,
    attempt: &Attempt<'_>,
    exact: &'static HashMap<RuleKey, RuleValue>,
    prefix: &'static LpmTrie<PrefixData, RuleValue>,
    cgroup: impl Fn(u32) -> u64,
) -> Option<&'static RuleValue> {
    if index >= MAX_MASKS {
        return None;
    }
    let mask = masks.kinds[index];
    let key = RuleKey::of(mask, attempt, cgroup(mask));
    let value = if mask & PREFIX != 0 {
        // SAFETY: `Key` is packed: the prefix length, then the bytes that follow it in `RuleKey`.
        prefix.get(unsafe { &*(&raw const key).cast::<Key<PrefixData>>() })
    } else {
        // SAFETY: values are replaced whole by the agent and not freed while a program runs.
        unsafe { exact.get(key) }
    };
    value.filter(|value| value.covers(attempt))
}
