//! Packet faults: which packets one takes, and what chance does to them; decided in the packet hooks alone.

use crate::address::{Address, Endpoint};
use crate::chance::{chosen, roll};
use crate::layout;
use crate::task::mix;

/// How many packet faults one interface can have.
pub const MAX_LINK_FAULTS: usize = 8;

/// `PacketFault::keys`: the destination's port must be in the range.
pub const PORT: u32 = 1;
/// `PacketFault::keys`: the destination must be in the network.
pub const NETWORK: u32 = 1 << 1;
/// `PacketFault::keys`: the caller's process id must be the one.
pub const TGID: u32 = 1 << 2;
/// `PacketFault::keys`: the caller's executable must be the one.
pub const EXECUTABLE: u32 = 1 << 3;
/// `PacketFault::keys`: the caller's cgroup must be listed for the fault.
pub const CGROUP: u32 = 1 << 4;

/// A way: to the destination of a call.
pub const REQUEST: u32 = 1;
/// A way: from the destination of a call.
pub const RESPONSE: u32 = 2;

/// `PacketFault::kind`: the packet is lost.
pub const DROP: u32 = 0;
/// `PacketFault::kind`: the packet comes twice.
pub const DUPLICATE: u32 = 1;
/// `PacketFault::kind`: bits of its payload are turned.
pub const CORRUPT: u32 = 2;
/// `PacketFault::kind`: it leaves later.
pub const HOLD: u32 = 3;
/// `PacketFault::kind`: it leaves when those before it have, at a rate.
pub const RATE: u32 = 4;

/// `PacketFault::flags`: of [`CORRUPT`]: the checksum is made to fit.
pub const FIX_CHECKSUM: u32 = 1;
/// `PacketFault::flags`: only packets that leave through the interface are meant.
pub const LEAVING: u32 = 1 << 1;

/// `PacketLink::flags`: a fault of the link needs to know where payloads lie.
pub const LINK_CORRUPTS: u32 = 1;
/// `PacketLink::flags`: the loopback device, where each packet leaves and then arrives.
pub const LINK_LOOPBACK: u32 = 1 << 1;

/// The longest that a packet may wait for its departure, nanoseconds: fq drops what is further ahead than 10 s.
pub const MAX_AHEAD_NS: u64 = 9_000_000_000;
/// The longest queue of [`RATE`], nanoseconds at its rate: what does not fit is dropped.
pub const MAX_QUEUE_NS: u64 = 2_000_000_000;

/// An interface, among those of all network namespaces.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// The number of its network namespace (the inode of `/proc/PID/ns/net`); 0 for all where the kernel does not
    /// tell it.
    pub netns: u32,
    /// Its index there.
    pub ifindex: u32,
}
layout!(LinkKey, size = 8, align = 4);

/// What the hooks do on an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketLink {
    /// The cookie of its network namespace, by which flows between loopback addresses are filed.
    pub cookie: u64,
    /// Length of the link header.
    pub header: u32,
    /// A set of the flags above.
    pub flags: u32,
    /// How many of `faults` are used.
    pub count: u32,
    /// Numbers of the faults, the oldest first.
    pub faults: [u32; MAX_LINK_FAULTS],
    /// Written out.
    pub padding: u32,
}
layout!(PacketLink, size = 56, align = 8);

