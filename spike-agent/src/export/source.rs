//! Where the numbers come from; a test can stand in for it.

use std::time::SystemTime;

use anyhow::Result;
use futures_util::stream::BoxStream;

use super::EdgeCounts;
use crate::{
    calls::Followed,
    model::view::{CounterView, DecodingView},
    protocol::Side,
};

/// The agent, as far as it is exported.
pub trait Source: Send + Sync + 'static {
    /// Every edge that was used since the agent's start.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    fn edges(&self) -> Result<Vec<ObservedEdge>>;

    /// Decoded calls, from now on.
    fn calls(&self) -> BoxStream<'static, Followed>;

    /// How much is decoded.
    fn decoding(&self) -> DecodingView;

    /// What was lost or let through.
    fn losses(&self) -> Vec<CounterView>;

    /// The time of day at a time of `CLOCK_MONOTONIC`, in nanoseconds.
    fn wall_clock(&self, monotonic_ns: u64) -> SystemTime;
}

/// Which host and agent it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// Made at the agent's start; no other agent has it.
    pub agent: String,
    /// Release of the kernel.
    pub kernel: String,
}

impl Host {
    /// This host, with a new id of the agent: 16 hexadecimal digits.
    pub fn this() -> Self {
        let system = rustix::system::uname();
        Self {
            name: system.nodename().to_string_lossy().into_owned(),
            agent: format!("{:016x}", super::own::random()),
            kernel: system.release().to_string_lossy().into_owned(),
        }
    }
}

/// Calls from one process to one destination.
#[derive(Clone, Debug)]
pub struct ObservedEdge {
    /// The kernel side's number of it.
    pub id: u64,
    /// Who is at its ends.
    pub ends: Ends,
    /// What it speaks, such as `http`; `tcp` while that is not known.
    pub protocol: String,
    /// What was counted since the agent's start.
    pub counts: EdgeCounts,
}

/// Who is at the ends of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The service that calls, or the address of another host.
    pub client: String,
    /// The service that is called, else its host's name or address.
    pub server: String,
    /// Name or address that is called.
    pub address: String,
    /// Port that is called.
    pub port: u16,
    /// The end at which it was observed.
    pub seen_at: Side,
    /// Whether the server's process is known, which is when it is on this host.
    pub server_is_here: bool,
    /// Whether it is the agent that calls.
    pub is_own: bool,
}

impl Ends {
    /// Whether the client is on this host.
    pub fn client_is_here(&self) -> bool {
        self.seen_at == Side::Client
    }
}
