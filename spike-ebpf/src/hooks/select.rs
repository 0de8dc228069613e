//! Finds the rules that a connection or a datagram falls under.

use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_ktime_get_ns};
use spike_common::address::Endpoint;
use spike_common::chance::chosen;
use spike_common::config::{Config, HEARTBEAT_LIMIT_NS};
use spike_common::rule::{Attempt, CGROUP, MAX_MASKS, MAX_REFUSALS, RuleValue, depth};
use spike_common::socket::Socket;
use spike_common::task::executable_hash;

use crate::maps::{AGENT_FLAGS, FAULTS, HEARTBEAT, RULES_EXACT, RULES_PREFIX};
use crate::support::{counts, names, rules, tasks};

/// What the rules say.
pub(super) struct Selected {
    /// Of all rules that are not past their end.
    pub(super) flags: u32,
    /// One of the faults that are decided here hit.
    pub(super) refused: bool,
}

/// Asks each kind of rule; `refuses` says whether those faults are asked that are decided here.
#[inline(always)]
pub(super) fn select(
    config: &'static Config,
    socket: &Socket,
    destination: &Endpoint,
    refuses: bool,
) -> Selected {
    let attempt = Attempt {
        task: &socket.task,
        executable: executable_hash(&socket.task.executable),
        comm: tasks::comm(),
        name: names::name(socket.task.cgroup, destination.address),
        netns: socket.netns,
        destination,
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut selected = Selected {
        flags: 0,
        refused: false,
    };
    for index in 0..MAX_MASKS {
        if index >= config.intercept.count as usize {
            break;
        }
        let rule = rules::find(
            &config.intercept,
            index,
            &attempt,
            &RULES_EXACT,
            &RULES_PREFIX,
            ancestor,
        );
        let Some(rule) = rule else { continue };
        if now < rule.deadline_ns {
            selected.flags |= rule.flags;
        }
        if refuses && refused(rule, now) {
            selected.refused = true;
            break;
        }
    }
    selected
}

#[inline(always)]
fn ancestor(mask: u32) -> u64 {
    if mask & CGROUP == 0 {
        return 0;
    }
    // SAFETY: the helper checks the depth.
    unsafe { bpf_get_current_ancestor_cgroup_id(depth(mask) as i32) }
}

/// Whether one of the rule's kernel-decided faults hits.
#[inline(always)]
fn refused(rule: &RuleValue, now: u64) -> bool {
    for slot in 0..MAX_REFUSALS {
        let id = rule.refusals[slot];
        if id == 0 {
            return false;
        }
        let Some(fault) = FAULTS.get_ptr_mut(id) else {
            continue;
        };
        // SAFETY: a map value; the numbers that change are only added to, atomically.
        unsafe {
            if now >= (*fault).deadline_ns {
                continue;
            }
            let n = (*fault).matched;
            counts::add(&raw mut (*fault).matched, 1);
            if chosen((*fault).seed, n, (*fault).threshold) {
                counts::add(&raw mut (*fault).affected, 1);
                return true;
            }
        }
    }
    false
}

/// Whether the agent ran lately, and was not killed since: neither a stopped nor a dying one may get new calls. A killed
/// one has its listeners and hooks for some milliseconds more.
#[inline(always)]
pub(super) fn live() -> bool {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let ran = HEARTBEAT
        .get(0)
        .is_some_and(|&beat| now < beat.saturating_add(HEARTBEAT_LIMIT_NS));
    ran && AGENT_FLAGS
        .get(0)
        .is_none_or(|&address| !tasks::is_ending(address))
}
