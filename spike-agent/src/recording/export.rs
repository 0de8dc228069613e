//! The calls of a recording in other tools' formats.

mod curl;
mod har;
mod pcapng;

use std::{collections::HashMap, io::Write};

use serde_json::{Value, json};

use super::{CallFilter, CallRow, ConnectionRow, Reader, RecordingError};

pub use curl::curl;
pub use har::har;
pub use pcapng::pcapng;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The other file cannot be written.
    #[error("write the export: {0}")]
    Write(#[from] std::io::Error),
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Calls.
    pub calls: u64,
    /// Calls that the format has no place for.
    pub left_out: u64,
}

/// All calls, a JSON object a line.
///
/// # Errors
/// When the one cannot be read or the other not written.
pub fn jsonl(reader: &Reader, out: &mut dyn Write) -> Result<Written, ExportError> {
    let connections = by_id(reader)?;
    let mut written = Written::default();
    reader.each_call(&CallFilter::default(), |row| {
        writeln!(out, "{}", value(&row, connections.get(&row.call.connection)))?;
        written.calls += 1;
        Ok::<_, ExportError>(())
    })?;
    Ok(written)
}

/// A call as JSON, with what is known of its connection.
pub fn value(row: &CallRow, connection: Option<&ConnectionRow>) -> Value {
    let call = &row.call;
    let opened = connection.map(|row| &row.opened);
    json!({
        "id": row.id,
        "connection": call.connection,
        "sequence": row.sequence,
        "caller": opened.map(|opened| &opened.caller),
        "callee": opened.map(|opened| &opened.callee),
        "server": opened.map(|opened| &opened.server),
        "host": opened.map(|opened| &opened.host),
        "protocol": call.protocol,
        "operation": call.operation,
        "target": call.target,
        "status": call.status,
        "failed": call.failed,
        "complete": call.complete,
        "started_ns": call.started_ns,
        "sent_ns": call.sent_ns,
        "first_byte_ns": call.first_byte_ns,
        "ended_ns": call.ended_ns,
        "request_bytes": call.request_at.end - call.request_at.start,
        "response_bytes": call.response_at.as_ref().map(|range| range.end - range.start),
        "request": call.request,
        "response": call.response,
        "redactions": call.redactions,
    })
}

fn by_id(reader: &Reader) -> Result<HashMap<i64, ConnectionRow>, RecordingError> {
    let rows = reader.connections()?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}
