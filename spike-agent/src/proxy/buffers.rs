//! Lends buffers to connections for as long as bytes are in flight, so that idle connections cost none.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// Size of a buffer in bytes.
pub(super) const LENGTH: usize = 64 << 10;
/// Most buffers kept for later: 16 MiB.
const MAX_KEPT: usize = 256;

/// Buffers that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    kept: Mutex<Vec<Box<[u8]>>>,
}

impl Buffers {
    pub(super) fn take(&self) -> Buffer<'_> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; LENGTH].into_boxed_slice()),
            pool: self,
        }
    }

    /// How many buffers wait for their next use.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A buffer of [`LENGTH`] bytes with anything in it; goes back when dropped.
pub(super) struct Buffer<'a> {
    bytes: Box<[u8]>,
    pool: &'a Buffers,
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let mut kept = self.pool.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_up_to_a_limit() {
        let buffers = Buffers::default();
        let taken = (0..MAX_KEPT + 5).map(|_| buffers.take()).collect::<Vec<_>>();
        assert!(taken.iter().all(|buffer| buffer.len() == LENGTH));
        drop(taken);
        assert_eq!(buffers.kept(), MAX_KEPT);
        let _one = buffers.take();
        assert_eq!(buffers.kept(), MAX_KEPT - 1);
    }
}
