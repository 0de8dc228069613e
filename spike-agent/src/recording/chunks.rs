//! Finds the bytes of a part of what a side sent.

use std::ops::Range;

use rusqlite::{Connection, Result, params};

use super::{Chunk, writer::number};
use crate::protocol::Side;

/// The chunk that the range begins in begins before it.
const SELECT: &str = "SELECT position, at_ns, bytes FROM chunk WHERE connection = ?1 AND side = ?2 AND position < ?4 \
    AND position >= ifnull((SELECT max(position) FROM chunk WHERE connection = ?1 AND side = ?2 AND position <= ?3), 0) \
    ORDER BY position";

/// Gives each chunk that lies within `range`, cut to that, to `each`, until it fails.
pub(super) fn each<E>(
    database: &Connection,
    connection: i64,
    from: Side,
    range: &Range<u64>,
    mut each: impl FnMut(Chunk) -> std::result::Result<(), E>,
) -> Result<std::result::Result<(), E>> {
    let start = i64::try_from(range.start).unwrap_or(i64::MAX);
    let end = i64::try_from(range.end).unwrap_or(i64::MAX);
    let mut select = database.prepare_cached(SELECT)?;
    let mut rows = select.query(params![connection, number(from), start, end])?;
    while let Some(row) = rows.next()? {
        let chunk = Chunk {
            position: row.get::<_, i64>("position")?.cast_unsigned(),
            at_ns: row.get::<_, i64>("at_ns")?.cast_unsigned(),
            bytes: row.get("bytes")?,
        };
        if let Some(chunk) = chunk.within(range)
            && let Err(error) = each(chunk)
        {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

impl Chunk {
    /// The part that lies within `range`, if any.
    fn within(mut self, range: &Range<u64>) -> Option<Self> {
        let end = self.position + self.bytes.len() as u64;
        let (from, to) = (self.position.max(range.start), end.min(range.end));
        if from >= to {
            return None;
        }
        let length = self.bytes.len();
        self.bytes.truncate(length - (end - to) as usize);
        self.bytes.drain(..(from - self.position) as usize);
        self.position = from;
        Some(self)
    }
}
