//! Reads a recording, also one that still grows.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::{
    About, CallRow, Chunk, ConnectionRow, FORMAT, HowEnded, Loss, NameRow, NewCall, NewConnection,
    RecordingError, chunks,
    schema::APPLICATION,
    writer::{database_error, number},
};
use crate::protocol::Side;

type Result<T> = std::result::Result<T, RecordingError>;

/// First bytes of an SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes of its header, and where the header has the page size and the number of pages.
const HEADER: usize = 100;
const PAGE_SIZE: usize = 16;
const PAGES: usize = 28;

/// A recording that is read.
#[derive(Debug)]
pub struct Reader {
    database: Connection,
    path: PathBuf,
    about: About,
}

/// Which calls are wanted; all that is given must be true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Only of this connection.
    pub connection: Option<i64>,
    /// Only in this protocol, as [`ProtocolName::as_str`](crate::protocol::ProtocolName::as_str) has it.
    pub protocol: Option<String>,
}

impl Reader {
    /// Opens a file and checks that it is a recording, whole, and of a format that this Spike knows.
    ///
    /// # Errors
    /// Why it cannot be read, in words for people.
    pub fn open(path: &Path) -> Result<Self> {
        let is_short = check_header(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags);
        let database = opened.map_err(database_error(path, "open"))?;
        let patience = database.busy_timeout(std::time::Duration::from_secs(5));
        patience.map_err(database_error(path, "open"))?;
        let reader = Self {
            database,
            path: path.to_owned(),
            about: About::default(),
        };
        reader.check(is_short)
    }

    fn check(mut self, is_short: bool) -> Result<Self> {
        let pragma = |name| {
            self.database
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let short = || RecordingError::Damaged {
            path: self.path.clone(),
            why: "it is shorter than it says of itself; was it copied whole, with the -wal file beside it?"
                .to_owned(),
        };
        let application = pragma("application_id")
            .map_err(|error| if is_short { short() } else { self.damaged(&error) })?;
        if application != APPLICATION {
            return Err(self.foreign("it is an SQLite file of another program"));
        }
        let format = pragma("user_version").map_err(|error| self.damaged(&error))?;
        if format > FORMAT {
            return Err(RecordingError::Newer {
                path: self.path,
                format,
            });
        }
        if is_short {
            return Err(short());
        }
        let about = self
            .database
            .query_row("SELECT about FROM meta", [], |row| row.get::<_, String>(0))
            .map_err(|error| self.damaged(&error))?;
        self.about = self.parse(&about, "what it says of itself")?;
        Ok(self)
    }

    /// Reads the whole file in search of damage; takes as long as that.
    ///
    /// # Errors
    /// What is damaged.
    pub fn verify(&self) -> Result<()> {
        let found: String = self
            .database
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| self.damaged(&error))?;
        if found == "ok" {
            return Ok(());
        }
        Err(RecordingError::Damaged {
            path: self.path.clone(),
            why: found,
        })
    }

