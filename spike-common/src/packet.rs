//! A captured packet as it crosses the ring buffer: this header, then the bytes.

use crate::address::Endpoint;
use crate::layout;
use crate::task::Task;

/// `Packet::flags`: the packet left through the interface; else it arrived.
pub const EGRESS: u32 = 1;
/// `Packet::flags`: `task` owns the sending end.
pub const TASK_SENDS: u32 = 1 << 1;
/// `Packet::flags`: `task` is known.
pub const TASK_KNOWN: u32 = 1 << 2;
/// `Packet::flags`: the flow was redirected, `original` is where the application asked to go.
pub const FLOW_REDIRECTED: u32 = 1 << 3;
/// `Packet::flags`: `task` is the end that answers; its caller is not on this host.
pub const TASK_SERVES: u32 = 1 << 4;

/// `Packet::flags`: the flow is the agent's own, to where an intercepted connection was meant to go.
pub const FLOW_OWN: u32 = 1 << 5;

/// Network namespaces that can be watched at a time, the agent's own included.
pub const MAX_SLOTS: usize = 32;

/// The key of an interface: its index means another one in each namespace.
#[inline(always)]
pub const fn link_key(slot: u32, ifindex: u32) -> u64 {
    (slot as u64) << 32 | ifindex as u64
}

/// An interface that is watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TapLink {
    /// The cookie of its network namespace.
    pub netns: u64,
    /// Bytes of the link header before the IP header.
    pub header: u32,
    /// Written out.
    pub padding: u32,
}
layout!(TapLink, size = 16, align = 8);

/// The most bytes of one packet that are kept: the largest GSO frame of IPv4 with its link header.
pub const MAX_BYTES: usize = 65_535 + 14;

/// Goes ahead of a packet's bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketHeader {
    /// `CLOCK_BOOTTIME`, nanoseconds, when the hook saw it.
    pub boot_ns: u64,
    /// The cookie of the known end's socket; 0 when there is none.
    pub cookie: u64,
    /// The owner of one end, if known.
    pub task: Task,
    /// For a redirected flow where the application asked to go.
    pub original: Endpoint,
    /// The interface's index in its network namespace.
    pub ifindex: u32,
    /// The packet's length on the wire, link header included.
    pub length: u32,
    /// How many bytes follow.
    pub captured: u32,
    /// A set of the flags above.
    pub flags: u32,
    /// Which namespace the interface is in, by the agent's numbers; 0 is its own.
    pub slot: u32,
}
layout!(PacketHeader, size = 104, align = 8);
