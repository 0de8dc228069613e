//! Aggregates per edge: a caller (or, for calls from elsewhere, a client address) and the service address it uses.

use crate::address::Endpoint;
use crate::histogram::BUCKETS;
use crate::layout;
use crate::task::{Task, executable_hash, mix};

/// `Edge::role`: the local process asks.
pub const CLIENT: u32 = 0;
/// `Edge::role`: the local process answers a client that is not on this host.
pub const SERVER: u32 = 1;

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
    /// [`CLIENT`] or [`SERVER`].
    pub role: u32,
    /// Written out.
    pub padding: u32,
}
layout!(Edge, size = 112, align = 8);

impl Edge {
    /// The number that stands for this edge, never 0: made of what identifies it, not of its first process or time.
    #[inline(always)]
    pub fn id(&self) -> u64 {
        let mut id = mix(self.netns, self.task.cgroup);
        id = mix(id, executable_hash(&self.task.executable));
        id = mix(id, endpoint_word(&self.destination));
        id = mix(id, endpoint_word(&self.peer));
        id = mix(id, u64::from(self.role));
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

/// The counts of one edge on one CPU; the sum over all CPUs is the edge's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EdgeStats {
    /// Connections established.
    pub opened: u64,
    /// Connections that ended after being established.
    pub closed: u64,
    /// Connections that were not established: refused, timed out, unreachable, or refused by a fault.
    pub failed: u64,
    /// Of the closed ones, those that ended without FIN in both directions.
    pub reset: u64,
    /// Requests that got the first byte of a response.
    pub calls: u64,
    /// Payload bytes from the caller to the callee, retransmissions not counted.
    pub bytes_out: u64,
    /// Payload bytes from the callee to the caller.
    pub bytes_in: u64,
    /// Sum of latencies in nanoseconds.
    pub latency_sum: u64,
    /// Latencies by bucket (see [`crate::histogram`]).
    pub latency: [u64; BUCKETS],
}
layout!(EdgeStats, size = 64 + BUCKETS * 8, align = 8);

impl Default for EdgeStats {
    fn default() -> Self {
        Self {
            opened: 0,
            closed: 0,
            failed: 0,
            reset: 0,
            calls: 0,
            bytes_out: 0,
            bytes_in: 0,
            latency_sum: 0,
            latency: [0; BUCKETS],
        }
    }
}

impl EdgeStats {
    /// Adds another CPU's counts.
    pub fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.failed += other.failed;
        self.reset += other.reset;
        self.calls += other.calls;
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.latency_sum += other.latency_sum;
        for (sum, count) in self.latency.iter_mut().zip(other.latency) {
            *sum += count;
        }
    }
}
