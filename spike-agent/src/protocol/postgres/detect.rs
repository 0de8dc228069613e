//! Whether bytes are PostgreSQL's, and where its messages start.

use super::message::{HEAD, Header, Start};
use crate::protocol::{Side, Verdict};

/// Types of messages by side, as far as they are found in a conversation that goes on.
const OF_CLIENT: &[u8] = b"BCDEFHPQSXcdfp";
const OF_SERVER: &[u8] = b"123ACDEGHIKNRSTVWZcdnstv";
/// Longer messages are not searched for.
const SIZE_LIMIT: u64 = 1 << 24;
/// Messages in a row that leave no doubt.
const ENOUGH: usize = 4;

pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    if from == Side::Client && bytes[0] == 0 {
        return match Start::is(bytes) {
            Some(true) => Verdict::Yes,
            Some(false) => Verdict::No,
            None => Verdict::Maybe,
        };
    }
    if from == Side::Server && matches!(bytes, b"N" | b"S" | b"G") {
        return Verdict::Maybe;
    }
    match messages(from, bytes) {
        None => Verdict::No,
        Some(Row { count, ends, sure }) if count >= ENOUGH || ends && sure => Verdict::Yes,
        Some(_) => Verdict::Maybe,
    }
}

/// Messages that follow each other.
struct Row {
    count: usize,
    /// The last one ends with the bytes.
    ends: bool,
    /// One of them looks like no other protocol's.
    sure: bool,
}

/// Those that `bytes` start with; none if there is something else among the first of them.
fn messages(from: Side, mut bytes: &[u8]) -> Option<Row> {
    let kinds = match from {
        Side::Client => OF_CLIENT,
        Side::Server => OF_SERVER,
    };
    let mut row = Row {
        count: 0,
        ends: true,
        sure: false,
    };
    while let Some(kind) = bytes.first().filter(|_| row.count < ENOUGH) {
        if !kinds.contains(kind) || bytes.get(1).is_some_and(|b| *b != 0) {
            return None;
        }
        row.ends = false;
        if bytes.len() < HEAD {
            break;
        }
        let header = Header::read(bytes).ok()?;
        if header.size > SIZE_LIMIT {
            return None;
        }
        row.count += 1;
        let message = bytes.get(..header.size as usize);
        let text = message.unwrap_or(bytes);
        row.sure |= is_sure(from, &header, text)?;
        let Some(message) = message else {
            break;
        };
        row.ends = true;
        bytes = &bytes[message.len()..];
    }
    Some(row)
}

/// Whether a message, of which there may be only the start, looks like no other protocol's; none if it can't be one.
fn is_sure(from: Side, header: &Header, text: &[u8]) -> Option<bool> {
    let whole = text.len() as u64 == header.size;
    let fits = |size| if header.size == size { Some(whole) } else { None };
    match (from, header.kind) {
        (Side::Client, b'S' | b'H' | b'X' | b'c') => fits(5),
        (Side::Client, b'Q') => {
            let ends = text[HEAD..].iter().position(|b| *b == 0);
            let fits = ends.is_none_or(|end| whole && HEAD + end + 1 == text.len());
            (fits && header.size > HEAD as u64).then_some(whole && ends.is_some())
        }
        (Side::Server, b'Z') => {
            let state = text.get(HEAD).is_none_or(|state| b"ITE".contains(state));
            fits(6).filter(|_| state)
        }
        (Side::Server, b'1' | b'2' | b'3' | b'I' | b'n' | b's') => fits(5),
        _ => Some(false),
    }
}

/// Where a message starts: at once, or where the server says that it is ready.
pub(super) fn find(from: Side, bytes: &[u8]) -> Option<usize> {
    if detect(from, bytes) == Verdict::Yes {
        return Some(0);
    }
    match from {
        Side::Client => (1..bytes.len()).find(|at| {
            let typed = OF_CLIENT.contains(&bytes[*at]);
            typed && detect(from, &bytes[*at..]) == Verdict::Yes
        }),
        Side::Server => bytes
            .windows(6)
            .position(|message| matches!(message, [b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E'])),
    }
}
