//! Keeps every request and response of chosen connections in one SQLite file, and reads such files.
//!
//! `rows` is what a file holds, `schema` its tables, [`Writer`] fills one, [`Reader`] reads one. All of this is plain
//! blocking code without a runtime. The file's layout is described for people in `docs/recording.md`.

mod error;
mod reader;
mod rows;
mod schema;
mod writer;

pub use error::RecordingError;
pub use reader::{CallFilter, Reader};
pub use rows::{About, CallRow, Chunk, ConnectionRow, HowEnded, Loss, NameRow, NewCall, NewConnection};
pub use schema::FORMAT;
pub use writer::Writer;
