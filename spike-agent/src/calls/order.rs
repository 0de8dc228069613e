//! Puts right what overtook: two processors write to one ring, and networks reorder.

use std::collections::VecDeque;

use super::Sample;
use crate::protocol::Side;

/// Samples of one connection that wait for one that was overtaken; with more it is taken for lost.
const MAX_WAITING: usize = 32;
/// Bytes that wait, likewise.
const MAX_BYTES: usize = 256 * 1024;
/// Nanoseconds that are waited, likewise. Reordering within a host is over in microseconds.
const PATIENCE_NS: u64 = 50_000_000;

/// Samples of one connection that wait, in the order of their arrival: both directions, since a request must be read
/// before its response.
#[derive(Default)]
pub(super) struct Waiting {
    samples: VecDeque<Owned>,
    bytes: usize,
}

/// A sample that outlives the ring buffer's record.
pub(super) struct Owned {
    sample: Sample<'static>,
    bytes: Box<[u8]>,
}

impl Owned {
    pub(super) fn sample(&self) -> Sample<'_> {
        Sample {
            bytes: &self.bytes,
            ..self.sample
        }
    }
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Who sent the first one.
    pub(super) fn first_from(&self) -> Option<Side> {
        self.samples.front().map(|first| first.sample.from)
    }

    pub(super) fn push(&mut self, sample: &Sample<'_>) {
        self.bytes += sample.bytes.len();
        self.samples.push_back(Owned {
            bytes: sample.bytes.into(),
            sample: Sample {
                bytes: &[],
                ..*sample
            },
        });
    }

    /// The sample that is next: in its place by `is_early`, or waited for in vain.
    pub(super) fn next(&mut self, now_ns: u64, is_early: impl Fn(Side, u32) -> bool) -> Option<Owned> {
        let first = &self.samples.front()?.sample;
        let in_vain = self.samples.len() > MAX_WAITING
            || self.bytes > MAX_BYTES
            || now_ns.saturating_sub(first.at_ns) > PATIENCE_NS;
        if is_early(first.from, first.sequence) && !in_vain {
            return None;
        }
        let next = self.samples.pop_front()?;
        self.bytes -= next.bytes.len();
        Some(next)
    }
}
