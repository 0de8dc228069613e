//! What a capture is made of, so that the kernel side and the file side need not know each other.

use std::sync::Arc;

use bytes::Bytes;

/// Which way a packet went, seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Received on the interface.
    In,
    /// Sent on the interface.
    Out,
}

/// What the first byte of a packet belongs to; decides how a reader of the file decodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// An Ethernet header comes first (`lo` and veth have one as well).
    Ethernet,
    /// An IP header comes first (tun, wireguard).
    Raw,
}

/// One process at an end of a packet, named in the packet's comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The process id as the host sees it.
    pub pid: u32,
    /// The name of the executable; shared, because many packets have the same.
    pub process: Arc<str>,
}

/// One packet on its way from the kernel into a capture.
#[derive(Debug, Clone)]
pub struct PacketRecord {
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Index into the session's table of interfaces.
    pub interface: u32,
    /// Which way the packet went.
    pub direction: Direction,
    /// The length on the wire; more than `data` has where the packet was cut.
    pub original_len: u32,
    /// The packet from its link-layer header on, at most the interface's snaplen.
    pub data: Bytes,
    /// Who sent it, when that is known.
    pub sender: Option<Party>,
    /// Whom it is for, when that is known.
    pub receiver: Option<Party>,
}

/// One interface of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// As the user knows it: `eth0`, or `eth0@namespace` outside the host's network namespace.
    pub name: String,
    /// How packets of this interface begin.
    pub link_type: LinkType,
    /// Longest packet that is kept, in bytes; 0 is "no limit".
    pub snaplen: u32,
}

/// The counts of one capture: the kernel's, asked for when the statistics are written, and the session's, told as it goes.
pub trait DropCounts: Send + Sync {
    /// Packets that the capture chose on this interface, dropped ones included.
    fn received(&self, interface: u32) -> u64;
    /// Packets that the capture chose on this interface and could not deliver to the session.
    fn dropped(&self, interface: u32) -> u64;
    /// Told of each packet that the session writes, with its length on the wire, for those who watch it grow.
    fn written(&self, interface: u32, wire_bytes: u32) {
        let _ = (interface, wire_bytes);
    }
}