/// A packet fault in force. Chances are rolls below which a packet is hit, see [`crate::chance::threshold`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFault {
    /// Start of the choices by chance.
    pub seed: u64,
    /// When it ends (`CLOCK_MONOTONIC`, nanoseconds): holds even if the agent stands still.
    pub deadline_ns: u64,
    /// Share of the flows that are affected.
    pub flows_below: u64,
    /// Share of a flow's packets that are hit while it is in the good state, in which it starts.
    pub good_below: u64,
    /// The same in the bad state.
    pub bad_below: u64,
    /// Chance of a change to the bad state with each packet; 0 where there is but one state.
    pub to_bad_below: u64,
    /// Chance of a change back.
    pub to_good_below: u64,
    /// Of [`HOLD`]: the middle of the delays, nanoseconds.
    pub delay_ns: u64,
    /// Of [`HOLD`]: delays are spread evenly over `delay_ns` ± this; at most `delay_ns`, below 2^33.
    pub jitter_ns: u64,
    /// Of [`RATE`]: bytes per second, not 0.
    pub rate: u64,
    /// Hash of the caller's executable.
    pub executable: u64,
    /// The network's address.
    pub network: Address,
    /// The bits of an address that the network fixes.
    pub mask: Address,
    /// The caller's process id.
    pub tgid: u32,
    /// Which of the selecting fields are meant.
    pub keys: u32,
    /// A set of [`REQUEST`] and [`RESPONSE`].
    pub ways: u32,
    /// What is done.
    pub kind: u32,
    /// A set of the flags above.
    pub flags: u32,
    /// Of [`CORRUPT`]: how many neighbouring bits are turned, 1 to 8.
    pub bits: u32,
    /// The destination's first port.
    pub port_first: u16,
    /// The last one.
    pub port_last: u16,
    /// Written out.
    pub padding: u32,
}
layout!(PacketFault, size = 152, align = 8);

/// Names the state that a fault has of a flow: the same for both ways of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PacketFlowKey {
    /// The fault's number.
    pub fault: u32,
    /// The IP protocol.
    pub protocol: u32,
    /// The caller's end.
    pub caller: Endpoint,
    /// The end that is called.
    pub called: Endpoint,
}
layout!(PacketFlowKey, size = 48, align = 4);

/// What a fault knows of a flow. Its packets are numbered for each way by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFlow {
    /// Start of the flow's own choices.
    pub seed: u64,
    /// Packets seen: requests, responses.
    pub packets: [u64; 2],
    /// 1 in the bad state: requests, responses.
    pub bad: [u32; 2],
    /// 1 when the flow is among those that are affected.
    pub taken: u32,
    /// Written out.
    pub padding: u32,
}
layout!(PacketFlow, size = 40, align = 8);

/// What all flows of a fault share.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketState {
    /// Flows seen; the number of a new one decides by chance with the seed.
    pub flows: u64,
    /// Of [`RATE`]: when the last packet has left (`CLOCK_MONOTONIC`, nanoseconds).
    pub free_ns: u64,
}
layout!(PacketState, size = 16, align = 8);

/// What became of packets, on each CPU by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketCounts {
    /// Packets that the selector chose.
    pub matched: u64,
    /// Of them, those that the effect was applied to.
    pub affected: u64,
}
layout!(PacketCounts, size = 16, align = 8);

/// Lists a cgroup for a fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PacketCgroup {
    /// The cgroup's id.
    pub cgroup: u64,
    /// The fault's number.
    pub fault: u32,
    /// Written out.
    pub padding: u32,
}
layout!(PacketCgroup, size = 16, align = 8);

/// A packet as faults see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The caller's process id; 0 when the caller is not known.
    pub tgid: u32,
    /// Hash of the caller's executable; 0 when the caller is not known.
    pub executable: u64,
    /// Which ways the packet may go: both, when neither end is known; none, when it is no IP packet.
    pub ways: u32,
    /// It leaves through the interface; else it arrives.
    pub leaves: bool,
    /// The end that is called, if the packet is a request.
    pub request_to: Endpoint,
    /// The same if it is a response.
    pub response_from: Endpoint,
}

impl PacketFault {
    /// Whether the fault looks at packets on this side of an interface. On the loopback device, where each leaves and
    /// arrives, once: when it arrives, as a loss there is not told to the sender, but for what waits and what is
    /// doubled (IPv4 takes no packet for 127.0.0.0/8 that it has not routed itself).
    #[inline(always)]
    pub const fn looks(&self, leaves: bool, link_flags: u32) -> bool {
        let waits = self.flags & LEAVING != 0;
        if link_flags & LINK_LOOPBACK != 0 {
            (waits || self.kind == DUPLICATE) == leaves
        } else {
            leaves || !waits
        }
    }

