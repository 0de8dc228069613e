//! Copies the packets that a capture chose to the agent; attached only while one runs.

mod slots;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_skb_load_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use spike_common::address::Endpoint;
use spike_common::config::Config;
use spike_common::counter::Counter;
use spike_common::packet::{
    EGRESS, FLOW_OWN, FLOW_REDIRECTED, MAX_BYTES, PacketHeader, TASK_KNOWN, TASK_SENDS, TASK_SERVES, TapLink,
    link_key,
};
use spike_common::rule::{Attempt, MAX_MASKS};
use spike_common::socket::{Flow, FlowKey, OWN, REDIRECTED, SERVER};
use spike_common::task::{Task, executable_hash};

use crate::maps::{CONFIG, FLOWS, PACKETS, SCRATCH, TAP_LINKS, TAP_SLOT, TAPS_EXACT, TAPS_PREFIX};
use crate::support::headers::{Ends, IPPROTO_TCP};
use crate::support::{counts, rules};

/// "Not my business": the next program, if any, decides (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;

#[classifier]
fn spike_tap_egress(ctx: TcContext) -> i32 {
    _ = tap(ctx.skb.skb, EGRESS);
    NEXT
}

#[classifier]
fn spike_tap_ingress(ctx: TcContext) -> i32 {
    _ = tap(ctx.skb.skb, 0);
    NEXT
}

#[inline(always)]
fn tap(skb: *mut __sk_buff, direction: u32) -> Option<()> {
    let config = CONFIG.get(0)?;
    let slot = slot()?;
    // SAFETY: a context field; the map's values are replaced whole.
    let link = unsafe { *TAP_LINKS.get(link_key(slot, (*skb).ifindex))? };
    // SAFETY: a helper without arguments.
    let scratch = SCRATCH.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })?;
    // SAFETY: this CPU's element; these hooks run with soft interrupts off, so none other uses it meanwhile.
    let header = unsafe { &mut (*scratch).header };
    header.flags = direction;
    header.slot = slot;
    if !chosen(config, skb, &link, header) {
        return None;
    }
    // SAFETY: context fields and a helper without arguments.
    unsafe {
        header.boot_ns = bpf_ktime_get_boot_ns();
        header.ifindex = (*skb).ifindex;
        header.length = (*skb).len;
    }
    let wanted = header.length.min(config.tap_snaplen);
    // The verifier must see both bounds on the very register that the helper gets, and before kernel 6.8 it learns
    // nothing from a comparison with 0.
    let less_one = core::hint::black_box(wanted.wrapping_sub(1));
    if less_one >= MAX_BYTES as u32 {
        return None;
    }
    let length = less_one + 1;
    header.captured = length;
    // SAFETY: the scratch holds a header and MAX_BYTES bytes, and `length` is checked against that.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*scratch).bytes).cast(), length) != 0 {
            return None;
        }
        let size = size_of::<PacketHeader>() as u64 + u64::from(length);
        if bpf_ringbuf_output((&raw const PACKETS).cast_mut().cast(), scratch.cast(), size, 0) != 0 {
            counts::count(Counter::TapRingFull);
        }
    }
    Some(())
}

/// The namespace that the packet is seen in: the agent's own, unless a tap of another one came before.
#[inline(always)]
fn slot() -> Option<u32> {
    let slot = TAP_SLOT.get_ptr_mut(0)?;
    // SAFETY: this CPU's element.
    unsafe {
        let number = *slot;
        *slot = 0;
        Some(number)
    }
}

/// Whether a capture wants the packet; fills in whose it is.
#[inline(always)]
fn chosen(config: &'static Config, skb: *mut __sk_buff, link: &TapLink, header: &mut PacketHeader) -> bool {
    header.task = Task::default();
    header.original = Endpoint::default();
    header.cookie = 0;
    let mut caller = Task::default();
    // Neither IPv4 nor IPv6: only a capture of everything has it.
    let mut destinations = [Endpoint::default(); 2];
    if let Some(ends) = Ends::read(skb, link.header) {
        let owner = if ends.protocol == IPPROTO_TCP {
            owner(link.netns, &ends)
        } else {
            None
        };
        if let Some((flow, sends)) = owner {
            header.task = flow.task;
            header.original = flow.original;
            header.cookie = flow.cookie;
            if flow.flags & OWN != 0 {
                // Whose call it carries the agent knows.
                header.flags |= FLOW_OWN;
                if sends {
                    header.flags |= TASK_SENDS;
                }
                return config.tap_skips_own == 0;
            }
            destinations = [flow.original; 2];
            header.flags |= TASK_KNOWN;
            if sends {
                header.flags |= TASK_SENDS;
            }
            if flow.flags & REDIRECTED != 0 {
                header.flags |= FLOW_REDIRECTED;
            }
            if flow.flags & SERVER != 0 {
                // Selectors name callers, and this one's is elsewhere.
                header.flags |= TASK_SERVES;
            } else {
                caller = flow.task;
            }
        } else {
            // Nobody's: either end may be the one that a selector names.
            destinations = [ends.destination, ends.source];
        }
    }
    wanted(config, &caller, &destinations)
}

/// The known end of a flow, and whether it sends this packet; `netns` is the cookie of the packet's namespace.
#[inline(always)]
pub(super) fn owner(netns: u64, ends: &Ends) -> Option<(&'static Flow, bool)> {
    // SAFETY: used at once; an entry that is replaced meanwhile costs one packet's comment.
    unsafe {
        if let Some(flow) = FLOWS.get(FlowKey::new(netns, ends.source, ends.destination)) {
            return Some((flow, true));
        }
        FLOWS
            .get(FlowKey::new(netns, ends.destination, ends.source))
            .map(|flow| (flow, false))
    }
}

/// Called from one place only: the verifier follows every way through every kind of rule for each.
#[inline(always)]
fn wanted(config: &'static Config, caller: &Task, destinations: &[Endpoint; 2]) -> bool {
    let executable = executable_hash(&caller.executable);
    for index in 0..MAX_MASKS {
        if index >= config.tap.count as usize {
            return false;
        }
        for destination in destinations {
            let attempt = Attempt {
                task: caller,
                executable,
                // Of a flow these are not kept; there are no such rules for captures.
                comm: 0,
                name: 0,
                netns: 0,
                destination,
            };
            // A flow's ancestors are no longer known: captures file their rules under the process's own cgroup.
            if rules::find(&config.tap, index, &attempt, &TAPS_EXACT, &TAPS_PREFIX, |_| {
                caller.cgroup
            })
            .is_some()
            {
                return true;
            }
        }
    }
    false
}
