//! Reads the packets that the taps copy, on a thread of its own: what else the agent does must not make it lose any.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spike_common::packet::PacketHeader;

use super::Kernel;
use super::tables::plain;
use crate::lock::lock;

/// Packets between two calls without one.
const BATCH: usize = 1024;

impl Kernel {
    /// `hooks/tap --packets--> handle`, until `handle` says that nobody wants them any more, by none. `handle` is called
    /// without a packet after each batch, and when there has been none for the time that it said last.
    ///
    /// # Errors
    /// When they are already being read, or there can be no more threads.
    pub fn read_packets(
        &self,
        mut handle: impl FnMut(Option<(&PacketHeader, &[u8])>) -> Option<Duration> + Send + 'static,
    ) -> Result<()> {
        let mut ring = lock(&self.packets)
            .take()
            .context("the packets are already being read")?;
        let read = move || {
            while let Some(most) = handle(None) {
                let most = Timespec::try_from(most).ok();
                {
                    let fd = ring.as_fd();
                    // A signal or a time that is up: looked at all the same.
                    _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], most.as_ref());
                }
                for _ in 0..BATCH {
                    let Some(item) = ring.next() else { break };
                    if let Some(header) = plain::<PacketHeader>(&item)
                        && let Some(bytes) = item.get(size_of::<PacketHeader>()..)
                    {
                        let length = bytes.len().min(header.captured as usize);
                        _ = handle(Some((&header, &bytes[..length])));
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("spike-packets".to_owned())
            .spawn(read)
            .context("start the thread that reads packets")
            .map(drop)
    }
}
