//! A recorded request and its answer, whatever the protocol.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{flow::Piece, parts::Parts};
use crate::protocol::ProtocolName;

/// A name and a value of an HTTP header.
pub type Header = (Bytes, Bytes);

/// A recorded request and its answer. Times are nanoseconds of the recording.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The call as a person would name it: `GET /users/7`, `SET cart:1`.
    pub label: String,
    /// The same for all calls of its kind: `GET /users/{id}`. Rules of noise choose by it.
    pub kind: String,
    /// What the request says; by this it is found.
    pub request: Parts,
    /// What the answer says; by this answers are compared.
    pub response: Parts,
    /// The request as it is sent again.
    pub sent: Sent,
    /// The answer as it is given again.
    pub answer: Answer,
    /// First byte of the request.
    pub started_ns: u64,
    /// From the request's last byte to the answer's first; none without an answer.
    pub waited: Option<Duration>,
    /// Whether all of request and answer is in the recording.
    pub whole: bool,
}

/// A request as it is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Bytes as they were.
    Raw(Bytes),
    /// A stream of HTTP/2.
    Stream {
        /// With the fields that start with a colon.
        head: Vec<Header>,
        /// All of it.
        body: Bytes,
    },
}

/// An answer as it is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Bytes as they were.
    Raw {
        /// In order.
        pieces: Vec<Piece>,
        /// The connection ends with it.
        closes: bool,
    },
    /// A stream of HTTP/2.
    Stream {
        /// With `:status`.
        head: Vec<Header>,
        /// When the head came.
        after: Duration,
        /// Of the body, in order.
        pieces: Vec<Piece>,
        /// Fields behind the body.
        trailers: Option<Vec<Header>>,
        /// The code by which the server broke it off.
        reset: Option<u32>,
    },
}

/// What is said on one recorded connection.
#[derive(Clone, Debug)]
pub struct Talk {
    /// The connection's number in the recording.
    pub connection: i64,
    /// What is spoken; none for bytes that no protocol is known for.
    pub protocol: Option<ProtocolName>,
    /// Address and port that the caller asked for.
    pub server: String,
    /// The name by which the caller found the address.
    pub host: Option<String>,
    /// The service that it was.
    pub callee: String,
    /// What the server says before anything is asked of it, as it is given to each caller.
    pub greeting: Bytes,
    /// In the order in which the requests began.
    pub exchanges: Vec<Arc<Exchange>>,
    /// The same by what is sent in one go; empty where that is the exchanges themselves.
    pub rounds: Vec<Arc<Exchange>>,
    /// Names and values that the client begins with, such as `user`.
    pub login: Vec<(String, String)>,
    /// It is datagrams.
    pub is_udp: bool,
    /// When it was opened, in nanoseconds of the recording.
    pub opened_ns: u64,
    /// Why some of it is left out; empty when all was understood.
    pub left_out: Vec<String>,
}

impl Answer {
    /// Bytes as they are, at once.
    pub fn at_once(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let pieces = if bytes.is_empty() {
            Vec::new()
        } else {
            vec![Piece {
                after: Duration::ZERO,
                bytes,
            }]
        };
        Self::Raw {
            pieces,
            closes: false,
        }
    }

    /// All bytes of the answer, of a stream those of its body.
    pub fn bytes(&self) -> Vec<u8> {
        let (Self::Raw { pieces, .. } | Self::Stream { pieces, .. }) = self;
        pieces
            .iter()
            .flat_map(|piece| piece.bytes.iter().copied())
            .collect()
    }
}
