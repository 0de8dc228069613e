//! Captures of chosen calls: packets as the applications saw them, written as pcapng that other tools read.
//!
//! `kernel --PacketRecord--> session --Bytes--> a file or the reader of the API`.

pub mod pcapng;
pub mod record;
pub mod rewrite;
pub mod session;

#[cfg(test)]
mod oracle;
