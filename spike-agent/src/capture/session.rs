//! Turns the packets of one capture into a pcapng stream that is complete whenever and however it ends.
//!
//! `kernel --PacketRecord--> run --Bytes--> file or API reader`. Nothing is dropped here: a slow reader makes
//! the queue of packets fill up, and its sender counts what no longer fits.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::pcapng::{self, EnhancedPacket, InterfaceDescription, InterfaceStatistics, Section};
use super::record::{DropCounts, Interface, PacketRecord, Party};

/// So much is sent at once.
const FLUSH_BYTES: usize = 64 * 1024;
/// A packet waits no longer than this for others to be sent with it.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// After a stop: the kernel hands packets over in batches, so silence this long means that none is left.
const SILENCE: Duration = Duration::from_millis(100);
/// After a stop: the end of waiting for silence, should a clock jump make every packet look early.
const DRAIN_MOST: Duration = Duration::from_secs(2);

/// What to capture, and for how long.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    /// The interfaces that packets refer to by index.
    pub interfaces: Vec<Interface>,
    /// Ends the capture after so many packets.
    pub count: Option<u64>,
    /// Ends the capture after this time.
    pub duration: Option<Duration>,
}

/// Why a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It was told to.
    Stopped,
    /// It had as many packets as were asked for.
    Count,
    /// Its time was over.
    Duration,
    /// No more packets can come: their source has gone.
    SourceClosed,
    /// Nobody reads it any more; the last bytes are lost.
    ReaderGone,
}

/// What a capture amounted to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// Packets written.
    pub packets: u64,
    /// Bytes of pcapng that were handed to the reader.
    pub bytes: u64,
    /// Packets that the kernel chose, over all interfaces.
    pub received: u64,
    /// Packets of these that were lost on the way, over all interfaces.
    pub dropped: u64,
    /// Packets of an interface that is not in the table: not written, and a mistake of the sender.
    pub unknown_interface: u64,
}

/// Writes `packets` to `out` until stopped, then what was captured before the stop, then the statistics.
///
/// Waits for the reader of `out` as long as that exists, after a stop too.
pub async fn run(
    spec: SessionSpec,
    mut packets: mpsc::Receiver<PacketRecord>,
    out: mpsc::Sender<Bytes>,
    stop: CancellationToken,
    counts: Arc<dyn DropCounts>,
) -> Summary {
    let started = Instant::now();
    let start_ns = unix_now();
    let deadline = spec.duration.map(|duration| started + duration);
    let mut stream = Stream::new(spec.interfaces, spec.count, out.clone(), counts);
    stream.header();
    let mut batch = Vec::with_capacity(256);
    let mut flush_at = Some(started); // the header goes out at once

    let mut end = 'session: loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break End::Stopped,
            () = at(deadline) => break End::Duration,
            () = out.closed() => break End::ReaderGone,
            () = at(flush_at) => {
                flush_at = None;
                if !stream.flush().await {
                    break End::ReaderGone;
                }
            }
            received = packets.recv_many(&mut batch, 256) => {
                if received == 0 {
                    break End::SourceClosed;
                }
                for packet in batch.drain(..) {
                    if stream.packet(&packet) {
                        break 'session End::Count;
                    }
                    if stream.buffer.len() >= FLUSH_BYTES && !stream.flush().await {
                        break 'session End::ReaderGone;
                    }
                }
                flush_at = match stream.buffer.is_empty() {
                    true => None,
                    false => flush_at.or_else(|| Some(Instant::now() + FLUSH_AFTER)),
                };
            }
        }
    };

    let end_ns = match (end, spec.duration) {
        (End::Duration, Some(duration)) => start_ns.saturating_add(nanos(duration)),
        _ => unix_now(),
    };
    if matches!(end, End::Stopped | End::Duration) && !stream.drain(&mut packets, end_ns).await {
        end = End::ReaderGone;
    }
    let (received, dropped) = stream.statistics(start_ns, end_ns);
    if !stream.flush().await {
        end = End::ReaderGone;
    }
    Summary {
        end,
        packets: stream.written.iter().sum(),
        bytes: stream.sent,
        received,
        dropped,
        unknown_interface: stream.unknown_interface,
    }
}

/// The pcapng stream of a session, of which the end still waits to be sent.
struct Stream {
    interfaces: Vec<Interface>,
    out: mpsc::Sender<Bytes>,
    counts: Arc<dyn DropCounts>,
    buffer: BytesMut,
    /// Kept from packet to packet to save an allocation for each.
    comment: String,
    /// Packets written for each interface.
    written: Vec<u64>,
    /// Packets still wanted.
    left: Option<u64>,
    sent: u64,
    unknown_interface: u64,
}

