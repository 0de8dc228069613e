//! Loses, doubles, damages and delays the packets that faults chose; attached only to interfaces that have such faults.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::Global;
use aya_ebpf::bindings::{
    __sk_buff, BPF_CSUM_LEVEL_RESET, BPF_F_CURRENT_NETNS, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0,
    BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_sock, bpf_sock_tuple,
};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_csum_level, bpf_ktime_get_ns, bpf_l4_csum_replace, bpf_probe_read_kernel,
    bpf_redirect, bpf_sk_fullsock, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_store_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use spike_common::address::Endpoint;
use spike_common::chance::roll;
use spike_common::packet_fault::{
    CGROUP, CORRUPT, DROP, DUPLICATE, FIX_CHECKSUM, HOLD, LINK_CORRUPTS, LINK_LOOPBACK, LinkKey,
    MAX_AHEAD_NS, MAX_LINK_FAULTS, PacketCgroup, PacketFault, PacketFlow, PacketFlowKey, PacketLink, RATE,
    REQUEST, RESPONSE, Seen, burst,
};
use spike_common::socket::{DATAGRAMS, REDIRECTED, SERVER, Socket};
use spike_common::task::executable_hash;

use super::select::live;
use super::tap::owner;
use crate::maps::{
    PACKET_CGROUPS, PACKET_COUNTS, PACKET_FAULTS, PACKET_FLOWS, PACKET_LINKS, PACKET_SCRATCH, PACKET_STATES,
};
use crate::support::headers::{Ends, IPPROTO_TCP, IPPROTO_UDP, load};
use crate::support::{counts, storage};

/// "Not my business": the next program, if any, decides (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
/// Marks the second of two packets in its control block, so that it is not met by the faults of its interface again.
const COPY: u32 = 0x7350_696b;

/// `sk_buff.dev`: an offset in bytes from the kernel's BTF, set by the agent before loading; this and those below are
/// 0 when it could not be read.
#[unsafe(no_mangle)]
static OFFSET_SKB_DEV: Global<u32> = Global::new(0);
/// `net_device.nd_net.net`.
#[unsafe(no_mangle)]
static OFFSET_DEV_NET: Global<u32> = Global::new(0);
/// `net.ns.inum`.
#[unsafe(no_mangle)]
static OFFSET_NET_INUM: Global<u32> = Global::new(0);

#[classifier]
fn spike_packets_out(ctx: TcContext) -> i32 {
    packet(ctx.skb.skb, true)
}

#[classifier]
fn spike_packets_in(ctx: TcContext) -> i32 {
    packet(ctx.skb.skb, false)
}

/// What the faults decided together.
#[derive(Default)]
struct Verdict {
    drop: u32,
    duplicate: u32,
    /// How many bits are turned, and whether the checksum is made to fit.
    bits: u32,
    fix: u32,
    /// Which bits.
    chance: u32,
    /// When it leaves (`CLOCK_MONOTONIC`, nanoseconds); 0 for at once.
    departs_ns: u64,
}

/// A packet while it is looked at, too large for the stack.
#[repr(C)]
pub(crate) struct FaultScratch {
    seen: Seen,
    /// The caller's cgroup.
    cgroup: u64,
    protocol: u32,
    payload: Payload,
    key: PacketFlowKey,
    flow: PacketFlow,
}

/// Where the payload of a packet lies, and the checksum over it.
#[repr(C)]
struct Payload {
    checksum_flags: u64,
    checksum: u32,
    start: u32,
    /// Length in 16-bit words; 0 too where it is not to be touched.
    words: u32,
}

#[inline(always)]
fn packet(skb: *mut __sk_buff, leaves: bool) -> i32 {
    if !live() {
        return NEXT;
    }
    let key = LinkKey {
        netns: netns(skb),
        // SAFETY: a context field.
        ifindex: unsafe { (*skb).ifindex },
    };
    // SAFETY: entries are replaced whole.
    let Some(link) = (unsafe { PACKET_LINKS.get(key) }) else {
        return NEXT;
    };
    if is_copy(skb, &key) {
        return NEXT;
    }
    let Some(scratch) = PACKET_SCRATCH.get_ptr_mut(0) else {
        return NEXT;
    };
    // SAFETY: this CPU's element; these hooks run with soft interrupts off, and a copy, which is met within a run, has
    // returned above.
    let scratch = unsafe { &mut *scratch };
    see(skb, link, leaves, scratch);
    let verdict = decide(skb, link, leaves, scratch);
    apply(skb, &key, leaves, &scratch.payload, &verdict)
}

