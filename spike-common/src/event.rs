//! What the kernel programs tell the agent at once, and rarely: never once a packet.

use crate::layout;

/// `NamespaceWanted::kind`: as the type says.
pub const WANTED: u32 = 0;
/// `NamespaceWanted::kind`: a process bound an address, and may listen there soon.
pub const WAS_BOUND: u32 = 1;

/// A process matched an intercept rule inside a network namespace that the agent has no listener in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceWanted {
    /// The namespace's cookie.
    pub netns: u64,
    /// A process in it, to find it by.
    pub tgid: u32,
    /// [`WANTED`] or [`WAS_BOUND`].
    pub kind: u32,
}
layout!(NamespaceWanted, size = 16, align = 8);
