//! Topics, and what version 5 says beside them.

use std::collections::VecDeque;

use super::{Number, number};
use crate::protocol::{Trace, fold};

/// Aliases of a side that are kept.
const ALIASES_LIMIT: usize = 64;

/// Numbers that stand for topics.
#[derive(Default)]
pub(super) struct Aliases(VecDeque<(u16, String)>);

impl Aliases {
    /// The topic of an alias, or the one that it is given by this.
    pub(super) fn follow(&mut self, alias: u16, topic: String) -> String {
        if topic.is_empty() {
            let known = self.0.iter().find(|(known, _)| *known == alias);
            return known.map(|(_, topic)| topic.clone()).unwrap_or_default();
        }
        self.0.retain(|(known, _)| *known != alias);
        if self.0.len() >= ALIASES_LIMIT {
            self.0.pop_front();
        }
        self.0.push_back((alias, topic.clone()));
        topic
    }
}

#[derive(Default)]
pub(super) struct Properties {
    pub(super) alias: Option<u16>,
    pub(super) trace: Option<Trace>,
}

/// A string with its size before it, and what is behind it.
pub(super) fn read(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let size = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
    bytes[2..].split_at_checked(size)
}

pub(super) fn name(topic: &[u8]) -> String {
    fold::key(&String::from_utf8_lossy(topic))
}

pub(super) fn behind_properties(bytes: &[u8]) -> Option<&[u8]> {
    split(bytes).map(|(_, rest)| rest)
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match number(bytes) {
        Number::Is(size, head) => bytes.get(head..)?.split_at_checked(size),
        Number::More | Number::No => None,
    }
}

/// The properties of a message.
pub(super) fn properties(bytes: &[u8]) -> Option<Properties> {
    let (mut left, _) = split(bytes)?;
    let mut properties = Properties::default();
    while let Some((kind, rest)) = left.split_first() {
        left = match kind {
            0x01 => rest.get(1..)?,
            0x02 => rest.get(4..)?,
            0x03 | 0x08 | 0x09 => read(rest)?.1,
            0x0b => match number(rest) {
                Number::Is(_, size) => &rest[size..],
                Number::More | Number::No => return None,
            },
            0x23 => {
                properties.alias = Some(u16::from_be_bytes(*rest.first_chunk()?));
                &rest[2..]
            }
            0x26 => {
                let (key, rest) = read(rest)?;
                let (value, rest) = read(rest)?;
                if key.eq_ignore_ascii_case(b"traceparent") {
                    properties.trace = Trace::parse(value);
                }
                rest
            }
            _ => return None,
        };
    }
    Some(properties)
}
