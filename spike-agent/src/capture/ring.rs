//! Keeps the latest packets in memory until something happens, bounded by their age and by what they take.

use std::collections::VecDeque;
use std::time::Duration;

use super::record::PacketRecord;

/// What the packets of one capture may take.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What a packet takes beside its bytes.
const OVERHEAD: usize = 160;

/// The latest packets.
#[derive(Debug)]
pub(super) struct Ring {
    before_ns: u64,
    most_bytes: usize,
    packets: VecDeque<PacketRecord>,
    bytes: usize,
    /// Time of the latest packet that went for want of memory.
    pushed_out_ns: Option<u64>,
}

impl Ring {
    /// A ring of packets that are at most so old.
    pub(super) fn new(before: Duration) -> Self {
        Self {
            before_ns: u64::try_from(before.as_nanos()).unwrap_or(u64::MAX),
            most_bytes: MOST_BYTES,
            packets: VecDeque::new(),
            bytes: 0,
            pushed_out_ns: None,
        }
    }

    /// Takes a packet, and lets go of those that are too old for it.
    pub(super) fn push(&mut self, packet: PacketRecord) {
        let oldest = packet.timestamp_ns.saturating_sub(self.before_ns);
        self.bytes += packet.data.len() + OVERHEAD;
        self.packets.push_back(packet);
        while let Some(front) = self.packets.front()
            && (front.timestamp_ns < oldest || self.bytes > self.most_bytes)
        {
            if front.timestamp_ns >= oldest {
                self.pushed_out_ns = Some(front.timestamp_ns);
            }
            self.bytes -= front.data.len() + OVERHEAD;
            self.packets.pop_front();
        }
    }

    /// All packets that are not too old at `now_ns`, and how much of the time before it they cover when that is less
    /// than was asked for.
    pub(super) fn take(&mut self, now_ns: u64) -> (VecDeque<PacketRecord>, Option<Duration>) {
        let oldest = now_ns.saturating_sub(self.before_ns);
        let mut packets = std::mem::take(&mut self.packets);
        self.bytes = 0;
        while packets.front().is_some_and(|front| front.timestamp_ns < oldest) {
            packets.pop_front();
        }
        let pushed_out = self.pushed_out_ns.filter(|&time| time >= oldest);
        let covered = pushed_out.map(|time| Duration::from_nanos(now_ns.saturating_sub(time)));
        (packets, covered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::capture::record::{About, Direction};

    fn packet(timestamp_ns: u64, size: usize) -> PacketRecord {
        PacketRecord {
            timestamp_ns,
            interface: 0,
            direction: Direction::Out,
            original_len: size as u32,
            data: vec![0; size].into(),
            dropped: 0,
            resets: false,
            about: Arc::new(About::default()),
        }
    }

    #[test]
    fn what_is_too_old_goes() {
        let mut ring = Ring::new(Duration::from_nanos(10));
        for time in 0..100 {
            ring.push(packet(time, 1));
        }
        assert_eq!(ring.packets.len(), 11);
        let (packets, covered) = ring.take(104);
        let times: Vec<u64> = packets.iter().map(|packet| packet.timestamp_ns).collect();
        assert_eq!((times, covered), ((94..100).collect(), None));
    }

    #[test]
    fn memory_is_bounded_and_what_that_cost_is_told() {
        let mut ring = Ring::new(Duration::from_secs(1));
        ring.most_bytes = 10 * (OVERHEAD + 100);
        for time in 0..100 {
            ring.push(packet(time, 100));
        }
        let (packets, covered) = ring.take(100);
        assert_eq!(packets.len(), 10);
        assert_eq!(covered, Some(Duration::from_nanos(100 - 89)));
    }
}
