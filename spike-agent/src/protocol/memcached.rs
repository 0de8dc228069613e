//! Memcached's text, meta and binary protocols (<https://docs.memcached.org/protocols/>).

mod binary;
mod text;

use super::{Kind, Messages, Protocol, ProtocolName, Side, Step, Verdict};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Memcached,
    ports: &[11211, 11210],
    detect,
    start: || Box::new(Memcached::default()),
};

/// Clients pipeline, but not over such a silence, in nanoseconds: a server answers faster.
const QUIET_NS: u64 = 5_000_000;

/// Messages in a row that are no chance; bounds what a search for the next one costs.
const MANY: usize = 8;

#[derive(Default)]
struct Memcached {
    text: text::Text,
    binary: binary::Binary,
}

impl Protocol for Memcached {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        match (from, binary::begins(from, bytes)) {
            (_, true) => self.binary.read(from, bytes, messages),
            (Side::Client, false) => self.text.command(bytes, messages),
            (Side::Server, false) => self.text.reply(bytes, messages),
        }
    }

    /// A text reply has no mark of its own: the framework finds it after a silence. Data may look like anything, but
    /// not often like commands up to the end of what there is.
    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| {
            let (before, rest) = bytes.split_at(*at);
            let of_line = before.is_empty() || before.ends_with(b"\r\n");
            binary::are_messages(from, rest) || from == Side::Client && of_line && text::are_commands(rest)
        })
    }

    fn lost(&mut self, _from: Side) {
        self.text = text::Text::default();
        self.binary.lost();
    }

    fn quiet_ns(&self) -> u64 {
        QUIET_NS
    }
}

fn detect(from: Side, bytes: &[u8]) -> Verdict {
    if binary::begins(from, bytes) {
        return binary::detect(from, bytes);
    }
    match from {
        Side::Client => text::detect_command(bytes),
        Side::Server => text::detect_reply(bytes),
    }
}

#[cfg(test)]
mod tests;
