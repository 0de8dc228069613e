//! Keeps every request and response of chosen connections in one SQLite file, and reads such files.
//!
//! `rows` is what a file holds, `schema` its tables, [`Writer`] fills one, [`Reader`] reads one: plain blocking code without
//! a runtime. [`live`] records connections as they run; `redact` makes secrets unreadable before, `fields` tells what calls
//! say. The file's layout is described for people in `docs/recording.md`.

pub mod body;
mod chunks;
mod error;
pub mod export;
mod fields;
pub mod http;
pub mod http2;
pub mod import;
pub mod live;
mod reader;
mod redact;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

pub use error::RecordingError;
pub use reader::{CallFilter, Reader};
pub use redact::{Redaction, RuleError};
pub use rows::{About, CallRow, Chunk, ConnectionRow, HowEnded, Loss, NameRow, NewCall, NewConnection};
pub use schema::FORMAT;
pub use writer::Writer;