    /// What is known of the recording as a whole.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All connections, in the order in which they were opened.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn connections(&self) -> Result<Vec<ConnectionRow>> {
        let sql = "SELECT id, transport, protocol, opened_ns, closed_ns, ended, caller, caller_pid, caller_exe, \
                   caller_cgroup, callee, client, server, host, client_bytes, server_bytes \
                   FROM connection ORDER BY opened_ns, id";
        self.all(sql, [], |row| {
            let ended: String = row.get("ended")?;
            Ok(ConnectionRow {
                id: row.get("id")?,
                opened: NewConnection {
                    opened_ns: unsigned(row, "opened_ns")?,
                    transport: row.get("transport")?,
                    caller: row.get("caller")?,
                    caller_pid: row.get("caller_pid")?,
                    caller_exe: row.get("caller_exe")?,
                    caller_cgroup: row.get("caller_cgroup")?,
                    callee: row.get("callee")?,
                    client: row.get("client")?,
                    server: row.get("server")?,
                    host: row.get("host")?,
                },
                protocol: row.get("protocol")?,
                closed_ns: row.get::<_, Option<i64>>("closed_ns")?.map(i64::cast_unsigned),
                ended: match ended.as_str() {
                    "closed" => HowEnded::Closed,
                    "reset" => HowEnded::Reset,
                    _ => HowEnded::Open,
                },
                sent: [unsigned(row, "client_bytes")?, unsigned(row, "server_bytes")?],
            })
        })
    }

    /// Calls, in the order in which they began; their bytes are asked for one by one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn calls(&self, filter: &CallFilter) -> Result<Vec<CallRow>> {
        let mut calls = Vec::new();
        self.each_call(filter, |call| {
            calls.push(call);
            Ok(())
        })?;
        Ok(calls)
    }

    /// Gives each call to `each`, in the order in which they began, until it fails.
    ///
    /// # Errors
    /// When the file cannot be read, and what `each` fails with.
    pub fn each_call<E: From<RecordingError>>(
        &self,
        filter: &CallFilter,
        mut each: impl FnMut(CallRow) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let error = || database_error(&self.path, "read");
        let sql = "SELECT *, row_number() OVER (PARTITION BY connection ORDER BY started_ns, request_from, id) - 1 AS sequence \
                   FROM call WHERE (?1 IS NULL OR connection = ?1) AND (?2 IS NULL OR protocol = ?2) \
                   ORDER BY started_ns, id";
        let mut select = self.database.prepare_cached(sql).map_err(error())?;
        let mut rows = select
            .query(params![filter.connection, filter.protocol])
            .map_err(error())?;
        while let Some(row) = rows.next().map_err(error())? {
            each(self.read_call(row)?)?;
        }
        Ok(())
    }

    /// One call.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn call(&self, id: i64) -> Result<Option<CallRow>> {
        let calls = self
            .database
            .prepare_cached("SELECT connection FROM call WHERE id = ?1");
        let connection = calls.and_then(|mut select| select.query_row([id], |row| row.get(0)).optional());
        let connection: Option<i64> = connection.map_err(database_error(&self.path, "read"))?;
        if connection.is_none() {
            return Ok(None);
        }
        let filter = CallFilter {
            connection,
            ..CallFilter::default()
        };
        Ok(self.calls(&filter)?.into_iter().find(|row| row.id == id))
    }

    fn read_call(&self, row: &Row<'_>) -> Result<CallRow> {
        let error = || database_error(&self.path, "read");
        let texts = ["request", "response", "redactions"].map(|name| row.get::<_, String>(name));
        let [request, response, redactions] = texts.map(|text| text.map_err(error()));
        let id = row.get("id").map_err(error())?;
        let what = format!("call {id}");
        let (request, response) = (self.parse(&request?, &what)?, self.parse(&response?, &what)?);
        let redactions = self.parse(&redactions?, &what)?;
        let read = || -> rusqlite::Result<CallRow> {
            let optional = |name| -> rusqlite::Result<Option<u64>> {
                Ok(row.get::<_, Option<i64>>(name)?.map(i64::cast_unsigned))
            };
            let response_at = optional("response_from")?.zip(optional("response_to")?);
            Ok(CallRow {
                id,
                sequence: unsigned(row, "sequence")?,
                call: NewCall {
                    connection: row.get("connection")?,
                    protocol: row.get("protocol")?,
                    from: if row.get::<_, i64>("side")? == number(Side::Client) {
                        Side::Client
                    } else {
                        Side::Server
                    },
                    operation: row.get("operation")?,
                    target: row.get("target")?,
                    status: row.get("status")?,
                    failed: row.get("failed")?,
                    complete: row.get("complete")?,
                    started_ns: unsigned(row, "started_ns")?,
                    sent_ns: optional("sent_ns")?,
                    first_byte_ns: optional("first_byte_ns")?,
                    ended_ns: unsigned(row, "ended_ns")?,
                    request_at: unsigned(row, "request_from")?..unsigned(row, "request_to")?,
                    response_at: response_at.map(|(from, to)| from..to),
                    stream: optional("stream")?,
                    request,
                    response,
                    redactions,
                },
            })
        };
        read().map_err(error())
    }

    /// What one side of a connection sent, with the times, in order. Where positions have a gap, bytes are missing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn chunks(&self, connection: i64, from: Side) -> Result<Vec<Chunk>> {
        self.chunks_in(connection, from, 0..u64::MAX)
    }

    /// The part of it that lies within `range`; chunks are cut to that.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn chunks_in(&self, connection: i64, from: Side, range: Range<u64>) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        self.each_chunk(connection, from, range, |chunk| {
            chunks.push(chunk);
            Ok::<_, RecordingError>(())
        })?;
        Ok(chunks)
    }

    /// Gives each chunk that lies within `range`, cut to that, to `each`, until it fails; no more than one is in memory.
    ///
    /// # Errors
    /// When the file cannot be read, and what `each` fails with.
    pub fn each_chunk<E: From<RecordingError>>(
        &self,
        connection: i64,
        from: Side,
        range: Range<u64>,
        mut each: impl FnMut(Chunk) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let read = chunks::each(&self.database, connection, from, &range, &mut each);
        read.map_err(database_error(&self.path, "read"))?
    }

    /// Gives every chunk of all connections, by the time at which it passed, to `each`, until it fails.
    ///
    /// # Errors
    /// When the file cannot be read, and what `each` fails with.
    pub fn each_chunk_in_time<E: From<RecordingError>>(
        &self,
        mut each: impl FnMut(i64, Side, Chunk) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        // The bytes are fetched one by one: sorting them would take as much memory as the file.
        let rows = self.all("SELECT rowid FROM chunk ORDER BY at_ns, rowid", [], |row| {
            row.get::<_, i64>(0)
        })?;
        for id in rows {
            let sql = "SELECT connection, side, position, at_ns, bytes FROM chunk WHERE rowid = ?1";
            let read = || -> rusqlite::Result<(i64, Side, Chunk)> {
                let mut select = self.database.prepare_cached(sql)?;
                select.query_row([id], |row| {
                    let from = if row.get::<_, i64>("side")? == number(Side::Client) {
                        Side::Client
                    } else {
                        Side::Server
                    };
                    let chunk = Chunk {
                        position: unsigned(row, "position")?,
                        at_ns: unsigned(row, "at_ns")?,
                        bytes: row.get("bytes")?,
                    };
                    Ok((row.get("connection")?, from, chunk))
                })
            };
            let (connection, from, chunk) = read().map_err(database_error(&self.path, "read"))?;
            each(connection, from, chunk)?;
        }
        Ok(())
    }

    /// The bytes of a call's request as they passed, without those that are missing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn request_bytes(&self, call: &NewCall) -> Result<Vec<u8>> {
        self.joined(call.connection, call.from, call.request_at.clone())
    }

    /// The bytes of a call's response as they passed, without those that are missing; none without a response.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn response_bytes(&self, call: &NewCall) -> Result<Vec<u8>> {
        match &call.response_at {
            Some(range) => self.joined(call.connection, call.from.other(), range.clone()),
            None => Ok(Vec::new()),
        }
    }

    fn joined(&self, connection: i64, from: Side, range: Range<u64>) -> Result<Vec<u8>> {
        let chunks = self.chunks_in(connection, from, range)?;
        Ok(chunks.into_iter().flat_map(|chunk| chunk.bytes).collect())
    }

    /// Answers of the DNS that were seen, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn names(&self) -> Result<Vec<NameRow>> {
        let sql = "SELECT name, kind, answer, at_ns FROM name ORDER BY at_ns, rowid";
        self.all(sql, [], |row| {
            Ok(NameRow {
                name: row.get("name")?,
                kind: row.get("kind")?,
                answer: row.get("answer")?,
                at_ns: unsigned(row, "at_ns")?,
            })
        })
    }

    /// What was not recorded.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn losses(&self) -> Result<Vec<Loss>> {
        let sql = "SELECT at_ns, connection, why, count, bytes FROM loss ORDER BY at_ns, rowid";
        self.all(sql, [], |row| {
            Ok(Loss {
                at_ns: unsigned(row, "at_ns")?,
                connection: row.get("connection")?,
                why: row.get("why")?,
                count: unsigned(row, "count")?,
                bytes: unsigned(row, "bytes")?,
            })
        })
    }

    fn all<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let rows = || -> rusqlite::Result<Vec<T>> {
            let mut select = self.database.prepare_cached(sql)?;
            select.query_map(values, read)?.collect()
        };
        rows().map_err(database_error(&self.path, "read"))
    }

    fn parse<T: DeserializeOwned>(&self, text: &str, what: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| RecordingError::Damaged {
            path: self.path.clone(),
            why: format!("{what} is not as it was written: {error}"),
        })
    }

    fn foreign(&self, why: &'static str) -> RecordingError {
        RecordingError::Foreign {
            path: self.path.clone(),
            why,
        }
    }

    fn damaged(&self, error: &rusqlite::Error) -> RecordingError {
        RecordingError::Damaged {
            path: self.path.clone(),
            why: error.to_string(),
        }
    }
}

