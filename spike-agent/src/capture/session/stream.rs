//! Writes the pcapng of a session: sections with all that a reader needs, names and secrets before the packets they are for.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{End, SessionSpec, unix_now};
use crate::capture::pcapng::{self, EnhancedPacket, InterfaceDescription, InterfaceStatistics, Section};
use crate::capture::record::{DropCounts, Interface, PacketRecord};
use crate::capture::secrets::{Follower, KeyLog};

/// So much is sent at once.
const FLUSH_BYTES: usize = 64 * 1024;
/// Secrets that are repeated in each section; the oldest go first.
const MOST_SECRETS: usize = 4 * 1024 * 1024;
/// Bounds the memory for what has been said.
const MOST_SAID: usize = 65_536;
/// What a packet's block takes beside its bytes and its comment.
const BLOCK_BYTES: usize = 96;

/// The pcapng stream of a session, of which the end still waits to be sent.
pub(super) struct Stream {
    interfaces: Vec<Interface>,
    out: mpsc::Sender<Bytes>,
    counts: Arc<dyn DropCounts>,
    buffer: BytesMut,
    /// Of each interface.
    totals: Vec<Totals>,
    /// Packets still wanted.
    left: Option<u64>,
    /// Bytes after which the session ends.
    size: Option<u64>,
    /// Bytes after which a section ends.
    file_size: Option<u64>,
    sent: u64,
    /// Where in the stream the section began.
    section_at: u64,
    section_ns: u64,
    section_packets: u64,
    unknown_interface: u64,
    /// Numbers of the [`About`](crate::capture::record::About)s whose names are in the section.
    said: HashSet<u64>,
    named: HashSet<IpAddr>,
    logs: Vec<(Arc<KeyLog>, Follower)>,
    /// Those of which `learn` has heard.
    learned: HashSet<u64>,
    secrets: Vec<u8>,
    /// What has happened just before the next packet.
    mark: Option<String>,
}

/// The counts of an interface.
#[derive(Clone, Copy, Default)]
struct Totals {
    written: u64,
    /// At the start of the section, as are the two below.
    written_before: u64,
    received_before: u64,
    dropped_before: u64,
}

impl Stream {
    pub(super) fn new(
        spec: &SessionSpec,
        out: mpsc::Sender<Bytes>,
        counts: Arc<dyn DropCounts>,
        start_ns: u64,
    ) -> Self {
        Self {
            out,
            counts,
            buffer: BytesMut::with_capacity(2 * FLUSH_BYTES),
            totals: vec![Totals::default(); spec.interfaces.len()],
            left: spec.count,
            size: spec.size,
            file_size: spec.file_size,
            sent: 0,
            section_at: 0,
            section_ns: start_ns,
            section_packets: 0,
            unknown_interface: 0,
            said: HashSet::new(),
            named: HashSet::new(),
            logs: Vec::new(),
            learned: HashSet::new(),
            secrets: Vec::new(),
            mark: None,
            interfaces: spec.interfaces.clone(),
        }
    }

    /// Packets written.
    pub(super) fn packets(&self) -> u64 {
        self.totals.iter().map(|totals| totals.written).sum()
    }

    /// Bytes that the reader was given.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn unknown_interface(&self) -> u64 {
        self.unknown_interface
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next packet gets a comment that tells of this.
    pub(super) fn mark(&mut self, what: &str) {
        self.mark = Some(what.to_owned());
    }

