//! What a capture is made of, so that the kernel side and the file side need not know each other.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::secrets::KeyLog;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// The process id as the host sees it.
    pub pid: u32,
    /// The name of the executable.
    pub process: String,
    /// The service that it is of, where that goes by another name.
    pub service: Option<String>,
    /// The container that it runs in.
    pub container: Option<String>,
}

/// What is known of the packets of one direction of a connection; shared by all of them.
#[derive(Debug, Default)]
pub struct About {
    /// Unlike that of any other, so that what was said of one is not said again.
    pub number: u64,
    /// `curl[1234] -> nginx[77] service=web container=web-1`; empty when nothing is known.
    pub comment: String,
    /// Names of addresses.
    pub names: Vec<(IpAddr, String)>,
    /// Where the processes at its ends log their TLS secrets.
    pub key_logs: Vec<Arc<KeyLog>>,
    /// The same for both legs of an intercepted connection. May be learned some time after the packet.
    pub leg: OnceLock<u64>,
}

impl About {
    /// What is known when these are the ends.
    pub fn new(sender: Option<&Party>, receiver: Option<&Party>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut comment = String::new();
        if let Some(sender) = sender {
            sender.describe(&mut comment);
            comment.push(' ');
        }
        if sender.is_some() || receiver.is_some() {
            comment.push_str("->");
        }
        if let Some(receiver) = receiver {
            comment.push(' ');
            receiver.describe(&mut comment);
        }
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            comment,
            ..Self::default()
        }
    }
}

impl Party {
    fn describe(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}[{}]", self.process, self.pid);
        for (key, value) in [("service", &self.service), ("container", &self.container)] {
            if let Some(value) = value {
                let _ = write!(out, " {key}={value}");
            }
        }
    }
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
    /// Packets lost since the one before.
    pub dropped: u32,
    /// It resets its connection.
    pub resets: bool,
    /// What is known of it beside its bytes.
    pub about: Arc<About>,
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
    /// What was asked to be captured, in words.
    pub filter: Option<String>,
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
    /// Told when what the session waited for has happened, and what that is.
    fn triggered(&self, what: &str) {
        let _ = what;
    }
    /// Told what a reader should know of the capture.
    fn note(&self, note: String) {
        let _ = note;
    }
}