/// Asks each fault of the interface. What they decide is carried out after, so that the verifier need not follow every
/// order of effects.
#[inline(always)]
fn decide(skb: *mut __sk_buff, link: &PacketLink, leaves: bool, scratch: &mut FaultScratch) -> Verdict {
    let mut verdict = Verdict::default();
    // SAFETY: a helper without arguments, and a context field.
    let (now, length) = unsafe { (bpf_ktime_get_ns(), (*skb).wire_len) };
    for index in 0..MAX_LINK_FAULTS {
        if index >= link.count as usize {
            break;
        }
        let id = link.faults[index];
        // SAFETY: entries are replaced whole.
        let Some(fault) = (unsafe { PACKET_FAULTS.get(id) }) else {
            continue;
        };
        if !fault.looks(leaves, link.flags) {
            continue;
        }
        let way = fault.takes(&scratch.seen);
        if way == 0 || now >= fault.deadline_ns || fault.kind == CORRUPT && scratch.payload.words == 0 {
            continue;
        }
        if fault.keys & CGROUP != 0 && !listed(id, scratch.cgroup) {
            continue;
        }
        let Some(counts) = PACKET_COUNTS.get_ptr_mut(id) else {
            continue;
        };
        // SAFETY: a map value.
        unsafe { counts::add(&raw mut (*counts).matched, 1) };
        let Some(flow) = flow(id, fault, scratch, way) else {
            continue;
        };
        let Some(hit) = fault.hits(flow, way) else {
            continue;
        };
        match fault.kind {
            DROP => verdict.drop = 1,
            DUPLICATE => verdict.duplicate = 1,
            CORRUPT => {
                verdict.bits = fault.bits;
                verdict.fix = fault.flags & FIX_CHECKSUM;
                verdict.chance = roll(hit.seed, hit.number);
            }
            HOLD => verdict.departs_ns = verdict.departs_ns.max(now) + fault.hold_ns(&hit),
            RATE => {
                let Some(state) = PACKET_STATES.get_ptr_mut(id) else {
                    continue;
                };
                // SAFETY: a map value. Two CPUs may read the same time; the rate is then exceeded by one packet.
                unsafe {
                    let ready = verdict.departs_ns.max(now);
                    match fault.departs_ns(ready, (*state).free_ns, length) {
                        Some((at, free)) => {
                            (*state).free_ns = free;
                            verdict.departs_ns = at;
                        }
                        None => verdict.drop = 1,
                    }
                }
            }
            _ => continue,
        }
        // SAFETY: a map value.
        unsafe { counts::add(&raw mut (*counts).affected, 1) };
    }
    verdict
}

#[inline(always)]
fn listed(fault: u32, cgroup: u64) -> bool {
    let key = PacketCgroup {
        cgroup,
        fault,
        padding: 0,
    };
    // SAFETY: only whether it is there matters.
    unsafe { PACKET_CGROUPS.get(key) }.is_some()
}

/// What the fault knows of the packet's flow; a new one is numbered.
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value the key and the flow would be copied to the hook's stack of 512 bytes"
)]
#[inline(always)]
fn flow(
    id: u32,
    fault: &PacketFault,
    scratch: &mut FaultScratch,
    way: u32,
) -> Option<&'static mut PacketFlow> {
    let (seen, key) = (&scratch.seen, &mut scratch.key);
    key.fault = id;
    key.protocol = scratch.protocol;
    // The packet's two ends, but for a redirected flow, of which the called one is where the application asked to go.
    if way == REQUEST {
        key.caller = seen.response_from;
        key.called = seen.request_to;
    } else {
        key.caller = seen.request_to;
        key.called = seen.response_from;
    }
    if let Some(flow) = PACKET_FLOWS.get_ptr_mut(&*key) {
        // SAFETY: a map value; packets of a flow that meet on two CPUs may get the same number.
        return Some(unsafe { &mut *flow });
    }
    let state = PACKET_STATES.get_ptr_mut(id)?;
    // SAFETY: a map value.
    let number = unsafe {
        let number = (*state).flows;
        counts::add(&raw mut (*state).flows, 1);
        number
    };
    scratch.flow = fault.begin(number);
    PACKET_FLOWS.insert(&*key, &scratch.flow, 0).ok()?;
    // SAFETY: as above.
    PACKET_FLOWS.get_ptr_mut(&*key).map(|flow| unsafe { &mut *flow })
}