/// Is it an SQLite file at all, and shorter than its header says?
fn check_header(path: &Path) -> Result<bool> {
    let file_error = |source| RecordingError::File {
        doing: "open",
        path: path.to_owned(),
        source,
    };
    let foreign = |why| RecordingError::Foreign {
        path: path.to_owned(),
        why,
    };
    let mut file = File::open(path).map_err(file_error)?;
    let about = file.metadata().map_err(file_error)?;
    if !about.is_file() {
        return Err(foreign("it is no regular file"));
    }
    let mut header = [0; HEADER];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && about.len() == 0 => {
            return Err(foreign("it is empty"));
        }
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(foreign("it is too short"));
        }
        Err(error) => return Err(file_error(error)),
    }
    if !header.starts_with(MAGIC) {
        return Err(foreign("it is no SQLite file"));
    }
    // Format of the file: a page of 64 KiB is written as 1.
    let page_size = match u16::from_be_bytes([header[PAGE_SIZE], header[PAGE_SIZE + 1]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let pages = header[PAGES..PAGES + 4].try_into().map_or(0, u32::from_be_bytes);
    // What a killed program was about to write is still in the other file.
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let has_log = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    Ok(!has_log && about.len() < u64::from(pages) * page_size)
}

fn unsigned(row: &Row<'_>, name: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(name).map(i64::cast_unsigned)
}
