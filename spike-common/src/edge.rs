//! Aggregates per edge: a caller (or, for calls from elsewhere, a client address) and the service address it uses.

use crate::address::Endpoint;
use crate::histogram::BUCKETS;
use crate::layout;
use crate::task::{Task, executable_hash, mix};

/// `Edge::role`: the local process asks.
pub const CLIENT: u32 = 0;
/// `Edge::role`: the local process answers a client that is not on this host.
pub const SERVER: u32 = 1;

/// `Edge::transport`: the protocol's number in the IP header.
pub const TCP: u32 = 6;
/// `Edge::transport`; of UDP the callers on this host are seen, not those on others.
pub const UDP: u32 = 17;

/// What an edge is between.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Edge {
    /// The cookie of the namespace that `destination` is meant in; 0 where it is not a loopback address.
    pub netns: u64,
    /// When the edge was first seen (`CLOCK_MONOTONIC`, nanoseconds).
    pub since_ns: u64,
    /// The local process; its `tgid` is of the first connection.
    pub task: Task,
    /// For a client where it connects to; for a server its own address.
    pub destination: Endpoint,
    /// For a server the client's address, port 0; unused for a client.
    pub peer: Endpoint,
    /// The hash of the name that the caller's cgroup last resolved to the destination's address (see
    /// [`crate::name`]); 0 when it did not.
    pub name: u64,
    /// [`CLIENT`] or [`SERVER`].
    pub role: u32,
    /// [`TCP`] or [`UDP`].
    pub transport: u32,
}
layout!(Edge, size = 120, align = 8);

impl Edge {
    /// The number that stands for this edge, never 0: made of what identifies it, not of its first process or time.
    #[inline(always)]
    pub fn id(&self) -> u64 {
        let mut id = mix(self.netns, self.task.cgroup);
        id = mix(id, executable_hash(&self.task.executable));
        id = mix(id, endpoint_word(&self.destination));
        id = mix(id, endpoint_word(&self.peer));
        id = mix(id, self.name);
        id = mix(id, u64::from(self.role) << 32 | u64::from(self.transport));
        id | 1
    }
}

#[inline(always)]
fn endpoint_word(endpoint: &Endpoint) -> u64 {
    let [a, b, c, d] = endpoint.address.0;
    let word = mix(
        u64::from(a) << 32 | u64::from(b),
        u64::from(c) << 32 | u64::from(d),
    );
    mix(word, u64::from(endpoint.port))
}

/// Why a connection was not established: index into [`EdgeStats::failed`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The other end refused, or a fault did (`ECONNREFUSED`).
    Refused,
    /// Nobody answered (`ETIMEDOUT`).
    TimedOut,
    /// A router on the way said that there is no way (`EHOSTUNREACH`, `ENETUNREACH` and their like).
    Unreachable,
    /// The caller gave up before there was an answer.
    Aborted,
    /// Another error, or one that this kernel does not tell.
    Other,
}

/// How many kinds of [`Failure`] there are.
pub const FAILURES: usize = 5;

impl Failure {
    /// The kind of an error number of `connect(2)`; 0 when the socket had none as it was closed.
    #[inline(always)]
    pub const fn of(errno: u32) -> Self {
        match errno {
            0 => Self::Aborted,
            111 => Self::Refused,
            110 => Self::TimedOut,
            // ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH.
            100 | 101 | 112 | 113 => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// The counts of one edge on one CPU; the sum over all CPUs is the edge's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EdgeStats {
    /// Connections established.
    pub opened: u64,
    /// Connections that ended after being established.
    pub closed: u64,
    /// Connections that were not established, by [`Failure`].
    pub failed: [u64; FAILURES],
    /// Of the closed ones, those that ended without FIN in both directions.
    pub reset: u64,
    /// Requests that got the first byte of a response.
    pub calls: u64,
    /// Payload bytes from the caller to the callee, retransmissions not counted.
    pub bytes_out: u64,
    /// Payload bytes from the callee to the caller.
    pub bytes_in: u64,
    /// Segments that had to be sent again: the local end's as its TCP counts them, SYNs included, and the other end's
    /// as they came in.
    pub retransmits: u64,
    /// Sum of the smoothed round-trip times (RFC 6298) that were looked at, in microseconds.
    pub rtt_sum: u64,
    /// How many round-trip times were looked at.
    pub rtt_count: u64,
    /// Segments of sampled connections that were given to the agent.
    pub sampled: u64,
    /// Segments of sampled connections that found the ring buffer full.
    pub unsampled: u64,
    /// Sum of latencies in nanoseconds.
    pub latency_sum: u64,
    /// Latencies by bucket (see [`crate::histogram`]).
    pub latency: [u64; BUCKETS],
}
layout!(EdgeStats, size = 96 + FAILURES * 8 + BUCKETS * 8, align = 8);

impl Default for EdgeStats {
    fn default() -> Self {
        Self {
            opened: 0,
            closed: 0,
            failed: [0; FAILURES],
            reset: 0,
            calls: 0,
            bytes_out: 0,
            bytes_in: 0,
            retransmits: 0,
            rtt_sum: 0,
            rtt_count: 0,
            sampled: 0,
            unsampled: 0,
            latency_sum: 0,
            latency: [0; BUCKETS],
        }
    }
}

/// How many numbers [`EdgeStats`] is made of.
pub const WORDS: usize = size_of::<EdgeStats>() / size_of::<u64>();

impl EdgeStats {
    /// All its numbers, in their order.
    pub fn words(&self) -> &[u64; WORDS] {
        // SAFETY: it is made of `u64` and arrays of them, in the order of C and without gaps, as its size shows.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// The same back.
    pub fn from_words(words: [u64; WORDS]) -> Self {
        // SAFETY: as above, and any number is valid.
        unsafe { core::mem::transmute(words) }
    }

    /// Adds another CPU's counts.
    pub fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        for (sum, count) in self.failed.iter_mut().zip(other.failed) {
            *sum += count;
        }
        self.reset += other.reset;
        self.calls += other.calls;
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.retransmits += other.retransmits;
        self.rtt_sum += other.rtt_sum;
        self.rtt_count += other.rtt_count;
        self.sampled += other.sampled;
        self.unsampled += other.unsampled;
        self.latency_sum += other.latency_sum;
        for (sum, count) in self.latency.iter_mut().zip(other.latency) {
            *sum += count;
        }
    }
}