    /// Begins a section.
    pub(super) fn header(&mut self) {
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
                    filter: interface.filter.as_deref(),
                },
            );
        }
        if !self.secrets.is_empty() {
            pcapng::secrets(&mut self.buffer, &self.secrets);
        }
    }

    /// Looks at who a packet is of; whether it has to be held back for what may be learned.
    pub(super) fn learn(&mut self, packet: &PacketRecord) -> bool {
        let logs = &packet.about.key_logs;
        if logs.is_empty() {
            return false;
        }
        if self.learned.len() >= MOST_SAID {
            self.learned.clear();
        }
        if self.learned.insert(packet.about.number) {
            for log in logs {
                if !self.logs.iter().any(|(known, _)| Arc::ptr_eq(known, log)) {
                    self.logs.push((Arc::clone(log), Follower::default()));
                }
            }
        }
        true
    }

    /// Writes the secrets that were logged meanwhile.
    pub(super) async fn read_secrets(&mut self) {
        if self.logs.is_empty() {
            return;
        }
        let mut logs = std::mem::take(&mut self.logs);
        // A file may be on a disk that makes its readers wait.
        let read = tokio::task::spawn_blocking(move || {
            let new: Vec<u8> = logs
                .iter_mut()
                .flat_map(|(log, follower)| follower.read(log))
                .collect();
            (logs, new)
        });
        let Ok((logs, new)) = read.await else { return };
        self.logs = logs;
        if new.is_empty() {
            return;
        }
        pcapng::secrets(&mut self.buffer, &new);
        self.secrets.extend_from_slice(&new);
        if self.secrets.len() > MOST_SECRETS {
            let half = self.secrets.len() / 2;
            let line = self.secrets[half..].iter().position(|&byte| byte == b'\n');
            self.secrets.drain(..half + line.map_or(0, |at| at + 1));
        }
    }

    /// Appends a packet; an error when the session has all that it wants, or nobody reads it.
    pub(super) async fn packet(&mut self, packet: &PacketRecord) -> Result<(), End> {
        if self.left == Some(0) {
            return Err(End::Count);
        }
        if self.size.is_some_and(|size| self.position() >= size) {
            return Err(End::Size);
        }
        let index = packet.interface as usize;
        let Some(interface) = self.interfaces.get(index) else {
            self.unknown_interface += 1;
            return Ok(());
        };
        let kept = match interface.snaplen {
            0 => packet.data.len(),
            snaplen => packet.data.len().min(snaplen as usize),
        };
        self.roll(kept + packet.about.comment.len() + BLOCK_BYTES).await?;
        self.names(packet);
        // Never less than what was captured: readers reject that.
        let original_len = packet.original_len.max(u32::try_from(kept).unwrap_or(u32::MAX));
        let marked = self
            .mark
            .take()
            .map(|what| format!("{} (triggered: {what})", packet.about.comment));
        let comment = marked.as_deref().unwrap_or(&packet.about.comment);
        pcapng::packet(
            &mut self.buffer,
            &EnhancedPacket {
                interface: packet.interface,
                timestamp_ns: packet.timestamp_ns,
                original_len,
                data: &packet.data[..kept],
                comment: (!comment.is_empty()).then_some(comment.trim_start()),
                direction: Some(packet.direction),
                dropped: (packet.dropped > 0).then_some(packet.dropped.into()),
                packet_id: packet.about.leg.get().copied(),
            },
        );
        self.counts.written(packet.interface, original_len);
        self.totals[index].written += 1;
        self.section_packets += 1;
        self.left = self.left.map(|left| left - 1);
        if self.left == Some(0) {
            return Err(End::Count);
        }
        if self.size.is_some_and(|size| self.position() >= size) {
            return Err(End::Size);
        }
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Begins a new section when the next `more` bytes do not fit into this one.
    async fn roll(&mut self, more: usize) -> Result<(), End> {
        let would_be = self.position() - self.section_at + more as u64;
        if self.section_packets == 0 || self.file_size.is_none_or(|size| would_be <= size) {
            return Ok(());
        }
        self.statistics(unix_now());
        // So that the section begins a piece of its own.
        self.flush().await?;
        self.section_at = self.sent;
        self.section_ns = unix_now();
        self.section_packets = 0;
        self.said.clear();
        self.named.clear();
        for (interface, totals) in (0..).zip(&mut self.totals) {
            totals.written_before = totals.written;
            totals.received_before = self.counts.received(interface);
            totals.dropped_before = self.counts.dropped(interface);
        }
        self.header();
        Ok(())
    }

    /// Names the addresses of a packet that have no name yet.
    fn names(&mut self, packet: &PacketRecord) {
        let about = &packet.about;
        if about.names.is_empty() || self.said.contains(&about.number) {
            return;
        }
        if self.said.len() >= MOST_SAID {
            self.said.clear();
        }
        self.said.insert(about.number);
        let named = &mut self.named;
        let new: Vec<_> = about
            .names
            .iter()
            .filter(|(address, _)| named.insert(*address))
            .collect();
        if !new.is_empty() {
            pcapng::names(&mut self.buffer, new);
        }
    }

    /// Appends the statistics of the section; gives the sums, since the start, of what was received and dropped.
    pub(super) fn statistics(&mut self, end_ns: u64) -> (u64, u64) {
        let mut sums = (0, 0);
        for (interface, totals) in (0_u32..).zip(&self.totals) {
            let (received, dropped) = (self.counts.received(interface), self.counts.dropped(interface));
            sums = (sums.0 + received, sums.1 + dropped);
            let received = received.saturating_sub(totals.received_before);
            pcapng::statistics(
                &mut self.buffer,
                &InterfaceStatistics {
                    interface,
                    start_ns: self.section_ns,
                    end_ns,
                    received,
                    dropped: dropped.saturating_sub(totals.dropped_before),
                    accepted: received,
                    delivered: totals.written - totals.written_before,
                },
            );
        }
        sums
    }

    /// Bytes of the stream so far.
    fn position(&self) -> u64 {
        self.sent + self.buffer.len() as u64
    }

    /// Sends what is buffered, waiting for room; an error when nobody reads.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        let bytes = self.buffer.split().freeze();
        let len = bytes.len() as u64;
        if len == 0 {
            return if self.out.is_closed() {
                Err(End::ReaderGone)
            } else {
                Ok(())
            };
        }
        self.out.send(bytes).await.map_err(|_| End::ReaderGone)?;
        self.sent += len;
        Ok(())
    }
}
