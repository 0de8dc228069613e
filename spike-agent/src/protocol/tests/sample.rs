//! Conversations of real clients and servers, recorded by `scripts/record_sample.py`.

use crate::protocol::{Call, Conversation, End, Losses, ProtocolName, Side};

/// Feeds a sample to a new conversation; the times are in microseconds, as in the file.
pub(crate) fn play(sample: &str, server_port: u16) -> (Vec<Call>, Losses) {
    let whole = play_in_pieces(sample, server_port, usize::MAX);
    // However it is cut.
    for size in [1, 7, 1000] {
        assert_eq!(
            whole,
            play_in_pieces(sample, server_port, size),
            "in pieces of {size}"
        );
    }
    whole
}

/// Operation, target and status of each call.
pub(crate) fn told(calls: &[Call]) -> Vec<(&str, &str, &str)> {
    calls
        .iter()
        .map(|call| {
            (
                &*call.operation,
                &*call.target,
                call.status.as_deref().unwrap_or("-"),
            )
        })
        .collect()
}

/// Plays a sample again and again, each time with a part of it not captured, and checks that each call that is told is
/// one of the whole conversation, with its times, or at most says that something of it is unknown.
pub(crate) fn play_with_gaps(sample: &str, server_port: u16) {
    let (packets, end) = (packets(sample), ended(sample));
    let (whole, _) = play_in_pieces(sample, server_port, usize::MAX);
    for gap in 0..packets.len().min(80) {
        for how in [Gap::Packet, Gap::Start, Gap::End, Gap::Before] {
            let (mut conversation, mut calls) = (Conversation::new(server_port), Vec::new());
            if how == Gap::Before {
                conversation.missing(Side::Client, 0, None, &mut calls);
                conversation.missing(Side::Server, 0, None, &mut calls);
            }
            for (index, (side, at, bytes)) in packets.iter().enumerate() {
                let half = bytes.len() / 2;
                let (before, missing) = match how {
                    Gap::Before if index < gap => continue,
                    _ if index != gap => (bytes.len(), 0),
                    Gap::Before => (bytes.len(), 0),
                    Gap::Packet => (0, bytes.len()),
                    Gap::Start => (0, half),
                    Gap::End => (half, bytes.len() - half),
                };
                conversation.data(*side, *at, &bytes[..before], &mut calls);
                conversation.missing(*side, *at, Some(missing as u64), &mut calls);
                conversation.data(*side, *at, &bytes[before + missing..], &mut calls);
            }
            conversation.end(end, End::Closed, &mut calls);
            for call in calls {
                assert!(
                    whole.iter().any(|known| is_of(&call, known)),
                    "with a gap at {gap} ({how:?}): {call:#?}"
                );
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Gap {
    Packet,
    /// Of a packet, up to its middle.
    Start,
    End,
    /// All that is before a packet.
    Before,
}

fn is_of(call: &Call, known: &Call) -> bool {
    let told = |told: &str, known: &str| told == known || told == "?";
    // Where it can't be told that it is gRPC, it is told as HTTP.
    let of_http = call.protocol == ProtocolName::Http2 && known.protocol == ProtocolName::Grpc;
    let path = format!("/{}/{}", known.target, known.operation);
    let named = told(&call.operation, &known.operation) && told(&call.target, &known.target)
        || of_http && told(&call.operation, "POST") && told(&call.target, &path);
    let status = call.status == known.status || call.status.as_deref().is_none_or(|status| status == "?");
    let times = (call.first_byte_ns, call.ended_ns) == (known.first_byte_ns, known.ended_ns);
    call.started_ns == known.started_ns
        && named
        && (call.trace.is_none() || call.trace == known.trace)
        && (!call.complete || times && status)
}

fn play_in_pieces(sample: &str, server_port: u16, size: usize) -> (Vec<Call>, Losses) {
    let (mut conversation, mut calls) = (Conversation::new(server_port), Vec::new());
    for (side, at, bytes) in packets(sample) {
        for piece in bytes.chunks(size) {
            conversation.data(side, at, piece, &mut calls);
        }
    }
    conversation.end(ended(sample), End::Closed, &mut calls);
    (calls, conversation.losses())
}

/// Who sent what, and when.
pub(crate) type Packet = (Side, u64, Vec<u8>);

pub(crate) fn packets(sample: &str) -> Vec<Packet> {
    let mut packets = Vec::new();
    for line in sample.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let side = match words.next() {
            Some("C") => Side::Client,
            Some("S") => Side::Server,
            _ => break,
        };
        let at = words.next().and_then(|at| at.parse().ok()).unwrap();
        packets.push((side, at, bytes(words.next().unwrap())));
    }
    packets
}

/// When the conversation ended.
fn ended(sample: &str) -> u64 {
    let end = sample.lines().find_map(|line| line.strip_prefix("E ")).unwrap();
    end.parse().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
