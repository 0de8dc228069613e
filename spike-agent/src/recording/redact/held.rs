//! Messages that are held until they are whole, since what is a secret in them shows at their end.

use super::{Found, STAR};

/// Longest message that is held; of a longer one nothing after its head is readable where it may have secrets.
pub(super) const HELD_LIMIT: usize = 1 << 20;

/// What is to be done with the start of what is held.
pub(super) enum Head {
    /// The head is not complete.
    More,
    /// A message of so many bytes, head included. One that is too long to be held is masked after its head of so many
    /// bytes, or passed as it is where that is 0.
    Message { length: u64, mask_after: usize },
    /// All that follows is something else.
    Other,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// Bytes of a message that was too long that still come, and whether they are masked.
    passing: u64,
    is_masked: bool,
    /// All is left alone.
    pub(super) is_other: bool,
}

impl Held {
    /// Adds bytes, and gives each message that is whole to `each`, then to `out`.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        mut head: impl FnMut(&[u8]) -> Head,
        found: &mut Found,
        mut each: impl FnMut(&mut [u8], &mut Found),
    ) {
        loop {
            if self.is_other {
                out.append(&mut self.bytes);
                out.extend_from_slice(bytes);
                return;
            }
            if self.passing > 0 {
                let length = usize::try_from(self.passing).map_or(bytes.len(), |left| left.min(bytes.len()));
                let (piece, rest) = bytes.split_at(length);
                let start = out.len();
                out.extend_from_slice(piece);
                if self.is_masked {
                    out[start..].fill(STAR);
                }
                self.passing -= length as u64;
                bytes = rest;
                if self.passing > 0 {
                    return;
                }
            }
            // Of a message that began before, findings are told at the start of what came.
            let before = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            bytes = &[];
            let mut used = 0;
            while used < self.bytes.len() && self.passing == 0 && !self.is_other {
                match head(&self.bytes[used..]) {
                    Head::More => break,
                    Head::Other => self.is_other = true,
                    Head::Message { length, mask_after } => {
                        let rest = self.bytes.len() - used;
                        if length <= rest as u64 {
                            let message = &mut self.bytes[used..used + length as usize];
                            found.shift = used.saturating_sub(before);
                            each(message, found);
                            found.shift = 0;
                            out.extend_from_slice(message);
                            used += length as usize;
                        } else if length > HELD_LIMIT as u64 {
                            self.passing = length - rest as u64;
                            self.is_masked = mask_after > 0;
                            if self.is_masked {
                                let from = (used + mask_after).min(self.bytes.len());
                                self.bytes[from..].fill(STAR);
                            }
                            out.extend_from_slice(&self.bytes[used..]);
                            used = self.bytes.len();
                        } else {
                            break;
                        }
                    }
                }
            }
            self.bytes.drain(..used);
            if !self.is_other {
                return;
            }
        }
    }

    /// Bytes are missing: whether it is known where what follows belongs.
    pub(super) fn gap(&mut self, count: u64) -> bool {
        if self.passing >= count {
            self.passing -= count;
            return true;
        }
        self.is_other
    }

    /// The rest of a message that was never whole, masked after its first `kept` bytes.
    pub(super) fn end(&mut self, kept: usize, out: &mut Vec<u8>) {
        let from = kept.min(self.bytes.len());
        if !self.is_other {
            self.bytes[from..].fill(STAR);
        }
        out.append(&mut self.bytes);
    }
}
