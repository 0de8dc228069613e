//! Names and times the calls inside a TCP connection, from the bytes of its two directions.
//!
//! A protocol, one file each, frames and names messages; which response answers which request, and when, is decided
//! here, once for all of them. Nothing here does I/O, and a conversation's memory is bounded whatever it is fed.
//!
//! To add a protocol: a file with an implementation of [`Protocol`] and a `pub(super) const KIND: Kind`, a name in
//! [`ProtocolName`], and an entry in [`kind::ALL`](kind).

mod amqp;
mod call;
mod calls;
mod conversation;
mod decoder;
mod detect;
pub mod dns;
pub mod fold;
mod http1;
mod http2;
mod kafka;
mod kind;
mod memcached;
mod messages;
mod mongodb;
mod mqtt;
mod mysql;
mod nats;
mod postgres;
mod redis;
mod sql;
mod stream;
mod tls;
mod trace;

#[cfg(test)]
mod tests;

pub use call::{Call, Details, Place};
pub use conversation::Conversation;
pub use decoder::{Next, Protocol, Step, Verdict};
pub use kind::{Kind, ProtocolName};
pub use messages::{Key, Messages, Request};
pub use trace::Trace;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected.
    Client,
    /// Who accepted.
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Why a conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides closed.
    Closed,
    /// A side sent a reset.
    Reset,
    /// It goes on, but is no longer looked at.
    Unsampled,
}

/// What could not be decoded of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Messages that are not what the protocol says, or whose head is too long.
    pub undecodable: u64,
    /// Bytes that were not captured where a head was expected, or passed over in search of the next message.
    /// Bodies don't count, nor does what passes once a conversation is opaque.
    pub bytes: u64,
    /// How often a direction, or the order of requests and responses, was lost and had to be found again.
    pub resyncs: u64,
    /// Calls that began but whose response, or times, could no longer be told.
    pub calls: u64,
}