/// Fills in who calls, which way the packet goes, as far as it is known, and where its payload lies.
#[inline(always)]
fn see(skb: *mut __sk_buff, link: &PacketLink, leaves: bool, scratch: &mut FaultScratch) {
    scratch.cgroup = 0;
    scratch.protocol = 0;
    scratch.payload.words = 0;
    let seen = &mut scratch.seen;
    seen.tgid = 0;
    seen.executable = 0;
    seen.ways = 0;
    // What the loopback device shows is seen when it arrives there.
    seen.leaves = leaves || link.flags & LINK_LOOPBACK != 0;
    let Some(ends) = Ends::read(skb, link.header) else {
        seen.request_to = Endpoint::default();
        seen.response_from = Endpoint::default();
        return;
    };
    scratch.protocol = u32::from(ends.protocol);
    seen.ways = REQUEST | RESPONSE;
    seen.request_to = ends.destination;
    seen.response_from = ends.source;
    if link.flags & LINK_CORRUPTS != 0 && ends.transport != 0 {
        _ = find_payload(skb, &ends, &mut scratch.payload);
    }
    let task = if ends.protocol == IPPROTO_TCP {
        let Some((flow, sends)) = owner(link.cookie, &ends) else {
            return;
        };
        let serves = flow.flags & SERVER != 0;
        seen.ways = if sends == serves { RESPONSE } else { REQUEST };
        if flow.flags & REDIRECTED != 0 {
            if sends {
                seen.request_to = flow.original;
            } else {
                seen.response_from = flow.original;
            }
        }
        if serves {
            return;
        }
        &flow.task
    } else if ends.protocol == IPPROTO_UDP {
        let socket = if leaves { sender(skb) } else { receiver(skb, &ends) };
        let Some(socket) = socket else { return };
        if socket.flags & DATAGRAMS == 0 {
            return;
        }
        seen.ways = if leaves { REQUEST } else { RESPONSE };
        &socket.task
    } else {
        return;
    };
    seen.tgid = task.tgid;
    seen.executable = executable_hash(&task.executable);
    scratch.cgroup = task.cgroup;
}

/// The state of the socket that sends a packet, if it is of this host and has any.
#[inline(always)]
fn sender(skb: *mut __sk_buff) -> Option<&'static mut Socket> {
    // SAFETY: a context field; null is checked before each use.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let full: *mut bpf_sock = bpf_sk_fullsock(sk);
        if full.is_null() {
            return None;
        }
        storage::get(full)
    }
}

/// The state of the UDP socket that a packet arrives for.
#[inline(always)]
fn receiver(skb: *mut __sk_buff, ends: &Ends) -> Option<&'static mut Socket> {
    // SAFETY: an all-zero tuple is valid.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let (source, destination) = (&ends.source, &ends.destination);
    let size = if source.address.is_ipv4() {
        tuple.__bindgen_anon_1.ipv4.saddr = source.address.0[3];
        tuple.__bindgen_anon_1.ipv4.daddr = destination.address.0[3];
        tuple.__bindgen_anon_1.ipv4.sport = source.port.to_be();
        tuple.__bindgen_anon_1.ipv4.dport = destination.port.to_be();
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.saddr = source.address.0;
        tuple.__bindgen_anon_1.ipv6.daddr = destination.address.0;
        tuple.__bindgen_anon_1.ipv6.sport = source.port.to_be();
        tuple.__bindgen_anon_1.ipv6.dport = destination.port.to_be();
        36
    };
    // SAFETY: the tuple outlives the call; the reference is released, and a socket's state outlives the program's run.
    unsafe {
        let sk = bpf_sk_lookup_udp(
            skb.cast(),
            &raw mut tuple,
            size,
            i64::from(BPF_F_CURRENT_NETNS).cast_unsigned(),
            0,
        );
        if sk.is_null() {
            return None;
        }
        let socket = storage::get(sk);
        bpf_sk_release(sk.cast());
        socket
    }
}

#[inline(always)]
fn find_payload(skb: *mut __sk_buff, ends: &Ends, payload: &mut Payload) -> Option<()> {
    let (header, checksum, flags) = match ends.protocol {
        IPPROTO_TCP => {
            let offset: u8 = load(skb, ends.transport + 12)?;
            (u32::from(offset >> 4) << 2, 16, 0)
        }
        // A checksum of 0 says that there is none.
        IPPROTO_UDP => (8, 6, u64::from(BPF_F_MARK_MANGLED_0)),
        IPPROTO_ICMP | IPPROTO_ICMPV6 => (8, 2, 0),
        _ => return None,
    };
    payload.start = ends.transport + header;
    payload.checksum = ends.transport + checksum;
    payload.checksum_flags = flags;
    // SAFETY: a context field.
    let length = unsafe { (*skb).len };
    payload.words = length.saturating_sub(payload.start) >> 1;
    Some(())
}

