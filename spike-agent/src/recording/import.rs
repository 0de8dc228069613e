//! Recordings made of other tools' files.

mod datagrams;
mod har;
mod packets;

use std::{collections::BTreeMap, path::Path, sync::atomic::Ordering};

use super::{
    About, NewConnection, RecordingError, Redaction, Writer,
    live::{Counts, connection::Carried},
};
use crate::{capture::show::ShowError, protocol::Side};

pub use har::har;
pub use packets::packets;

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The recording cannot be written.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The other file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// It is JSON, but no HAR.
    #[error("this is no HTTP archive: {0}")]
    Har(String),
    /// It is neither pcapng nor pcap, or damaged.
    #[error(transparent)]
    Capture(#[from] ShowError),
    /// There is nothing in it that a recording could hold.
    #[error("there is no {0} in it")]
    Empty(&'static str),
}

/// What was imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Connections.
    pub connections: u64,
    /// Calls.
    pub calls: u64,
    /// Bytes of both directions.
    pub bytes: u64,
    /// Entries or packets that were left out.
    pub left_out: u64,
    /// Bytes that the other file does not have.
    pub missing: u64,
    /// The other file ends in the midst of something.
    pub is_cut: bool,
}

/// Fills a recording as the recorder does; removed again when that fails.
struct Importer {
    writer: Option<Writer>,
    rules: Redaction,
    counts: Counts,
    open: BTreeMap<u64, Carried>,
    next: u64,
    uncommitted: usize,
    made: Option<std::path::PathBuf>,
}

impl Importer {
    fn new(path: &Path, from: &str, started_unix_ns: u64, rules: Redaction) -> Result<Self, ImportError> {
        let about = About {
            started_unix_ns,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            spike: env!("CARGO_PKG_VERSION").to_owned(),
            selector: serde_json::json!({"imported": from}),
            redaction: rules.to_words(),
            ..About::default()
        };
        Ok(Self {
            writer: Some(Writer::create(path, &about)?),
            rules,
            counts: Counts::default(),
            open: BTreeMap::new(),
            next: 0,
            uncommitted: 0,
            made: Some(path.to_owned()),
        })
    }

    fn open(&mut self, new: &NewConnection) -> Result<u64, ImportError> {
        let id = self.next;
        self.next += 1;
        if let Some(writer) = &mut self.writer {
            let row = writer.add_connection(new)?;
            let carried = Carried::new(row, new, self.rules.clone(), None);
            self.open.insert(id, carried);
            self.counts.connections.fetch_add(1, Ordering::Relaxed);
        }
        Ok(id)
    }

    fn bytes(
        &mut self,
        id: u64,
        from: Side,
        at_ns: u64,
        missing: u64,
        bytes: &[u8],
    ) -> Result<(), ImportError> {
        if let (Some(writer), Some(carried)) = (&mut self.writer, self.open.get_mut(&id)) {
            carried.missing(from, at_ns, missing, writer)?;
            if !bytes.is_empty() {
                carried.bytes(from, at_ns, bytes, writer, &self.counts)?;
            }
            self.counts.lost_bytes.fetch_add(missing, Ordering::Relaxed);
            self.uncommitted += bytes.len() + 64;
            // Else all of it would be in memory, or in the log beside the file.
            if self.uncommitted > 16 << 20 {
                self.uncommitted = 0;
                writer.commit()?;
            }
        }
        Ok(())
    }

    fn close(&mut self, id: u64, at_ns: Option<u64>, is_reset: bool) -> Result<(), ImportError> {
        if let (Some(writer), Some(mut carried)) = (&mut self.writer, self.open.remove(&id)) {
            carried.end(at_ns, is_reset, writer, &self.counts)?;
        }
        Ok(())
    }

    fn finish(mut self, ended_unix_ns: u64) -> Result<Imported, ImportError> {
        let open: Vec<u64> = self.open.keys().copied().collect();
        for id in open {
            self.close(id, None, false)?;
        }
        if let Some(writer) = self.writer.take() {
            writer.finish(ended_unix_ns)?;
        }
        self.made = None;
        let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        Ok(Imported {
            connections: get(&self.counts.connections),
            calls: get(&self.counts.calls),
            bytes: get(&self.counts.bytes),
            missing: get(&self.counts.lost_bytes),
            ..Imported::default()
        })
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        drop(self.writer.take());
        if let Some(path) = &self.made {
            for ending in ["", "-wal", "-shm"] {
                let mut name = path.as_os_str().to_owned();
                name.push(ending);
                let _ = std::fs::remove_file(name);
            }
        }
    }
}
