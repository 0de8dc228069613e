//! What to capture, in words of the command line.

use anyhow::Result;
use clap::Args;

use crate::model::{RawCapture, capture::Legs, fault_words::EndWords};

#[derive(Debug, Args)]
pub(super) struct CaptureWords {
    #[command(flatten)]
    ends: EndWords,
    /// Interface to capture on, NAME or NAME@NAMESPACE; may be given several times [default: all that are up]
    ///
    /// A network namespace goes by its name in `ip netns`, or by the id of a process in it. `any` is every interface that
    /// is up, `any@*` those of every namespace.
    #[arg(long = "interface", short, value_name = "NAME", value_delimiter = ',')]
    interfaces: Vec<String>,
    /// tcpdump expression that packets have to pass, too, such as 'tcp port 80'
    #[arg(long, short, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Take a packet as often as it is seen, on veth, bridge and eth0
    #[arg(long)]
    duplicates: bool,
    /// Which leg of intercepted connections
    #[arg(long, value_enum, default_value_t)]
    legs: Legs,
    /// Take one connection in N
    #[arg(long, value_name = "N")]
    sample: Option<u32>,
    /// Bytes kept of each packet, from 64 [default: 262144]
    #[arg(long, short, value_name = "BYTES")]
    snaplen: Option<u32>,
    /// End after this time, such as 10s
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<String>,
    /// End after this many packets
    #[arg(long, short)]
    count: Option<u64>,
    /// End after so many bytes, such as 1GB
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Begin a new file, whole in itself, when one has this size, such as 100MB
    #[arg(long, value_name = "SIZE")]
    file_size: Option<String>,
    /// With --file-size: keep so many files, the newest
    #[arg(long, value_name = "N")]
    files: Option<u32>,
    /// Keep the packets of so much time in memory, and write them when something of --on happens, such as 30s
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// What to wait for: reset, 'errors>1%', 'p99>1s' (or p50, p90); may be given several times
    #[arg(long, value_name = "EVENT", requires = "before")]
    on: Vec<String>,
    /// Go on so long after it happened [default: 10s]
    #[arg(long, value_name = "TIME", requires = "before")]
    after: Option<String>,
    /// Leave out the TLS secrets of processes that log them (SSLKEYLOGFILE)
    #[arg(long)]
    no_secrets: bool,
}

impl CaptureWords {
    pub(super) fn to_raw(&self) -> Result<RawCapture> {
        Ok(RawCapture {
            from: self.ends.from()?,
            to: self.ends.to()?,
            everything: false,
            filter: self.filter.clone(),
            interfaces: self.interfaces.clone(),
            duplicates: self.duplicates,
            legs: self.legs,
            sample: self.sample,
            snaplen: self.snaplen,
            count: self.count,
            duration: self.duration.clone(),
            size: self.size.clone(),
            file_size: self.file_size.clone(),
            files: self.files,
            keep: false,
            before: self.before.clone(),
            on: self.on.clone(),
            after: self.after.clone(),
            no_secrets: self.no_secrets,
        })
    }
}
