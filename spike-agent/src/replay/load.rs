//! Reads a recording into memory, taken apart into requests and answers.

use std::path::Path;

use super::{
    exchange::Talk,
    flow::{FLOW_LIMIT, Flow},
    wire::Recorded,
};
use crate::{
    protocol::Side,
    recording::{ConnectionRow, HowEnded, Reader, RecordingError},
};

/// Bytes of all connections that are in memory at most.
const TOTAL_LIMIT: u64 = 2 << 30;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// It would not fit into memory.
    #[error(
        "{0} holds more than 2 GiB, which is more than a replay keeps in memory: record fewer calls at a time"
    )]
    TooLarge(String),
    /// There is nothing in it.
    #[error("{0} has no connection in it: nothing was recorded")]
    Empty(String),
}

/// What a recording holds, for a replay.
#[derive(Debug)]
pub struct Loaded {
    /// One for each connection, in the order in which they were opened.
    pub talks: Vec<Talk>,
    /// When each was opened, in nanoseconds of the recording, in the same order.
    pub opened_ns: Vec<u64>,
    /// Names that were looked up, each with its type and an address.
    pub names: Vec<(String, String, String)>,
}

/// Reads a recording.
///
/// # Errors
/// Why it cannot be replayed.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let reader = Reader::open(path)?;
    let connections = reader.connections()?;
    let shown = || path.display().to_string();
    if connections.is_empty() {
        return Err(LoadError::Empty(shown()));
    }
    let total: u64 = connections
        .iter()
        .map(|row| row.sent.iter().sum::<u64>().min(2 * FLOW_LIMIT))
        .sum();
    if total > TOTAL_LIMIT {
        return Err(LoadError::TooLarge(shown()));
    }
    let mut talks = Vec::with_capacity(connections.len());
    for row in &connections {
        talks.push(talk(&reader, row)?);
    }
    let names = reader.names()?;
    Ok(Loaded {
        talks,
        opened_ns: connections.iter().map(|row| row.opened.opened_ns).collect(),
        names: names
            .into_iter()
            .map(|name| (name.name, name.kind, name.answer))
            .collect(),
    })
}

fn talk(reader: &Reader, row: &ConnectionRow) -> Result<Talk, RecordingError> {
    let flow = |side: Side| -> Result<Option<Flow>, RecordingError> {
        let sent = row.sent[side as usize];
        if sent > FLOW_LIMIT {
            return Ok(None);
        }
        let chunks = reader.chunks(row.id, side)?;
        let chunks = chunks
            .into_iter()
            .map(|chunk| (chunk.position, chunk.at_ns, chunk.bytes));
        Ok(Flow::new(chunks, sent))
    };
    let (client, answers) = (flow(Side::Client)?, flow(Side::Server)?);
    let is_too_long = client.is_none() || answers.is_none();
    let mut talk = Recorded {
        connection: row.id,
        protocol: row.protocol.clone(),
        server: row.opened.server.clone(),
        host: row.opened.host.clone(),
        callee: row.opened.callee.clone(),
        is_udp: row.opened.transport == "udp",
        opened_ns: row.opened.opened_ns,
        client: client.unwrap_or_default(),
        answers: answers.unwrap_or_default(),
        closed: row.ended != HowEnded::Open,
    }
    .split();
    if is_too_long {
        let limit = FLOW_LIMIT >> 20;
        talk.left_out.push(format!("one side sent more than {limit} MiB"));
    }
    Ok(talk)
}
