//! Who made a connection: the process, as the kernel knew it at that moment.

use crate::layout;

/// Bytes kept of an executable's base name, NUL-padded; longer names are cut.
pub const EXECUTABLE_LEN: usize = 32;
/// Bytes of a process's name in the kernel (`comm`), the last one always NUL.
pub const COMM_LEN: usize = 16;

/// A process at one end of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Task {
    /// The process's cgroup v2 id (the inode number of its folder).
    pub cgroup: u64,
    /// The base name of the executable file (the thread's name where the kernel offers no more), NUL-padded.
    pub executable: [u8; EXECUTABLE_LEN],
    /// The process id in the initial pid namespace; 0 when unknown.
    pub tgid: u32,
    /// The user id in the initial user namespace.
    pub uid: u32,
}
layout!(Task, size = 48, align = 8);

impl Task {
    /// The executable's name as text, without its padding.
    pub fn name(&self) -> &str {
        let end = self
            .executable
            .iter()
            .position(|&b| b == 0)
            .unwrap_or(EXECUTABLE_LEN);
        match core::str::from_utf8(&self.executable[..end]) {
            Ok(name) => name,
            Err(error) => core::str::from_utf8(&self.executable[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

/// The NUL-padded form of an executable's base name, if the kernel would see it in full.
pub fn padded(name: &str) -> Option<[u8; EXECUTABLE_LEN]> {
    let mut out = [0; EXECUTABLE_LEN];
    // The last byte stays NUL: a name that fills it may have been cut.
    out.get_mut(..name.len())
        .filter(|_| name.len() < EXECUTABLE_LEN)?
        .copy_from_slice(name.as_bytes());
    Some(out)
}

/// Mixes a word into a running hash (the multiply-and-fold of wyhash, without its 128-bit product, which eBPF lacks).
#[inline(always)]
pub const fn mix(hash: u64, word: u64) -> u64 {
    let z = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (z >> 32)
}

/// The form of a process's name: that by which its executable was invoked, cut to 15 bytes, as exec() sets it.
pub fn comm(name: &str) -> [u8; EXECUTABLE_LEN] {
    let mut out = [0; EXECUTABLE_LEN];
    let kept = &name.as_bytes()[..name.len().min(COMM_LEN - 1)];
    out[..kept.len()].copy_from_slice(kept);
    out
}

/// The hash that stands for an executable's name in map keys.
#[inline(always)]
pub fn executable_hash(executable: &[u8; EXECUTABLE_LEN]) -> u64 {
    let mut hash = 0x53_70_69_6b_65;
    let mut i = 0;
    while i < EXECUTABLE_LEN {
        let mut word = 0;
        let mut byte = 0;
        while byte < 8 {
            word |= u64::from(executable[i + byte]) << (byte * 8);
            byte += 1;
        }
        hash = mix(hash, word);
        i += 8;
    }
    hash
}

/// The hash of a process's name, the same as [`executable_hash`] of its form by [`comm`].
#[inline(always)]
pub fn comm_hash(comm: &[u8; COMM_LEN]) -> u64 {
    let mut hash = 0x53_70_69_6b_65;
    let mut i = 0;
    while i < COMM_LEN {
        let mut word = 0;
        let mut byte = 0;
        while byte < 8 {
            word |= u64::from(comm[i + byte]) << (byte * 8);
            byte += 1;
        }
        hash = mix(hash, word);
        i += 8;
    }
    mix(mix(hash, 0), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_long_ones_are_declined() {
        let executable = padded("redis-server").unwrap();
        assert_eq!(
            Task {
                executable,
                ..Task::default()
            }
            .name(),
            "redis-server"
        );
        assert!(padded("a-name-of-thirty-one-characters").is_some());
        assert!(padded("a-name-of-thirty-two-characters-").is_none());
    }

    #[test]
    fn a_comm_is_an_executable_cut_short() {
        let mut short = [0; COMM_LEN];
        short[..12].copy_from_slice(b"redis-server");
        assert_eq!(comm_hash(&short), executable_hash(&comm("redis-server")));
        assert_eq!(
            executable_hash(&comm("redis-server")),
            executable_hash(&padded("redis-server").unwrap())
        );
        assert_eq!(comm("systemd-networkd"), comm("systemd-network-x"));
    }

    #[test]
    fn hashes_tell_names_apart() {
        let of = |name| executable_hash(&padded(name).unwrap());
        assert_ne!(of("curl"), of("curm"));
        assert_ne!(of(""), of("a"));
        assert_ne!(of("aaaaaaaabbbbbbbb"), of("bbbbbbbbaaaaaaaa"));
    }
}
