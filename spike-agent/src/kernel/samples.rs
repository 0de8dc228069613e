//! Reads what the traffic hook copied for decoding, and tells it what to copy.

use std::sync::Arc;

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use spike_common::sample::SampleHeader;

use super::Kernel;
use super::tables::plain;
use crate::lock::lock;

/// The reader of the samples; there is one.
pub struct Samples {
    kernel: Arc<Kernel>,
    ring: RingBuf<MapData>,
}

impl Kernel {
    /// The reader of the samples.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn samples(self: &Arc<Self>) -> Result<Samples> {
        let ring = lock(&self.samples)
            .take()
            .context("the samples are already being read")?;
        Ok(Samples {
            kernel: Arc::clone(self),
            ring,
        })
    }
}

impl Samples {
    /// Gives at most `most` samples that wait to `each`: what is known of a segment, and the start of its payload.
    /// Returns how many.
    pub fn read(&mut self, most: u32, mut each: impl FnMut(&SampleHeader, &[u8])) -> u32 {
        let mut count = 0;
        while count < most
            && let Some(record) = self.ring.next()
        {
            count += 1;
            let Some(header) = plain::<SampleHeader>(&record) else {
                continue;
            };
            let start = size_of::<SampleHeader>();
            let end = start + header.captured as usize;
            each(&header, record.get(start..end).unwrap_or_default());
        }
        count
    }

    /// Has large segments of a connection, should it be sampled, copied as `want` says: `WANT_WHOLE` or `WANT_LITTLE`.
    pub fn want(&self, cookie: u64, want: u32) {
        // Full is not a case: the least used goes.
        _ = lock(&self.kernel.wants).insert(cookie, want, 0);
    }

    /// Has connections sampled whose roll with `seed` is below `below`; all ones for each of them.
    pub fn choose(&self, below: u32, seed: u32) {
        let chosen = self.kernel.configure(|config| {
            config.sample_below = below;
            config.sample_seed = seed;
            config.sample_turn = config.sample_turn.wrapping_add(1);
        });
        if let Err(error) = chosen {
            tracing::warn!("choose the connections to decode: {error:#}");
        }
    }
}
