//! What the kernel programs tell the agent at once, and rarely: never once a packet.

use crate::layout;

/// A process matched an intercept rule inside a network namespace that the agent has no listener in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceWanted {
    /// The namespace's cookie.
    pub netns: u64,
    /// A process in it, to find it by.
    pub tgid: u32,
    /// Written out.
    pub padding: u32,
}
layout!(NamespaceWanted, size = 16, align = 8);
