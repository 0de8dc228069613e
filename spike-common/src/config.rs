//! What the agent tells the kernel programs: who it is, what is armed, where its listeners are.

use crate::layout;
use crate::rule::Masks;

/// The heartbeat's age, in nanoseconds, past which the hooks stop intercepting: a stopped agent must not hold calls.
pub const HEARTBEAT_LIMIT_NS: u64 = 2_000_000_000;

/// The agent's settings, in a one-element array map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// The agent's own process, in the initial pid namespace; never intercepted nor drawn on the map.
    pub agent_tgid: u32,
    /// The most bytes of a packet that any running capture wants.
    pub tap_snaplen: u32,
    /// 1 when captures leave out the agent's own side of intercepted connections, since they see the application's.
    pub tap_skips_own: u32,
    /// 1 while the agent wants to hear of addresses that are bound.
    pub tells_binds: u32,
    /// Connections are sampled whose roll of cookie and [`Config::sample_seed`] is below this; 0 for none, all ones for
    /// each.
    pub sample_below: u32,
    /// Changed now and then, so that each connection has its turn.
    pub sample_seed: u32,
    /// Changed with either of the above: sockets then roll anew.
    pub sample_turn: u32,
    /// [`HOLDS`] and [`DATAGRAMS`].
    pub intercept_flags: u32,
    /// The cookie of the agent's own network namespace, whose interfaces captures name.
    pub agent_netns: u64,
    /// The kinds of intercept rule in force.
    pub intercept: Masks,
    /// The kinds of capture rule in force.
    pub tap: Masks,
}
layout!(Config, size = 304, align = 8);

/// `Config::intercept_flags`: the agent can let SYNs go on that are held until the server has answered.
pub const HOLDS: u32 = 1;
/// `Config::intercept_flags`: some rule is about UDP datagrams.
pub const DATAGRAMS: u32 = 1 << 1;

/// How many of the agent's ports take datagrams in one network namespace: a socket can talk to as many destinations at
/// one time, and still be told which of them an answer is from.
pub const DATAGRAM_PORTS: usize = 8;

/// The agent's ports for datagrams inside one network namespace, keyed by the namespace's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramPorts {
    /// Those on `127.0.0.1`, host order; 0 when there are none.
    pub ports4: [u16; DATAGRAM_PORTS],
    /// Those on `::1`, host order; 0 when there are none.
    pub ports6: [u16; DATAGRAM_PORTS],
}
layout!(DatagramPorts, size = 32, align = 2);

/// The agent's listener inside one network namespace, keyed by the namespace's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// The port on `127.0.0.1`, host order; 0 when there is none.
    pub port4: u16,
    /// The port on `::1`, host order; 0 when there is none.
    pub port6: u16,
}
layout!(Listener, size = 4, align = 2);
