//! Takes recorded connections apart into requests and answers, one file a protocol.
//!
//! The live decoders of `protocol` name calls from the heads of messages and never hold a body; a replay needs every byte,
//! so here whole messages are read.

pub mod dns;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod mysql;
pub mod postgres;
pub mod raw;
pub mod redis;

#[cfg(test)]
pub(in crate::replay) mod testing;

use std::{ops::Range, time::Duration};

use super::{
    exchange::{Answer, Exchange, Sent, Talk},
    flow::Flow,
    parts::Parts,
};
use crate::protocol::ProtocolName;

/// The two directions of a recorded connection.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The connection's number in the recording.
    pub connection: i64,
    /// What is spoken, as [`ProtocolName::as_str`] has it, if it is known.
    pub protocol: Option<String>,
    /// Address and port that the caller asked for.
    pub server: String,
    /// The name by which the caller found the address.
    pub host: Option<String>,
    /// The service that the server was.
    pub callee: String,
    /// `udp`, else `tcp`.
    pub is_udp: bool,
    /// When it was opened, in nanoseconds of the recording.
    pub opened_ns: u64,
    /// What the caller sent.
    pub client: Flow,
    /// What the server sent.
    pub answers: Flow,
    /// Whether the server was the one that ended it.
    pub closed: bool,
}

impl Recorded {
    /// Takes it apart.
    pub fn split(&self) -> Talk {
        let mut talk = Talk {
            connection: self.connection,
            protocol: self.name(),
            server: self.server.clone(),
            host: self.host.clone(),
            callee: self.callee.clone(),
            greeting: bytes::Bytes::new(),
            exchanges: Vec::new(),
            rounds: Vec::new(),
            login: Vec::new(),
            is_udp: self.is_udp,
            opened_ns: self.opened_ns,
            left_out: Vec::new(),
        };
        match talk.protocol {
            Some(ProtocolName::Http1) => http1::split(self, &mut talk),
            Some(ProtocolName::Http2 | ProtocolName::Grpc) => http2::split(self, &mut talk),
            Some(ProtocolName::Redis) => redis::split(self, &mut talk),
            Some(ProtocolName::Postgres) => postgres::split(self, &mut talk),
            Some(ProtocolName::MySql) => mysql::split(self, &mut talk),
            Some(ProtocolName::Dns) => dns::split(self, &mut talk),
            _ => raw::split(self, &mut talk),
        }
        talk
    }

    /// A request and its answer that are sent and given again by their bytes, where these stand in what either side sent.
    fn exchange(
        &self,
        [label, kind]: [String; 2],
        [request, response]: [Parts; 2],
        sent: Range<usize>,
        answer: Range<usize>,
        closes: bool,
    ) -> Exchange {
        let ended_at = self.client.at(sent.end.saturating_sub(1));
        let waited = || self.answers.at(answer.start).saturating_sub(ended_at);
        Exchange {
            label,
            kind,
            request,
            response,
            sent: Sent::Raw(self.client.bytes().slice(sent.clone())),
            started_ns: self.client.at(sent.start),
            waited: (!answer.is_empty()).then(|| Duration::from_nanos(waited())),
            whole: self.client.is_whole(sent) && self.answers.is_whole(answer.clone()),
            answer: Answer::Raw {
                pieces: self.answers.pieces(answer, ended_at),
                closes,
            },
        }
    }

    /// What is spoken, of the protocols that can be taken apart.
    fn name(&self) -> Option<ProtocolName> {
        let known = [
            ProtocolName::Http1,
            ProtocolName::Http2,
            ProtocolName::Grpc,
            ProtocolName::Redis,
            ProtocolName::Postgres,
            ProtocolName::MySql,
            ProtocolName::Dns,
        ];
        let said = self.protocol.as_deref();
        let found = known.into_iter().find(|name| Some(name.as_str()) == said);
        // The client's first words are sure; a recording without decoded calls may not name it.
        found.or_else(|| {
            self.client
                .bytes()
                .starts_with(http2::PREFACE)
                .then_some(ProtocolName::Http2)
        })
    }
}
