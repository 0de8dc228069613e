//! Whether bytes are MySQL's, and where a command begins.

use super::{FULL, HEAD, command, connect, packet};
use crate::protocol::{Side, Verdict, sql};

/// Longest version of a server.
const VERSION_LIMIT: usize = 128;

pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    match from {
        Side::Client => client(bytes),
        Side::Server => server(bytes),
    }
}

fn server(bytes: &[u8]) -> Verdict {
    let Some(first) = packet(bytes) else {
        return Verdict::Maybe;
    };
    let payload = &bytes[HEAD..];
    match (first.sequence, payload.first()) {
        (_, None) => Verdict::Maybe,
        (0, Some(&connect::VERSION)) if first.size < 512 => {
            let version = &payload[1..];
            let end = version.iter().take(VERSION_LIMIT).position(|b| *b == 0);
            let text = &version[..end.unwrap_or(version.len().min(VERSION_LIMIT))];
            match end {
                _ if !text.iter().all(|b| b.is_ascii_graphic() || *b == b' ') => Verdict::No,
                Some(1..) => Verdict::Yes,
                None if version.len() < VERSION_LIMIT => Verdict::Maybe,
                _ => Verdict::No,
            }
        }
        // An error instead of a greeting.
        (0, Some(0xff)) if first.size < 512 => Verdict::Maybe,
        (0, _) => Verdict::No,
        // In the middle of a connection; most bytes could be the start of a packet that is long enough.
        (2.., Some(_)) if payload.len() < first.size => Verdict::No,
        _ if are_packets(bytes) => Verdict::Maybe,
        _ => Verdict::No,
    }
}

fn client(bytes: &[u8]) -> Verdict {
    let Some(first) = packet(bytes) else {
        return Verdict::Maybe;
    };
    match (first.sequence, bytes.get(HEAD)) {
        (0 | 1, None) => Verdict::Maybe,
        (0, Some(_)) if is_command(bytes, false) => Verdict::Yes,
        (0, Some(_)) if is_command(bytes, true) => Verdict::Maybe,
        (0, Some(code)) if bytes.len() < HEAD + first.size && command::known(*code).is_some() => {
            Verdict::Maybe
        }
        // The answer to a greeting.
        (1, Some(_)) if (32..4096).contains(&first.size) => Verdict::Maybe,
        _ => Verdict::No,
    }
}

/// Whether packet follows packet.
fn are_packets(mut bytes: &[u8]) -> bool {
    let mut last = None;
    while let Some(next) = packet(bytes) {
        if next.size == 0 || last.is_some_and(|last: u8| last.wrapping_add(1) != next.sequence) {
            return false;
        }
        last = Some(next.sequence);
        match bytes.get(HEAD + next.size..) {
            Some(rest) => bytes = rest,
            None => break,
        }
    }
    true
}

/// Whether `bytes` are a command from beginning to end; where a packet of the network begins, less is asked of it than
/// that it has a verb of SQL.
pub(super) fn is_command(bytes: &[u8], begins: bool) -> bool {
    let Some((first, code)) = packet(bytes).zip(bytes.get(HEAD)) else {
        return false;
    };
    let whole = first.size == bytes.len() - HEAD && first.size < FULL;
    if first.sequence != 0 || !whole || command::known(*code).is_none() {
        return false;
    }
    match *code {
        command::QUERY | command::PREPARE => !sql::summary(command::statement(&bytes[HEAD..])).0.is_empty(),
        0x01 | 0x08..=0x0a | 0x0d | 0x0e | 0x1f => begins && first.size == 1,
        0x19 | 0x1a => begins && first.size == 5,
        0x1c => begins && first.size == 9,
        0x17 => begins && first.size >= 10 && bytes.get(HEAD + 6..HEAD + 10) == Some(&[1, 0, 0, 0]),
        0x02 => begins && bytes[HEAD + 1..].iter().all(|b| !b.is_ascii_control()),
        _ => false,
    }
}
