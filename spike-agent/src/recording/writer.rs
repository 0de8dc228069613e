//! Fills a recording.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Result as SqlResult, params};
use serde_json::Value;

use super::{
    About, Chunk, HowEnded, Loss, NameRow, NewCall, NewConnection, Reader, RecordingError, chunks,
    schema::{self},
};
use crate::protocol::Side;

type Result<T> = std::result::Result<T, RecordingError>;

/// A recording that grows.
///
/// What is added is safe from the program's death once [`commit`](Self::commit) returns; when to do that is the caller's
/// choice. Dropped without [`finish`](Self::finish), what was not committed is gone.
#[derive(Debug)]
pub struct Writer {
    database: Connection,
    path: PathBuf,
    about: About,
    /// Something was added since the last commit.
    is_dirty: bool,
}

impl Writer {
    /// Makes a new file, for its owner's eyes only, whatever the umask says; one that exists is not touched.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    pub fn create(path: &Path, about: &About) -> Result<Self> {
        let made = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(path);
        // SQLite gives its other files the mode of this one.
        made.map_err(|source| RecordingError::File {
            doing: "make",
            path: path.to_owned(),
            source,
        })?;
        let error = database_error(path, "make");
        let made = connect(path).and_then(|database| {
            schema::make(&database)?;
            database.execute("INSERT INTO meta VALUES (?1)", [json(about)])?;
            Ok(database)
        });
        Ok(Self {
            database: made.map_err(error)?,
            path: path.to_owned(),
            about: about.clone(),
            is_dirty: false,
        })
    }

    /// Opens a recording to add to it. Times go on to be since its own start: see [`About::started_unix_ns`].
    ///
    /// # Errors
    /// When it cannot be opened or is not whole.
    pub fn append(path: &Path) -> Result<Self> {
        let about = Reader::open(path)?.about().clone();
        let opened = connect(path).and_then(|database| {
            schema::tune(&database)?;
            Ok(database)
        });
        Ok(Self {
            database: opened.map_err(database_error(path, "open"))?,
            path: path.to_owned(),
            about,
            is_dirty: false,
        })
    }

    /// What is known of the recording as a whole.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Adds a connection and tells its id.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add_connection(&mut self, new: &NewConnection) -> Result<i64> {
        self.write(|database| {
            let mut insert = database.prepare_cached(
                "INSERT INTO connection (transport, opened_ns, caller, caller_pid, caller_exe, caller_cgroup, \
                 callee, client, server, host) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            insert.insert(params![
                new.transport,
                int(new.opened_ns),
                new.caller,
                new.caller_pid,
                new.caller_exe,
                new.caller_cgroup,
                new.callee,
                new.client,
                new.server,
                new.host,
            ])
        })
    }

    /// Says what is spoken on a connection.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_protocol(&mut self, connection: i64, protocol: &str) -> Result<()> {
        self.write(|database| {
            let mut update = database.prepare_cached("UPDATE connection SET protocol = ?2 WHERE id = ?1")?;
            update.execute(params![connection, protocol]).map(drop)
        })
    }

    /// Says how a connection ended, and how many bytes each side sent, the client first.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end_connection(
        &mut self,
        connection: i64,
        closed_ns: Option<u64>,
        how: HowEnded,
        sent: [u64; 2],
    ) -> Result<()> {
        self.write(|database| {
            let mut update = database.prepare_cached(
                "UPDATE connection SET closed_ns = ?2, ended = ?3, client_bytes = ?4, server_bytes = ?5 WHERE id = ?1",
            )?;
            let how = match how {
                HowEnded::Closed => "closed",
                HowEnded::Reset => "reset",
                HowEnded::Open => "open",
            };
            let closed_ns = closed_ns.map(int);
            update
                .execute(params![connection, closed_ns, how, int(sent[0]), int(sent[1])])
                .map(drop)
        })
    }

    /// Adds bytes that a side sent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add_chunk(&mut self, connection: i64, from: Side, chunk: &Chunk) -> Result<()> {
        self.write(|database| {
            let mut insert = database.prepare_cached("INSERT INTO chunk VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let Chunk {
                position,
                at_ns,
                bytes,
            } = chunk;
            insert
                .execute(params![
                    connection,
                    number(from),
                    int(*position),
                    int(*at_ns),
                    bytes
                ])
                .map(drop)
        })
    }

    /// Adds a call and tells its id.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add_call(&mut self, call: &NewCall) -> Result<i64> {
        self.write(|database| {
            let mut insert = database.prepare_cached(
                "INSERT INTO call (connection, protocol, side, operation, target, status, failed, complete, started_ns, \
                 sent_ns, first_byte_ns, ended_ns, request_from, request_to, response_from, response_to, stream, \
                 request, response, redactions) VALUES \
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
            )?;
            let response = call.response_at.as_ref();
            insert.insert(params![
                call.connection,
                call.protocol,
                number(call.from),
                call.operation,
                call.target,
                call.status,
                call.failed,
                call.complete,
                int(call.started_ns),
                call.sent_ns.map(int),
                call.first_byte_ns.map(int),
                int(call.ended_ns),
                int(call.request_at.start),
                int(call.request_at.end),
                response.map(|range| int(range.start)),
                response.map(|range| int(range.end)),
                call.stream.map(int),
                json(&call.request),
                json(&call.response),
                json(&call.redactions),
            ])
        })
    }

    /// Adds an answer of the DNS; one that is known already changes nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add_name(&mut self, name: &NameRow) -> Result<()> {
        self.write(|database| {
            let mut insert = database.prepare_cached("INSERT OR IGNORE INTO name VALUES (?1, ?2, ?3, ?4)")?;
            insert
                .execute(params![name.name, name.kind, name.answer, int(name.at_ns)])
                .map(drop)
        })
    }

    /// Says what is missing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add_loss(&mut self, loss: &Loss) -> Result<()> {
        self.write(|database| {
            let mut insert = database.prepare_cached("INSERT INTO loss VALUES (?1, ?2, ?3, ?4, ?5)")?;
            insert
                .execute(params![
                    int(loss.at_ns),
                    loss.connection,
                    loss.why,
                    int(loss.count),
                    int(loss.bytes),
                ])
                .map(drop)
        })
    }

    /// The bytes that a side sent within `range`, as far as they were added; committed or not.
    pub(super) fn bytes(&self, connection: i64, from: Side, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = chunks::each(&self.database, connection, from, &range, |chunk| {
            bytes.extend_from_slice(&chunk.bytes);
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = read.map_err(database_error(&self.path, "read"))?;
        Ok(bytes)
    }

    /// Whether anything was added since the last commit.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Makes all that was added outlive the program.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn commit(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_dirty) {
            let done = self.database.execute_batch("COMMIT");
            done.map_err(database_error(&self.path, "write"))?;
        }
        Ok(())
    }

    /// The end of the recording: the file is whole by itself, without the ones that SQLite has beside it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self, ended_unix_ns: u64) -> Result<()> {
        self.about.ended_unix_ns = Some(ended_unix_ns);
        let about = json(&self.about);
        self.write(|database| database.execute("UPDATE meta SET about = ?1", [about]))?;
        self.commit()?;
        let Self { database, path, .. } = self;
        let error = || database_error(&path, "finish");
        // Who reads it now keeps it in its present form, which is as good.
        _ = database.pragma_update(None, "journal_mode", "DELETE");
        database.close().map_err(|(_, source)| error()(source))
    }

    fn write<T>(&mut self, change: impl FnOnce(&Connection) -> SqlResult<T>) -> Result<T> {
        let begin = if self.is_dirty {
            Ok(())
        } else {
            self.database.execute_batch("BEGIN IMMEDIATE")
        };
        let written = begin.and_then(|()| {
            self.is_dirty = true;
            change(&self.database)
        });
        written.map_err(database_error(&self.path, "write"))
    }
}

fn connect(path: &Path) -> SqlResult<Connection> {
    // Without the flag that makes a file: it is there.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    database.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(database)
}

pub(super) fn database_error(
    path: &Path,
    doing: &'static str,
) -> impl FnOnce(rusqlite::Error) -> RecordingError + use<> {
    let path = path.to_owned();
    move |source| RecordingError::Database { doing, path, source }
}

/// SQLite's integers have a sign.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(side: Side) -> i64 {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

fn json(value: &impl serde::Serialize) -> String {
    // All of it is plain data with names as keys.
    serde_json::to_string(value).unwrap_or_else(|_| Value::Null.to_string())
}
