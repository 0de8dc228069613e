//! What the kernel keeps per socket and per flow.

use crate::address::Endpoint;
use crate::config::DATAGRAM_PORTS;
use crate::layout;
use crate::task::Task;

/// `Socket::flags`: the connect hook sent this socket to the agent; `original` holds where it wanted to go.
pub const REDIRECTED: u32 = 1;
/// `Socket::flags`: the local end answers; else it asks.
pub const SERVER: u32 = 1 << 1;
/// `Socket::flags`: was open before the agent, so no state callback will tell of its end.
pub const ADOPTED: u32 = 1 << 2;
/// `Socket::flags`: its end has been counted.
pub const ENDED: u32 = 1 << 3;
/// `Socket::flags`: a listener; `task` is its owner, inherited by the sockets it accepts.
pub const LISTENER: u32 = 1 << 4;
/// `Socket::flags`: counted as opened.
pub const OPENED: u32 = 1 << 5;
/// `Socket::flags`: the first byte out was seen, `out_next` is valid.
pub const OUT_KNOWN: u32 = 1 << 6;
/// `Socket::flags`: the first byte in was seen, `in_next` is valid.
pub const IN_KNOWN: u32 = 1 << 7;
/// `Socket::flags`: a request is under way; its last byte was seen at `asked_ns`.
pub const ASKED: u32 = 1 << 8;
/// `Socket::flags`: belongs to the agent; never drawn.
pub const OWN: u32 = 1 << 9;

/// `Socket::flags`: the start of its segments' payload goes to the agent.
pub const SAMPLED: u32 = 1 << 10;

/// `Socket::flags`: a UDP socket, whose edge is that of its latest datagram.
pub const DATAGRAMS: u32 = 1 << 11;

/// `Socket::flags`: the other end is on this host too, and counts; here only retransmissions do.
pub const CALLEE: u32 = 1 << 12;

/// `Socket::flags`: its SYN waits until the agent lets it go on.
pub const HELD: u32 = 1 << 20;
/// `Socket::flags`: the agent was told of the SYN.
pub const TOLD: u32 = 1 << 21;
/// `Socket::flags`: a UDP socket that was bound by its owner; whether it asks or answers shows its first datagram.
pub const BOUND: u32 = 1 << 22;
/// `Socket::flags`: a UDP socket that was asked before it said anything: it answers.
pub const ANSWERS: u32 = 1 << 23;
/// `Socket::flags`: datagrams of this socket went to the agent.
pub const DATAGRAMS_REDIRECTED: u32 = 1 << 24;

/// Where a UDP socket's datagrams were meant to go that went to the agent: by the agent's port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DatagramSlots {
    /// When each was used last (`CLOCK_MONOTONIC`, nanoseconds); 0 where the port was not used.
    pub used_ns: [u64; DATAGRAM_PORTS],
    /// The destinations.
    pub originals: [Endpoint; DATAGRAM_PORTS],
    /// The agent's ports that stand for them, host order: they outlive the fault, as answers may.
    pub ports: [u16; DATAGRAM_PORTS],
}
layout!(DatagramSlots, size = 30 * DATAGRAM_PORTS, align = 8);

/// For this long after its last datagram a destination keeps its port: an answer may be on its way.
pub const SLOT_KEPT_NS: u64 = 10_000_000_000;

/// The state of one TCP or UDP socket, in its socket storage: gone with the socket, so that nothing can leak or be confused
/// with a later connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Socket {
    /// The edge that this connection counts for; 0 for none.
    pub edge: u64,
    /// When the last byte of the request was seen (`CLOCK_MONOTONIC`, nanoseconds).
    pub asked_ns: u64,
    /// The network namespace's cookie.
    pub netns: u64,
    /// Who opened it, or who listens.
    pub task: Task,
    /// Where the application asked to go.
    pub original: Endpoint,
    /// A set of the flags above.
    pub flags: u32,
    /// The TCP sequence number after the last byte seen out: tells a retransmission from new bytes.
    pub out_next: u32,
    /// The TCP sequence number after the last byte seen in.
    pub in_next: u32,
    /// The turn of sampling that [`SAMPLED`] is of.
    pub sample_turn: u32,
    /// Segments with payload seen, modulo 2^32: paces the looks at round-trip time and retransmissions.
    pub segments: u32,
    /// Retransmissions of this end that are counted already.
    pub retransmits: u32,
    /// Large segments that were sampled, as far as it matters.
    pub large: u32,
}
layout!(Socket, size = 120, align = 8);

/// One direction-less TCP flow as one of its sockets sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The network namespace's cookie where an end is a loopback address, which means another thing in each; else 0,
    /// since the same packet is seen from several.
    pub netns: u64,
    /// This socket's end.
    pub local: Endpoint,
    /// The other end, as on the wire.
    pub remote: Endpoint,
}
layout!(FlowKey, size = 48, align = 8);

impl FlowKey {
    /// The key of a flow; `netns` is the cookie of the namespace it is seen in.
    #[inline(always)]
    pub const fn new(netns: u64, local: Endpoint, remote: Endpoint) -> Self {
        let scoped = local.address.is_loopback() || remote.address.is_loopback();
        Self {
            netns: if scoped { netns } else { 0 },
            local,
            remote,
        }
    }
}

/// Who owns a flow and where it was meant to go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// The socket's cookie.
    pub cookie: u64,
    /// The edge it counts for; 0 for none.
    pub edge: u64,
    /// The owner.
    pub task: Task,
    /// Where the application asked to go; the remote end unless redirected.
    pub original: Endpoint,
    /// `REDIRECTED`, `SERVER`, `OWN`.
    pub flags: u32,
}
layout!(Flow, size = 88, align = 8);

/// An address that something listens on, in one namespace (0 for addresses that are not loopback).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// As in [`FlowKey::netns`].
    pub netns: u64,
    /// The address that connections arrive at.
    pub endpoint: Endpoint,
    /// Of [`Binder`]s the transport's number in the IP header, 0 for TCP; else 0.
    pub transport: u32,
}
layout!(ServiceKey, size = 32, align = 8);

impl ServiceKey {
    /// The key of a service address; `netns` is the cookie of the namespace it is in.
    #[inline(always)]
    pub const fn new(netns: u64, endpoint: Endpoint) -> Self {
        Self {
            netns: if endpoint.address.is_loopback() { netns } else { 0 },
            endpoint,
            transport: 0,
        }
    }
}

/// Who bound a socket to an address, and where: the hook of listen() cannot ask (its helpers came with kernel 6.16).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Binder {
    /// The process.
    pub task: Task,
    /// The network namespace's cookie.
    pub netns: u64,
}
layout!(Binder, size = 56, align = 8);

/// A connection by the numbers that its two ends begin with (RFC 9293), as both ends know them: translation of addresses
/// leaves them alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HandshakeKey {
    /// The sequence number of the caller's first byte.
    pub caller: u32,
    /// The sequence number of the callee's first byte.
    pub callee: u32,
}
layout!(HandshakeKey, size = 8, align = 4);

/// A connection that its caller sees as open, and the callee does not yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake {
    /// The edge it counts for.
    pub edge: u64,
    /// The caller's network namespace's cookie.
    pub netns: u64,
    /// Where the caller asked to go.
    pub original: Endpoint,
    /// Written out.
    pub padding: u32,
}
layout!(Handshake, size = 40, align = 8);