impl Stream {
    fn new(
        interfaces: Vec<Interface>,
        count: Option<u64>,
        out: mpsc::Sender<Bytes>,
        counts: Arc<dyn DropCounts>,
    ) -> Self {
        Self {
            out,
            counts,
            buffer: BytesMut::with_capacity(2 * FLUSH_BYTES),
            comment: String::new(),
            written: vec![0; interfaces.len()],
            left: count,
            sent: 0,
            unknown_interface: 0,
            interfaces,
        }
    }

    fn header(&mut self) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        pcapng::section(
            &mut self.buffer,
            &Section {
                hardware: std::env::consts::ARCH,
                os: format!("Linux {}", release.trim_end()).trim_end(),
                application: concat!("spike ", env!("CARGO_PKG_VERSION")),
            },
        );
        for interface in &self.interfaces {
            pcapng::interface(
                &mut self.buffer,
                &InterfaceDescription {
                    link_type: interface.link_type,
                    snaplen: interface.snaplen,
                    name: &interface.name,
                    description: None,
                    filter: None,
                },
            );
        }
    }

    /// Appends a packet, and says whether the session has all that it wants.
    fn packet(&mut self, packet: &PacketRecord) -> bool {
        if self.left == Some(0) {
            return true;
        }
        let index = packet.interface as usize;
        let Some(interface) = self.interfaces.get(index) else {
            self.unknown_interface += 1;
            return false;
        };
        let kept = match interface.snaplen {
            0 => packet.data.len(),
            snaplen => packet.data.len().min(snaplen as usize),
        };
        // Never less than what was captured: readers reject that.
        let original_len = packet.original_len.max(u32::try_from(kept).unwrap_or(u32::MAX));
        self.comment.clear();
        describe(
            &mut self.comment,
            packet.sender.as_ref(),
            packet.receiver.as_ref(),
        );
        pcapng::packet(
            &mut self.buffer,
            &EnhancedPacket {
                interface: packet.interface,
                timestamp_ns: packet.timestamp_ns,
                original_len,
                data: &packet.data[..kept],
                comment: (!self.comment.is_empty()).then_some(&self.comment),
                direction: Some(packet.direction),
                dropped: None,
                packet_id: None,
            },
        );
        self.counts.written(packet.interface, original_len);
        self.written[index] += 1;
        self.left = self.left.map(|left| left - 1);
        self.left == Some(0)
    }

    /// Appends what was captured up to `end_ns` and is still on its way; false when nobody reads.
    async fn drain(&mut self, packets: &mut mpsc::Receiver<PacketRecord>, end_ns: u64) -> bool {
        let last = Instant::now() + DRAIN_MOST;
        while Instant::now() < last
            && let Ok(Some(packet)) = timeout(SILENCE, packets.recv()).await
        {
            if packet.timestamp_ns <= end_ns {
                if self.packet(&packet) {
                    break;
                }
            } else if packet.timestamp_ns > end_ns.saturating_add(nanos(SILENCE)) {
                break; // traffic goes on, and what came before the end has arrived
            }
            if self.buffer.len() >= FLUSH_BYTES && !self.flush().await {
                return false;
            }
        }
        true
    }

    /// Appends the statistics of each interface; gives the sums of what was received and dropped.
    fn statistics(&mut self, start_ns: u64, end_ns: u64) -> (u64, u64) {
        let mut sums = (0, 0);
        for (interface, delivered) in (0_u32..).zip(&self.written) {
            let (received, dropped) = (self.counts.received(interface), self.counts.dropped(interface));
            sums = (sums.0 + received, sums.1 + dropped);
            pcapng::statistics(
                &mut self.buffer,
                &InterfaceStatistics {
                    interface,
                    start_ns,
                    end_ns,
                    received,
                    dropped,
                    accepted: received,
                    delivered: *delivered,
                },
            );
        }
        sums
    }

    /// Sends what is buffered, waiting for room; false when nobody reads.
    async fn flush(&mut self) -> bool {
        let bytes = self.buffer.split().freeze();
        let len = bytes.len() as u64;
        if len == 0 {
            return !self.out.is_closed();
        }
        let read = self.out.send(bytes).await.is_ok();
        if read {
            self.sent += len;
        }
        read
    }
}

/// `curl[1234] -> nginx[77]`, with the unknown end left out.
fn describe(comment: &mut String, sender: Option<&Party>, receiver: Option<&Party>) {
    // Writing to a String cannot fail.
    let _ = match (sender, receiver) {
        (Some(s), Some(r)) => write!(comment, "{}[{}] -> {}[{}]", s.process, s.pid, r.process, r.pid),
        (Some(s), None) => write!(comment, "{}[{}] ->", s.process, s.pid),
        (None, Some(r)) => write!(comment, "-> {}[{}]", r.process, r.pid),
        (None, None) => Ok(()),
    };
}

/// Never, when there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn unix_now() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
