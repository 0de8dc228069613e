//! The tables of a recording, and what makes a file one.

use rusqlite::{Connection, Result};

/// Number of the layout (`PRAGMA user_version`). It changes when older programs could not read a file rightly; columns and
/// tables may be added without.
pub const FORMAT: i64 = 1;
/// `PRAGMA application_id`: `SPKR`.
pub(super) const APPLICATION: i64 = 0x5350_4b52;
/// Bytes of a page: large, since most of a recording is in chunks of many KiB.
const PAGE: i64 = 16 << 10;
/// Bytes of pages that SQLite keeps in memory, as it wants it: negative, in KiB.
const CACHE: i64 = -8192;
/// Pages in the write-ahead log after which it is folded into the file: 32 MiB.
const CHECKPOINT: i64 = (32 << 20) / PAGE;

const TABLES: &str = "
    CREATE TABLE meta (
        about TEXT NOT NULL
    ) STRICT;
    CREATE TABLE connection (
        id INTEGER PRIMARY KEY,
        transport TEXT NOT NULL,
        protocol TEXT,
        opened_ns INTEGER NOT NULL,
        closed_ns INTEGER,
        ended TEXT NOT NULL DEFAULT 'open',
        caller TEXT NOT NULL,
        caller_pid INTEGER NOT NULL,
        caller_exe TEXT NOT NULL,
        caller_cgroup TEXT NOT NULL,
        callee TEXT NOT NULL,
        client TEXT NOT NULL,
        server TEXT NOT NULL,
        host TEXT,
        client_bytes INTEGER NOT NULL DEFAULT 0,
        server_bytes INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE chunk (
        connection INTEGER NOT NULL REFERENCES connection (id),
        side INTEGER NOT NULL,
        position INTEGER NOT NULL,
        at_ns INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE INDEX chunk_position ON chunk (connection, side, position);
    CREATE TABLE call (
        id INTEGER PRIMARY KEY,
        connection INTEGER NOT NULL REFERENCES connection (id),
        protocol TEXT NOT NULL,
        side INTEGER NOT NULL,
        operation TEXT NOT NULL,
        target TEXT NOT NULL,
        status TEXT,
        failed INTEGER NOT NULL,
        complete INTEGER NOT NULL,
        started_ns INTEGER NOT NULL,
        sent_ns INTEGER,
        first_byte_ns INTEGER,
        ended_ns INTEGER NOT NULL,
        request_from INTEGER NOT NULL,
        request_to INTEGER NOT NULL,
        response_from INTEGER,
        response_to INTEGER,
        stream INTEGER,
        request TEXT NOT NULL,
        response TEXT NOT NULL,
        redactions TEXT NOT NULL
    ) STRICT;
    CREATE INDEX call_start ON call (started_ns);
    CREATE INDEX call_connection ON call (connection);
    CREATE TABLE name (
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        answer TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        PRIMARY KEY (name, kind, answer)
    ) STRICT;
    CREATE TABLE loss (
        at_ns INTEGER NOT NULL,
        connection INTEGER REFERENCES connection (id),
        why TEXT NOT NULL,
        count INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT;
";

/// Makes an empty database a recording.
pub(super) fn make(database: &Connection) -> Result<()> {
    // Before the first table, else it has no effect.
    database.pragma_update(None, "page_size", PAGE)?;
    tune(database)?;
    // What a killed program leaves is either a recording or empty.
    database.execute_batch("BEGIN")?;
    database.execute_batch(TABLES)?;
    database.pragma_update(None, "application_id", APPLICATION)?;
    database.pragma_update(None, "user_version", FORMAT)?;
    database.execute_batch("COMMIT")
}

/// For writing.
pub(super) fn tune(database: &Connection) -> Result<()> {
    database.pragma_update(None, "journal_mode", "WAL")?;
    // A killed process loses nothing that was committed; a power cut may lose the last seconds, never the file.
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
    database.pragma_update(None, "journal_size_limit", CHECKPOINT * PAGE)?;
    database.pragma_update(None, "cache_size", CACHE)?;
    // Sums of sorting, which are few, stay off other disks.
    database.pragma_update(None, "temp_store", "MEMORY")
}
