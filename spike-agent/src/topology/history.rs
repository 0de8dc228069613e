//! Keeps what happened on the map: finely for a day, coarsely for months, within a bounded file.
//!
//! A step is a stretch of time with the counts of each edge in it, one row of the database. The last day has steps as
//! they were taken, the week before steps of five minutes, the time before that steps of an hour. What happened is
//! summed up, so that a coarse step is as exact as its fine ones were; only the when is lost.

mod fold;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use thiserror::Error;

use super::Counts;
use crate::model::view::EdgeView;

/// Steps are kept as they were taken for so long, in milliseconds.
const FINE_MS: i64 = 24 * 3_600_000;
/// Steps of five minutes are kept for so long.
const MIDDLE_MS: i64 = 8 * 24 * 3_600_000;
/// Steps of an hour are kept for so long.
const COARSE_MS: i64 = 90 * 24 * 3_600_000;

/// What happened between two moments, in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Its start.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
    /// Edges on which something happened, or was open, by their number.
    pub edges: Vec<(u64, Counts)>,
}

/// The history of the map, in a file.
pub struct History {
    database: Mutex<Connection>,
    path: PathBuf,
    /// Size of the file that it is cut down to, in bytes.
    limit: u64,
}

/// Why the history cannot be used.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// SQLite's own words.
    #[error("{doing} {}: {source}", path.display())]
    Database {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A row is not what was written.
    #[error("read {}: the step at {at_ms} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Start of the step.
        at_ms: i64,
    },
}

type Result<T> = std::result::Result<T, HistoryError>;

impl History {
    /// Opens the history, or begins one; a file that is no history is put aside as `NAME.broken`.
    ///
    /// # Errors
    /// When neither can be done.
    pub fn open(path: &Path, limit: u64) -> Result<Self> {
        let database = store::open(path).or_else(|error| {
            if !path.exists() {
                return Err(error);
            }
            tracing::warn!("{error}; it is put aside, and a new history begun");
            store::put_aside(path);
            store::open(path)
        })?;
        Ok(Self {
            database: Mutex::new(database),
            path: path.to_owned(),
            limit,
        })
    }

    /// Adds a step, and what is new of the edges: who they are between.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add(&self, step: &Step, identities: &[(u64, EdgeView)]) -> Result<()> {
        store::add(&mut self.lock(), step, identities).map_err(self.error("write"))
    }

    /// Gives the steps that have a part between two moments, the oldest first, to `each`: when it began and ended, and
    /// one edge at a time, as all of a day may be more than fits into memory.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn each_between(
        &self,
        from_ms: i64,
        to_ms: i64,
        mut each: impl FnMut(i64, i64, &mut dyn Iterator<Item = (u64, Counts)>),
    ) -> Result<()> {
        let mut damaged = None;
        store::each_between(&self.lock(), from_ms, to_ms, |from_ms, to_ms, data| {
            let mut edges = store::decode(data);
            each(from_ms, to_ms, &mut edges);
            // Whatever was left unread.
            edges.by_ref().for_each(drop);
            damaged = edges.is_damaged().then_some(from_ms);
            damaged.is_none()
        })
        .map_err(self.error("read"))?;
        damaged.map_or(Ok(()), |at_ms| {
            Err(HistoryError::Damaged {
                path: self.path.clone(),
                at_ms,
            })
        })
    }

    /// Who the edges are between, without counts.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn identities(&self, ids: &[u64]) -> Result<HashMap<u64, EdgeView>> {
        store::identities(&self.lock(), ids).map_err(self.error("read"))
    }

    /// Start of the oldest step.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn oldest_ms(&self) -> Result<Option<i64>> {
        store::oldest(&self.lock()).map_err(self.error("read"))
    }

    /// Makes old steps coarser, drops the oldest, and cuts the file down to its limit; gives its size in bytes.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn tidy(&self, now_ms: i64) -> Result<u64> {
        let mut database = self.lock();
        fold::fold(&mut database, now_ms)
            .and_then(|()| fold::cut(&mut database, self.limit))
            .map_err(self.error("tidy"))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> HistoryError + '_ {
        move |source| HistoryError::Database {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}
