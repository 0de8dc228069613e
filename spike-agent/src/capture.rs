//! Captures of chosen calls: packets as the applications saw them, written as pcapng that other tools read.
//!
//! `kernel --PacketRecord--> session --Bytes--> store, or the reader of the API`.

pub mod blocks;
pub mod filter;
pub mod once;
pub mod pcap;
pub mod pcapng;
pub mod record;
pub mod rewrite;
mod ring;
pub mod secrets;
pub mod session;
pub mod show;
pub mod store;

#[cfg(test)]
mod oracle;
