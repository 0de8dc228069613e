//! The tables of the history and what is written to and read from them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Result, params};

use super::{HistoryError, Step};
use crate::model::view::EdgeView;
use crate::topology::{Counts, is_transport};

/// Number of this layout; a file of a later one is put aside.
const LAYOUT: i64 = 1;
/// First byte of a step's data: how the rest is written.
const ENCODING: u8 = 1;
/// So many edges are asked for one by one; of more, all are read.
const SINGLY: usize = 256;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS step (
        from_ms INTEGER NOT NULL,
        to_ms INTEGER NOT NULL,
        level INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS step_end ON step (to_ms);
    CREATE INDEX IF NOT EXISTS step_level ON step (level, from_ms);
    CREATE TABLE IF NOT EXISTS edge (
        id INTEGER PRIMARY KEY,
        identity TEXT NOT NULL,
        seen_ms INTEGER NOT NULL
    ) STRICT;
";

pub(super) fn open(path: &Path) -> std::result::Result<Connection, HistoryError> {
    let error = |doing| {
        move |source| HistoryError::Database {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    // Who calls whom is not everyone's business: SQLite gives its other files the mode of this one.
    let made = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    made.map_err(|source| rusqlite::Error::ToSqlConversionFailure(Box::new(source)))
        .map_err(error("make"))?;
    let database = Connection::open(path).map_err(error("open"))?;
    prepare(&database).map_err(error("open"))?;
    Ok(database)
}

fn prepare(database: &Connection) -> Result<()> {
    // Before the first table, else it has no effect.
    database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    // A killed process loses nothing that was committed; a power cut may lose the last steps, never the file.
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update(None, "journal_size_limit", 4 << 20)?;
    let layout: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if layout > LAYOUT {
        return Err(rusqlite::Error::InvalidQuery);
    }
    database.execute_batch(TABLES)?;
    database.pragma_update(None, "user_version", LAYOUT)
}

/// A file that cannot be used makes room for a new one.
pub(super) fn put_aside(path: &Path) {
    let with = |ending: &str| {
        let mut name = OsString::from(path);
        name.push(ending);
        PathBuf::from(name)
    };
    _ = fs::rename(path, with(".broken"));
    for part in ["-wal", "-shm"] {
        _ = fs::remove_file(with(part));
    }
}

pub(super) fn add(database: &mut Connection, step: &Step, identities: &[(u64, EdgeView)]) -> Result<()> {
    let change = database.transaction()?;
    {
        let mut upsert = change.prepare_cached(
            "INSERT INTO edge VALUES (?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET identity = excluded.identity, seen_ms = excluded.seen_ms",
        )?;
        let mut known = change.prepare_cached("SELECT identity FROM edge WHERE id = ?1")?;
        for (id, view) in identities {
            let mut view = view.clone();
            if is_transport(&view.protocol) {
                let was: Option<String> = known.query_row([id.cast_signed()], |row| row.get(0)).optional()?;
                let was = was.and_then(|text| serde_json::from_str::<EdgeView>(&text).ok());
                view.protocol = was.map_or(view.protocol, |was| was.protocol);
            }
            let text = serde_json::to_string(&view)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            upsert.execute(params![id.cast_signed(), text, step.to_ms])?;
        }
        if !step.edges.is_empty() {
            insert(&change, step, 0)?;
        }
    }
    change.commit()
}

pub(super) fn insert(database: &Connection, step: &Step, level: i64) -> Result<()> {
    let data = encode(&step.edges).ok_or(rusqlite::Error::InvalidQuery)?;
    let mut insert = database.prepare_cached("INSERT INTO step VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![step.from_ms, step.to_ms, level, data])?;
    Ok(())
}

/// Gives the start, the end and the data of each step, the oldest first, until `each` is false. Steps do not overlap, and
/// in the order of their ends they come out of the index: to sort them would copy all their data.
pub(super) fn each_between(
    database: &Connection,
    from_ms: i64,
    to_ms: i64,
    mut each: impl FnMut(i64, i64, &[u8]) -> bool,
) -> Result<()> {
    let mut steps = database.prepare_cached(
        "SELECT from_ms, to_ms, data FROM step WHERE to_ms > ?1 AND from_ms < ?2 ORDER BY to_ms",
    )?;
    let mut rows = steps.query([from_ms, to_ms])?;
    while let Some(row) = rows.next()? {
        if !each(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_blob()?) {
            break;
        }
    }
    Ok(())
}

pub(super) fn identities(database: &Connection, ids: &[u64]) -> Result<HashMap<u64, EdgeView>> {
    // One of another version that cannot be read is an edge that is not known.
    let read = |text: &str| serde_json::from_str(text).ok();
    let mut found = HashMap::new();
    if ids.len() <= SINGLY {
        let mut one = database.prepare_cached("SELECT identity FROM edge WHERE id = ?1")?;
        for id in ids {
            let text: Option<String> = one.query_row([id.cast_signed()], |row| row.get(0)).optional()?;
            found.extend(text.and_then(|text| read(&text)).map(|view| (*id, view)));
        }
        return Ok(found);
    }
    let wanted: HashSet<u64> = ids.iter().copied().collect();
    let mut all = database.prepare_cached("SELECT id, identity FROM edge")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get::<_, i64>(0)?.cast_unsigned();
        if wanted.contains(&id) {
            let text = row.get_ref(1)?.as_str().ok();
            found.extend(text.and_then(read).map(|view| (id, view)));
        }
    }
    Ok(found)
}

pub(super) fn oldest(database: &Connection) -> Result<Option<i64>> {
    database.query_row("SELECT MIN(from_ms) FROM step", [], |row| row.get(0))
}

pub(super) fn encode(edges: &[(u64, Counts)]) -> Option<Vec<u8>> {
    let mut data = vec![ENCODING];
    data.extend(postcard::to_allocvec(edges).ok()?);
    Some(data)
}

/// The edges of a step, one at a time: in memory they are several times as large as their data.
pub(super) fn decode(data: &[u8]) -> Edges<'_> {
    let start = match data.split_first() {
        Some((&ENCODING, rest)) => postcard::take_from_bytes(rest).ok(),
        _ => None,
    };
    let (left, rest) = start.unwrap_or((1, &[]));
    Edges { left, rest }
}

/// Gives an edge at a time; when one cannot be read, it ends with [`is_damaged`](Self::is_damaged).
pub(super) struct Edges<'a> {
    left: usize,
    rest: &'a [u8],
}

impl Edges<'_> {
    /// There should be more, and cannot be read.
    pub(super) fn is_damaged(&self) -> bool {
        self.left > 0
    }
}

impl Iterator for Edges<'_> {
    type Item = (u64, Counts);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (edge, rest) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        self.left -= 1;
        Some(edge)
    }
}
