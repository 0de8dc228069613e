//! Why a recording cannot be read or written.

use std::path::PathBuf;

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be opened or made.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is not a recording of Spike: {why}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What shows that.
        why: &'static str,
    },
    /// A part of it is missing, or not as it was written.
    #[error("{} is a recording, but damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What shows that.
        why: String,
    },
    /// A later Spike wrote it.
    #[error("{} has format {format}, but this Spike reads up to {}; use a newer one", path.display(), super::FORMAT)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Number of its format.
        format: i64,
    },
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
}
