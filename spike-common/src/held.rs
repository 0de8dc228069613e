//! A SYN on its way to the agent, which lets it go on once the server has answered: the caller must not be told that it
//! is connected before that is true.

use crate::address::Endpoint;
use crate::layout;

/// Most bytes of a SYN with its IP header: with options it has 120. One with data (TCP Fast Open) is not held.
pub const MAX_SYN: usize = 128;

/// `RELEASED`: the SYN may go on when TCP sends it again.
pub const PASS: u32 = u32::MAX;

/// A SYN that was held back.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeldSyn {
    /// The socket's cookie.
    pub cookie: u64,
    /// The cookie of the network namespace.
    pub netns: u64,
    /// The caller's end.
    pub client: Endpoint,
    /// The agent's.
    pub listener: Endpoint,
    /// How much of `bytes` is the packet.
    pub length: u32,
    /// Written out.
    pub padding: u32,
    /// The packet from its IP header on, its checksums not yet filled in.
    pub bytes: [u8; MAX_SYN],
}
layout!(HeldSyn, size = 64 + MAX_SYN, align = 8);
