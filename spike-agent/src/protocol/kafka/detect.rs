//! Whether bytes are Kafka's, and where a message begins.

use super::{Head, SIZE, api, size};
use crate::protocol::{Side, Step, Verdict};

/// Newest version of any API, and some to come.
const VERSION_LIMIT: u16 = 30;
/// Longest name of a client.
const CLIENT_LIMIT: usize = 256;
/// Answers in a row that are no chance; bounds what a search costs.
const MANY: usize = 8;
/// Size, API, version, number, and size of the client's name.
const HEAD: usize = SIZE + 2 + 2 + 4 + 2;

pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    match (from, size(bytes)) {
        (_, Err(Step::Need(_))) if bytes[0] < 0x20 => Verdict::Maybe,
        (_, Err(_)) => Verdict::No,
        (Side::Server, Ok(_)) => match bytes.get(SIZE) {
            // Numbers are counted up from 0.
            None | Some(0) => Verdict::Maybe,
            Some(_) => Verdict::No,
        },
        (Side::Client, Ok(size)) => client(size, &bytes[SIZE..]),
    }
}

/// Frames of other protocols can look like the head of a long request: surely one is only what ends where it says, or
/// is of the kind that is long.
fn client(size: usize, message: &[u8]) -> Verdict {
    let known = head(size, message);
    if known != Verdict::Yes {
        return known;
    }
    match message.get(size..) {
        Some(rest) => next(rest),
        None => match Head::read(message).map(|head| api::is_produce(&head)) {
            Some(Some(true)) => Verdict::Yes,
            Some(Some(false)) => Verdict::No,
            Some(None) | None => Verdict::Maybe,
        },
    }
}

/// Judges a request by what follows it: nothing, or another one.
fn next(rest: &[u8]) -> Verdict {
    match size(rest) {
        _ if rest.is_empty() => Verdict::Yes,
        Ok(size) if head(size, &rest[SIZE..]) != Verdict::No => Verdict::Yes,
        Err(Step::Need(_)) => Verdict::Maybe,
        _ => Verdict::No,
    }
}

fn head(size: usize, message: &[u8]) -> Verdict {
    let known = message
        .first_chunk::<4>()
        .map(|[api, api_low, version, version_low]| {
            let api = usize::from(u16::from_be_bytes([*api, *api_low]));
            api < api::NAMES.len() && u16::from_be_bytes([*version, *version_low]) <= VERSION_LIMIT
        });
    match known {
        Some(false) => return Verdict::No,
        None => return Verdict::Maybe,
        Some(true) if size + SIZE < HEAD => return Verdict::No,
        Some(true) => {}
    }
    match Head::read(message) {
        Some(head) => match head.client {
            Some([]) | None => Verdict::Maybe,
            Some(client) if is_name(client) && HEAD + client.len() <= SIZE + size => Verdict::Yes,
            Some(_) => Verdict::No,
        },
        None if message.len() < size && message.len() < CLIENT_LIMIT + HEAD => Verdict::Maybe,
        None => Verdict::No,
    }
}

fn is_name(client: &[u8]) -> bool {
    client.len() <= CLIENT_LIMIT && client.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
}

/// Whether `bytes` start with a whole request, and another one, or nothing, comes behind it.
pub(super) fn are_requests(bytes: &[u8]) -> bool {
    let Ok(size) = size(bytes) else {
        return false;
    };
    let message = &bytes[SIZE..];
    let begins = client(size, message) == Verdict::Yes;
    begins && message.len() >= size
}

/// Whether `bytes` are answers from beginning to end, or many, to what was asked.
pub(super) fn are_answers(mut bytes: &[u8], asked: impl Fn(u32) -> bool) -> bool {
    for _ in 0..MANY {
        let Ok(size) = size(bytes) else {
            return false;
        };
        let message = &bytes[SIZE..];
        let known = message
            .first_chunk()
            .is_some_and(|number| asked(u32::from_be_bytes(*number)));
        match message.get(size..) {
            Some([]) => return known,
            Some(rest) if known => bytes = rest,
            _ => return false,
        }
    }
    true
}