    /// The way that the packet goes if this fault takes it, else 0. [`CGROUP`] is left to whoever has the list.
    ///
    /// Where neither the flow's ends nor the selector tell the called end, what leaves is a request.
    #[inline(always)]
    pub fn takes(&self, seen: &Seen) -> u32 {
        if self.keys & TGID != 0 && self.tgid != seen.tgid
            || self.keys & EXECUTABLE != 0 && self.executable != seen.executable
        {
            return 0;
        }
        let way = if self.keys & (PORT | NETWORK) != 0 {
            if seen.ways & REQUEST != 0 && self.covers(&seen.request_to) {
                REQUEST
            } else if seen.ways & RESPONSE != 0 && self.covers(&seen.response_from) {
                RESPONSE
            } else {
                0
            }
        } else if seen.ways == REQUEST || seen.ways == RESPONSE {
            seen.ways
        } else if seen.leaves {
            REQUEST
        } else {
            RESPONSE
        };
        way & self.ways
    }

    #[inline(always)]
    fn covers(&self, end: &Endpoint) -> bool {
        let outside = |word: usize| (end.address.0[word] ^ self.network.0[word]) & self.mask.0[word];
        let port = self.keys & PORT == 0 || self.port_first <= end.port && end.port <= self.port_last;
        let network = self.keys & NETWORK == 0 || outside(0) | outside(1) | outside(2) | outside(3) == 0;
        port && network
    }

    /// The state of the `number`-th flow that the fault meets.
    #[inline(always)]
    pub fn begin(&self, number: u64) -> PacketFlow {
        PacketFlow {
            seed: mix(self.seed, number),
            taken: u32::from(chosen(self.seed, number, self.flows_below)),
            ..PacketFlow::default()
        }
    }

    /// Numbers the flow's next packet of a way, and rolls whether it is hit: its number and the flow's chance if so.
    ///
    /// The model of Gilbert and Elliott as netem has it: a packet is hit by the chance of the state that it finds, and
    /// may change the state for the next one.
    #[inline(always)]
    pub fn hits(&self, flow: &mut PacketFlow, way: u32) -> Option<Hit> {
        // Written so that the verifier sees the bound.
        let index = (way >> 1 & 1) as usize;
        let number = flow.packets[index];
        flow.packets[index] = number.wrapping_add(1);
        if flow.taken == 0 {
            return None;
        }
        let seed = flow.seed ^ index as u64;
        let (hit_below, leave_below) = if flow.bad[index] != 0 {
            (self.bad_below, self.to_good_below)
        } else {
            (self.good_below, self.to_bad_below)
        };
        if chosen(seed, number.wrapping_mul(2) + 1, leave_below) {
            flow.bad[index] ^= 1;
        }
        chosen(seed, number.wrapping_mul(2), hit_below).then_some(Hit { seed: !seed, number })
    }

    /// How long a hit packet is held, nanoseconds.
    #[inline(always)]
    pub fn hold_ns(&self, hit: &Hit) -> u64 {
        // 28 bits of chance and 34 of time fit.
        let share = u64::from(roll(hit.seed, hit.number) >> 4);
        self.delay_ns.saturating_sub(self.jitter_ns) + ((share * (self.jitter_ns * 2)) >> 28)
    }

    /// When a packet of `length` bytes may leave, given when the last one has; none when the queue is too long.
    #[inline(always)]
    pub fn departs_ns(&self, now_ns: u64, free_ns: u64, length: u32) -> Option<(u64, u64)> {
        let start = free_ns.max(now_ns);
        if self.rate == 0 || start - now_ns > MAX_QUEUE_NS {
            return None;
        }
        Some((start, start + u64::from(length) * 1_000_000_000 / self.rate))
    }
}

/// A packet that is hit: where its further chances come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Start of the chances.
    pub seed: u64,
    /// The packet's number in its flow and way.
    pub number: u64,
}

/// Which bits of a payload of `words` 16-bit words are turned: the word, and the bits of it in host order.
#[inline(always)]
pub fn burst(chance: u32, words: u32, bits: u32) -> (u32, u16) {
    let word = (u64::from(chance) * u64::from(words)) >> 32;
    let bits = if bits == 0 || bits > 8 { 1 } else { bits };
    // Another roll: the word has used up the upper bits.
    let shift = roll(u64::from(chance), 1) % (17 - bits);
    (word as u32, (((1_u32 << bits) - 1) << shift) as u16)
}

#[cfg(test)]
mod tests;
