//! Selectors as the kernel reads them: one hash or LPM look-up for each *kind* of selector in force, however many
//! selectors there are (tuple-space search). A rule may over-select; the agent decides finally.

use crate::address::{Address, Endpoint};
use crate::layout;
use crate::task::Task;

/// Mask: the rule names a destination port.
pub const PORT: u32 = 1;
/// Mask: the rule names a process id.
pub const TGID: u32 = 1 << 1;
/// Mask: the rule names a cgroup, at the depth in bits 8 to 15 below the root; the processes below it count too.
pub const CGROUP: u32 = 1 << 2;
/// Mask: the rule names an executable.
pub const EXECUTABLE: u32 = 1 << 3;
/// Mask: the rule names one destination address.
pub const ADDRESS: u32 = 1 << 4;
/// Mask: the rule names a destination prefix; looked up in the LPM map.
pub const PREFIX: u32 = 1 << 5;
/// Mask: the rule names the host name that the caller's cgroup last resolved to the destination's address.
pub const NAME: u32 = 1 << 6;
/// Mask: the rule names a user id.
pub const UID: u32 = 1 << 7;
/// Mask: the rule names the caller's network namespace.
pub const NETNS: u32 = 1 << 16;
/// Mask: the rule names what the caller's process is called (the kernel's `comm`), in the field of the executable.
pub const COMM: u32 = 1 << 17;
/// Mask: the destination must have been resolved from some host name.
pub const NAMED: u32 = 1 << 18;
/// The depth in a mask that stands for "the process's own cgroup", for flows whose ancestors are no longer known.
pub const LEAF: u32 = 0xff;

/// How many kinds of rule can be in force; the compiler coarsens rules beyond that.
pub const MAX_MASKS: usize = 32;
/// How many faults that the kernel decides alone one rule can lead to; more are left to the agent.
pub const MAX_REFUSALS: usize = 4;

/// The bits of a [`RuleKey`] before its address, in its LPM form (the prefix length itself is not part of the data).
pub const FIXED_BITS: u32 = 52 * 8;

/// The kinds of rule in force.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Masks {
    /// How many of `kinds` are used.
    pub count: u32,
    /// Each kind: the flags above, and a cgroup depth.
    pub kinds: [u32; MAX_MASKS],
}
layout!(Masks, size = 132, align = 4);

/// What a rule is found by: the fields that its mask names, the others 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleKey {
    /// For the LPM map the number of significant bits behind this field; in the hash map 0.
    pub prefix_len: u32,
    /// Which fields are meant.
    pub mask: u32,
    /// Destination port, host order.
    pub port: u16,
    /// Written out.
    pub padding: u16,
    /// Process id.
    pub tgid: u32,
    /// Cgroup id.
    pub cgroup: u64,
    /// Hash of the executable's name, or with [`COMM`] of the process's.
    pub executable: u64,
    /// Hash of the host name (see [`crate::name`]).
    pub name: u64,
    /// The cookie of the caller's network namespace.
    pub netns: u64,
    /// User id.
    pub uid: u32,
    /// With [`NAMED`] 1 where some host name is known.
    pub named: u32,
    /// Destination address.
    pub address: Address,
}
layout!(RuleKey, size = 72, align = 8);

/// `RuleValue::flags`: send the connection to the agent.
pub const REDIRECT: u32 = 1;
/// `RuleValue::flags`: send UDP datagrams to the agent.
pub const REDIRECT_DATAGRAMS: u32 = 1 << 1;

/// What to do with a connection that a rule's key matches.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleValue {
    /// A set of [`REDIRECT`] and [`REDIRECT_DATAGRAMS`].
    pub flags: u32,
    /// The first destination port that the rule applies to.
    pub port_first: u16,
    /// The last one.
    pub port_last: u16,
    /// Identifiers of the faults to decide in the kernel, in order; 0 for none.
    pub refusals: [u32; MAX_REFUSALS],
    /// The rule does not apply to this executable, for which there is another; 0 for none.
    pub unless_executable: u64,
    /// When the last of the faults behind `flags` ends (`CLOCK_MONOTONIC`, nanoseconds): holds even if the agent stands
    /// still.
    pub deadline_ns: u64,
}
layout!(RuleValue, size = 40, align = 8);

/// A fault that the kernel answers itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelFault {
    /// The fault's seed.
    pub seed: u64,
    /// See [`crate::chance::threshold`].
    pub threshold: u64,
    /// When it ends (`CLOCK_MONOTONIC`, nanoseconds): holds even if the agent stands still.
    pub deadline_ns: u64,
    /// Connections that matched.
    pub matched: u64,
    /// Of them, those that were refused.
    pub affected: u64,
}
layout!(KernelFault, size = 40, align = 8);

/// A connection about to be made, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Who makes it.
    pub task: &'a Task,
    /// The hash of the executable's name.
    pub executable: u64,
    /// The hash of the process's name; 0 where it is not known.
    pub comm: u64,
    /// The hash of the host name that led to the destination; 0 for none.
    pub name: u64,
    /// The cookie of the caller's network namespace; 0 where it is not known.
    pub netns: u64,
    /// Where it goes.
    pub destination: &'a Endpoint,
}

impl RuleKey {
    /// The key under which rules of the kind `mask` for this attempt are filed. `cgroup` is the caller's ancestor at
    /// the mask's depth.
    ///
    /// Without branches: the verifier follows each way through each of [`MAX_MASKS`] kinds.
    #[inline(always)]
    pub fn of(mask: u32, attempt: &Attempt<'_>, cgroup: u64) -> Self {
        // All ones where the mask has the flag.
        let keep = |flag: u32| 0_u64.wrapping_sub(u64::from(mask >> flag.trailing_zeros() & 1));
        let address = (keep(ADDRESS) | keep(PREFIX)) as u32;
        let [a, b, c, d] = attempt.destination.address.0;
        Self {
            prefix_len: (FIXED_BITS + 128) & keep(PREFIX) as u32,
            mask,
            port: attempt.destination.port & keep(PORT) as u16,
            padding: 0,
            tgid: attempt.task.tgid & keep(TGID) as u32,
            cgroup: cgroup & keep(CGROUP),
            executable: attempt.executable & keep(EXECUTABLE) | attempt.comm & keep(COMM),
            name: attempt.name & keep(NAME),
            netns: attempt.netns & keep(NETNS),
            uid: attempt.task.uid & keep(UID) as u32,
            // Without a comparison: the highest bit of `x | -x` is set where x is not 0.
            named: ((attempt.name | 0_u64.wrapping_sub(attempt.name)) >> 63 & keep(NAMED)) as u32,
            address: Address([a & address, b & address, c & address, d & address]),
        }
    }
}

impl RuleValue {
    /// Whether the rule's port range holds the destination's port, and the executable is not left to another rule.
    #[inline(always)]
    pub const fn covers(&self, attempt: &Attempt<'_>) -> bool {
        let port = attempt.destination.port;
        self.port_first <= port
            && port <= self.port_last
            && (self.unless_executable == 0 || self.unless_executable != attempt.executable)
    }
}

/// The cgroup depth in a mask.
#[inline(always)]
pub const fn depth(mask: u32) -> u32 {
    mask >> 8 & 0xff
}