#[inline(always)]
fn apply(skb: *mut __sk_buff, key: &LinkKey, leaves: bool, payload: &Payload, verdict: &Verdict) -> i32 {
    if verdict.drop != 0 {
        // To an interface that there is not: lost with no word to the sender, where `SHOT` would tell it of a full
        // queue and TCP would react at once.
        return if leaves {
            // SAFETY: a helper without pointers.
            unsafe { bpf_redirect(0, 0) as i32 }
        } else {
            SHOT
        };
    }
    if verdict.bits != 0 {
        _ = corrupt(skb, leaves, payload, verdict);
    }
    if verdict.departs_ns != 0 && leaves {
        depart(skb, verdict.departs_ns);
    }
    if verdict.duplicate != 0 {
        let flags = if leaves { 0 } else { u64::from(BPF_F_INGRESS) };
        mark(skb, COPY, key.netns ^ key.ifindex);
        // SAFETY: the context, and an interface that exists.
        _ = unsafe { bpf_clone_redirect(skb, key.ifindex, flags) };
        mark(skb, 0, 0);
    }
    NEXT
}

/// Turns some neighbouring bits of the payload.
#[inline(always)]
fn corrupt(skb: *mut __sk_buff, leaves: bool, payload: &Payload, verdict: &Verdict) -> Option<()> {
    let (word, mask) = burst(verdict.chance, payload.words, verdict.bits);
    let at = payload.start + (word << 1);
    let before: u16 = load(skb, at)?;
    let after = before ^ mask.to_be();
    // SAFETY: the helpers check offsets; the two bytes live.
    unsafe {
        if bpf_skb_store_bytes(
            skb,
            at,
            (&raw const after).cast(),
            2,
            u64::from(BPF_F_RECOMPUTE_CSUM),
        ) != 0
        {
            return None;
        }
        if verdict.fix != 0 {
            // A checksum that is yet to be computed will fit by itself, and this leaves it alone.
            let flags = payload.checksum_flags | 2;
            _ = bpf_l4_csum_replace(skb, payload.checksum, u64::from(before), u64::from(after), flags);
        } else {
            // The difference the wrong way round: wrong for a checksum that is already there, and for one that is yet
            // to be computed, of which the field has the start. It cannot be told which of the two it is.
            let flags = payload.checksum_flags | u64::from(BPF_F_PSEUDO_HDR) | 2;
            _ = bpf_l4_csum_replace(skb, payload.checksum, u64::from(after), u64::from(before), flags);
            if !leaves {
                // What the card has checked is to be checked again.
                _ = bpf_csum_level(skb, u64::from(BPF_CSUM_LEVEL_RESET));
            }
        }
    }
    Some(())
}

/// Has the fq qdisc keep the packet until then, or later where TCP paces it so.
#[inline(always)]
fn depart(skb: *mut __sk_buff, at_ns: u64) {
    // SAFETY: a context field that may be written; a helper without arguments.
    unsafe {
        let now = bpf_ktime_get_ns();
        let paced = read_volatile(&raw const (*skb).tstamp);
        let wait = at_ns.saturating_sub(now);
        let start = if paced > now && paced - now < MAX_AHEAD_NS {
            paced
        } else {
            now
        };
        write_volatile(&raw mut (*skb).tstamp, (start + wait).min(now + MAX_AHEAD_NS));
    }
}

#[inline(always)]
fn mark(skb: *mut __sk_buff, word: u32, link: u32) {
    // SAFETY: context fields that may be written.
    unsafe {
        write_volatile(&raw mut (*skb).cb[3], word);
        write_volatile(&raw mut (*skb).cb[4], link);
    }
}

/// Whether this is the second of two packets; the mark is taken off.
#[inline(always)]
fn is_copy(skb: *mut __sk_buff, key: &LinkKey) -> bool {
    // SAFETY: context fields.
    let (word, link) = unsafe {
        (
            read_volatile(&raw const (*skb).cb[3]),
            read_volatile(&raw const (*skb).cb[4]),
        )
    };
    let is_copy = word == COPY && link == key.netns ^ key.ifindex;
    if is_copy {
        mark(skb, 0, 0);
    }
    is_copy
}

/// The number of the network namespace that the packet is in. No helper tells it before kernel 6.15.
#[inline(always)]
fn netns(skb: *mut __sk_buff) -> u32 {
    if OFFSET_SKB_DEV.load() == 0 {
        return 0;
    }
    let mut device = 0_u64;
    let mut namespace = 0_u64;
    let mut number = 0_u32;
    // SAFETY: each writes to a local; the helper checks the source.
    unsafe {
        let dev = skb.cast::<u8>().wrapping_add(OFFSET_SKB_DEV.load() as usize);
        if bpf_probe_read_kernel((&raw mut device).cast(), 8, dev.cast()) != 0 {
            return 0;
        }
        let net = device + u64::from(OFFSET_DEV_NET.load());
        if bpf_probe_read_kernel((&raw mut namespace).cast(), 8, net as *const _) != 0 {
            return 0;
        }
        let inum = namespace + u64::from(OFFSET_NET_INUM.load());
        if bpf_probe_read_kernel((&raw mut number).cast(), 4, inum as *const _) != 0 {
            return 0;
        }
    }
    number
}
