//! Makes secrets unreadable before anything reaches the disk.
//!
//! What is taken away is replaced by as many bytes, so that lengths in the protocol stay right. A redactor is fed with the
//! bytes of a connection as they come, in pieces of any size, and gives out what may be kept: at once where each byte can
//! be decided by what was before it, else once the message is whole.

mod coded;
mod form;
mod held;
mod http1;
mod http2;
mod json;
mod mysql;
mod postgres;
mod redis;
mod rules;
mod sql;
#[cfg(test)]
mod tests;
mod text;

pub use rules::{Redaction, RuleError};

use crate::protocol::{ProtocolName, Side};

/// Stands for each byte of a secret.
pub(super) const STAR: u8 = b'*';
/// Most findings that are kept between two calls of a connection.
const FOUND_LIMIT: usize = 256;

/// What was made unreadable, and where.
#[derive(Debug, Default)]
pub(super) struct Found {
    list: Vec<Finding>,
    side: Option<Side>,
    /// Position of the first byte of what is looked at.
    base: u64,
    /// Offset of the message, of several that came together.
    shift: usize,
}

/// A secret that was made unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) side: Side,
    pub(super) position: u64,
    /// Such as `header authorization`; never the secret.
    pub(super) what: String,
}

impl Found {
    /// What follows is about bytes of `side` from `position` on.
    pub(super) fn at(&mut self, side: Side, position: u64) {
        (self.side, self.base) = (Some(side), position);
    }

    /// Nothing was found.
    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A secret at `offset` from there.
    fn note(&mut self, offset: usize, kind: &str, name: &[u8]) {
        let Some(side) = self.side else { return };
        if self.list.len() < FOUND_LIMIT {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            self.list.push(Finding {
                side,
                position: self.base + (self.shift + offset) as u64,
                what: format!("{kind} {name}").trim_end().to_owned(),
            });
        }
    }

    /// Takes out those within the ranges of a call, each once, and forgets older ones.
    pub(super) fn of_call(
        &mut self,
        from: Side,
        request: &std::ops::Range<u64>,
        response: &std::ops::Range<u64>,
    ) -> Vec<String> {
        let mut names = Vec::new();
        self.list.retain(|finding| {
            let range = if finding.side == from { request } else { response };
            if range.contains(&finding.position) && !names.contains(&finding.what) {
                names.push(finding.what.clone());
            }
            finding.position >= range.end
        });
        names
    }
}

/// Makes the secrets of one connection unreadable.
pub(super) trait Redact: Send {
    /// Takes the next bytes of a side, and adds to `out` what may be kept. All of what was given comes out in the end, with
    /// the same length, unless [`keeps_length`](Self::keeps_length) says otherwise.
    fn take(&mut self, from: Side, bytes: &[u8], out: &mut Vec<u8>, found: &mut Found);

    /// `count` bytes of a side are missing; false when it is unknown where what follows belongs, so that none of it may be
    /// kept.
    fn gap(&mut self, from: Side, count: u64) -> bool;

    /// Nothing more comes: adds what is held, unreadable where it may be a secret.
    fn end(&mut self, from: Side, out: &mut Vec<u8>) {
        let _ = (from, out);
    }

    /// Whether what comes out is as long as what went in.
    fn keeps_length(&self) -> bool {
        true
    }
}

/// What makes a protocol's secrets unreadable; of an unknown one nothing is known to be one.
pub(super) fn redactor(protocol: Option<ProtocolName>, rules: &Redaction) -> Box<dyn Redact> {
    match protocol {
        // Its header blocks are written anew in any case.
        Some(ProtocolName::Http2 | ProtocolName::Grpc) => Box::new(http2::Http2::new(rules.clone())),
        _ if rules.is_none() => Box::new(Nothing),
        Some(ProtocolName::Http1) => Box::new(http1::Http1::new(rules.clone())),
        Some(ProtocolName::Redis) => Box::new(redis::Redis::new(rules.clone())),
        Some(ProtocolName::MySql) => Box::new(mysql::MySql::new(rules.clone())),
        Some(ProtocolName::Postgres) => Box::new(postgres::Postgres::new(rules.clone())),
        // What its clients prove who they are with is JSON, between lines.
        Some(ProtocolName::Nats) => Box::new(Lines {
            rules: rules.clone(),
            sides: [json::Json::default(), json::Json::default()],
        }),
        _ => Box::new(Nothing),
    }
}

/// Takes all of it for text that may have JSON in it.
struct Lines {
    rules: Redaction,
    sides: [json::Json; 2],
}

impl Redact for Lines {
    fn take(&mut self, from: Side, bytes: &[u8], out: &mut Vec<u8>, found: &mut Found) {
        let start = out.len();
        out.extend_from_slice(bytes);
        for (offset, byte) in out[start..].iter_mut().enumerate() {
            self.sides[from as usize].byte(byte, offset, &self.rules, found);
        }
    }

    fn gap(&mut self, _: Side, _: u64) -> bool {
        false
    }
}

/// Leaves everything as it is.
struct Nothing;

impl Redact for Nothing {
    fn take(&mut self, _: Side, bytes: &[u8], out: &mut Vec<u8>, _: &mut Found) {
        out.extend_from_slice(bytes);
    }

    fn gap(&mut self, _: Side, _: u64) -> bool {
        true
    }
}
