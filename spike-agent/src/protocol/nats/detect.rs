//! Whether bytes are NATS', and where a message begins.

use super::{Line, Side, Step, read};
use crate::protocol::Verdict;

const FROM_CLIENT: [&str; 7] = [
    "CONNECT {",
    "PUB ",
    "HPUB ",
    "SUB ",
    "UNSUB ",
    "PING\r\n",
    "PONG\r\n",
];
const FROM_SERVER: [&str; 7] = [
    "INFO {", "MSG ", "HMSG ", "+OK\r\n", "-ERR '", "PING\r\n", "PONG\r\n",
];

pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    let starts = match from {
        Side::Client => FROM_CLIENT,
        Side::Server => FROM_SERVER,
    };
    let fits = |start: &str| bytes.starts_with(start.as_bytes()) || start.as_bytes().starts_with(bytes);
    if !starts.iter().any(|start| fits(start)) {
        return Verdict::No;
    }
    match read(from, bytes) {
        Ok((Line::Connect { .. } | Line::Message(_), _)) => Verdict::Yes,
        Ok((Line::Info { .. }, _)) => Verdict::Yes,
        // Others say these, too.
        Ok(_) => Verdict::Maybe,
        Err(Step::More) if bytes.starts_with(b"INFO {\"server_id\":") => Verdict::Yes,
        Err(Step::More) => Verdict::Maybe,
        Err(_) => Verdict::No,
    }
}

/// Whether `bytes` start with a message, and another one, or nothing, comes behind it.
pub(super) fn are_messages(from: Side, bytes: &[u8]) -> bool {
    let Ok((line, size)) = read(from, bytes) else {
        return false;
    };
    let rest = match line {
        Line::Message(sent) => {
            let end = usize::try_from(sent.size)
                .ok()
                .and_then(|sent| sent.checked_add(size));
            let rest = end.and_then(|end| bytes.get(end..));
            rest.and_then(|rest| rest.strip_prefix(b"\r\n"))
        }
        _ => bytes.get(size..),
    };
    rest.is_some_and(|rest| rest.is_empty() || detect(from, rest) != Verdict::No)
}
