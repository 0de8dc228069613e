//! Host names as numbers: the kernel side cannot keep them, but can tell one from another.

use crate::address::Address;
use crate::layout;

/// Who resolved an address, and which.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// The asker's cgroup.
    pub cgroup: u64,
    /// The address that it was told.
    pub address: Address,
}
layout!(NameKey, size = 24, align = 8);

/// The hash of a name (FNV-1a, 64 bits), fed with the name's wire form (RFC 1035 section 3.1) up to the root's zero.
#[derive(Clone, Copy, Debug)]
pub struct NameHash(u64);

/// The longest name's wire form (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;

impl NameHash {
    /// Of nothing yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes the next byte; DNS does not tell upper from lower case.
    #[inline(always)]
    pub const fn take(&mut self, byte: u8) {
        self.0 = (self.0 ^ byte.to_ascii_lowercase() as u64).wrapping_mul(0x0100_0000_01b3);
    }

    /// The hash, never 0.
    #[inline(always)]
    pub const fn finish(self) -> u64 {
        self.0 | 1
    }

    /// The hash of the name at the start of `wire`; none when it does not end there.
    pub fn of(wire: &[u8]) -> Option<u64> {
        let mut hash = Self::new();
        for &byte in wire.iter().take(MAX_NAME) {
            if byte == 0 {
                return Some(hash.finish());
            }
            hash.take(byte);
        }
        None
    }
}

impl Default for NameHash {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_no_difference_and_names_are() {
        let hash = |wire: &[u8]| NameHash::of(wire);
        assert_eq!(hash(b"\x02db\x04test\0rest"), hash(b"\x02DB\x04Test\0"));
        assert_ne!(hash(b"\x02db\x04test\0"), hash(b"\x02dc\x04test\0"));
        assert_eq!(hash(b"\x02db"), None);
        assert_eq!(hash(&[1; 300]), None);
    }
}
