//! Whether bytes are MQTT's.

use super::{Side, Type, packet, topic};
use crate::protocol::{Step, Verdict};

/// Packets in a row that are no chance; bounds what a search costs.
const MANY: usize = 8;

pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    match packet(from, bytes) {
        Ok(packet) if packet.of == Type::Connect => {
            let body = &bytes[packet.head..];
            match version(body) {
                Some(_) => Verdict::Yes,
                None if body.len() < 9 => Verdict::Maybe,
                None => Verdict::No,
            }
        }
        Ok(packet) if packet.of == Type::ConnAck => match bytes.get(packet.head) {
            None | Some(0 | 1) => Verdict::Maybe,
            Some(_) => Verdict::No,
        },
        Err(Step::More) => Verdict::Maybe,
        // In the middle of a connection.
        Ok(_) if are_packets(from, bytes) => Verdict::Maybe,
        _ => Verdict::No,
    }
}

/// The version that a connection begins with.
pub(super) fn version(body: &[u8]) -> Option<u8> {
    let (name, rest) = topic::read(body)?;
    let version = *rest.first()?;
    let known = match name {
        b"MQTT" => (4..=5).contains(&version),
        b"MQIsdp" => version == 3,
        _ => false,
    };
    known.then_some(version)
}

/// Whether `bytes` are packets from beginning to end, or many.
pub(super) fn are_packets(from: Side, mut bytes: &[u8]) -> bool {
    for _ in 0..MANY {
        if bytes.is_empty() {
            break;
        }
        let Ok(packet) = packet(from, bytes) else {
            return false;
        };
        let Some((whole, rest)) = bytes.split_at_checked(packet.head + packet.size) else {
            return false;
        };
        let body = &whole[packet.head..];
        let fits = match packet.of {
            Type::Publish => topic::read(body).is_some_and(|(topic, _)| is_topic(topic)),
            Type::PubAck | Type::PubRec | Type::PubRel | Type::PubComp => packet.size < 64,
            Type::Connect => version(body).is_some(),
            _ => true,
        };
        if !fits {
            return false;
        }
        bytes = rest;
    }
    true
}

/// Whether packets are not easily taken for something else: there are several, or a message with a topic.
pub(super) fn is_sure(from: Side, bytes: &[u8]) -> bool {
    let Ok(first) = packet(from, bytes) else {
        return false;
    };
    let named = match first.of {
        Type::Publish => topic::read(&bytes[first.head..]).is_some_and(|(topic, _)| topic.len() >= 3),
        Type::Connect => true,
        _ => false,
    };
    let several = bytes.len() > first.head + first.size && bytes.len() >= 8;
    named || several
}

fn is_topic(topic: &[u8]) -> bool {
    let text = str::from_utf8(topic);
    text.is_ok_and(|text| !text.chars().any(|c| c.is_control() || matches!(c, '+' | '#')))
}
