//! Redis' RESP2 and RESP3 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>), Valkey's and KeyDB's too.
//!
//! Read by hand: the reader that there is for it, `redis-protocol`, wants a whole reply in memory, and a reply may have
//! gigabytes. Here strings are passed over and arrays are counted.

mod command;
mod reply;

use super::{Key::Order, Kind, Messages, Next, Protocol, ProtocolName, Side, Step, Verdict};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Redis,
    ports: &[6379, 6380, 26379, 7000],
    detect,
    start: || Box::new(Redis::default()),
};

/// Longest line with a type or a size in it; simple strings and inline commands are lines, too.
const LINE_LIMIT: usize = 16 * 1024;
/// Clients pipeline, but not over such a silence, in nanoseconds: a server answers faster.
const QUIET_NS: u64 = 5_000_000;

#[derive(Default)]
struct Redis {
    /// Arguments of the command that are still to come.
    arguments: u64,
    reply: reply::Reader,
    mode: Mode,
}

/// What decides which replies there will be.
#[derive(Default)]
struct Mode {
    /// Arrays may be messages of a channel.
    subscribed: bool,
    /// Lines may be what the server was told by others.
    monitoring: bool,
    replies: Replies,
}

/// By `CLIENT REPLY`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Replies {
    #[default]
    On,
    Off,
    SkipNext,
}

impl Protocol for Redis {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        match from {
            Side::Client if self.arguments > 0 => self.argument(bytes, messages),
            Side::Client => self.command(bytes, messages),
            Side::Server => self.reply.read(bytes, &self.mode, messages),
        }
    }

    /// A reply has no mark of its own: the framework finds it after a silence.
    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        let starts = |at: &usize| bytes[*at] == b'*' && detect(Side::Client, &bytes[*at..]) == Verdict::Yes;
        (0..bytes.len()).find(starts).filter(|_| from == Side::Client)
    }

    fn lost(&mut self, from: Side) {
        match from {
            Side::Client => self.arguments = 0,
            Side::Server => self.reply = reply::Reader::default(),
        }
    }

    fn quiet_ns(&self) -> u64 {
        QUIET_NS
    }
}

impl Redis {
    fn command(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let (command, size) = match command::read(bytes) {
            command::Read::Command(command, size) => (command, size),
            // Empty lines are allowed between commands.
            command::Read::Nothing(bytes) => return Step::Took { bytes, skip: 0 },
            command::Read::Step(step) => return step,
        };
        let answered = self.mode.follow(&command);
        messages.request(Order, command.request());
        if !answered {
            messages.no_response(Order);
        }
        self.arguments = command.left;
        if self.arguments == 0 {
            messages.request_end(Order);
        }
        if command.is("SYNC") || command.is("PSYNC") {
            // A replica: what follows is the data set, and then commands from the server.
            let next = Next::Opaque;
            return Step::Switch { bytes: size, next };
        }
        Step::Took { bytes: size, skip: 0 }
    }

    fn argument(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let (line, size) = match sized(bytes, b'$') {
            Ok(sized) => sized,
            Err(step) => return step,
        };
        let Some(size) = size else {
            return Step::Lost;
        };
        self.arguments -= 1;
        if self.arguments == 0 {
            messages.request_end(Order);
        }
        let skip = size.saturating_add(2);
        Step::Took { bytes: line, skip }
    }
}

impl Mode {
    /// Takes a command into account that changes what the server sends, and says whether it is answered.
    fn follow(&mut self, command: &command::Command) -> bool {
        if command.is_subscription() {
            // One message for each channel, and none that is a reply.
            self.subscribed = true;
            return false;
        }
        self.monitoring |= command.is("MONITOR");
        let reply = match command.is("CLIENT REPLY") {
            true => command.arguments.get(2).map(|mode| mode.to_ascii_uppercase()),
            false => None,
        };
        match (reply.as_deref(), self.replies) {
            (Some("OFF"), _) => {
                self.replies = Replies::Off;
                false
            }
            (Some("SKIP"), Replies::On | Replies::SkipNext) => {
                self.replies = Replies::SkipNext;
                false
            }
            (Some("ON"), _) | (_, Replies::On) => {
                self.replies = Replies::On;
                true
            }
            (_, Replies::Off) => false,
            (_, Replies::SkipNext) => {
                self.replies = Replies::On;
                false
            }
        }
    }
}

/// The first line of `bytes` with its end, or what to answer if there is none.
fn line(bytes: &[u8]) -> Result<&[u8], Step> {
    match bytes.iter().take(LINE_LIMIT).position(|b| *b == b'\n') {
        Some(end) => Ok(&bytes[..=end]),
        None if bytes.len() < LINE_LIMIT => Err(Step::More),
        None => Err(Step::Lost),
    }
}

/// A line of a type and a size: how long the line is, and the size, if it isn't null (-1).
fn sized(bytes: &[u8], kind: u8) -> Result<(usize, Option<u64>), Step> {
    if bytes.first().is_some_and(|first| *first != kind) {
        return Err(Step::Lost);
    }
    let line = line(bytes)?;
    let digits = str::from_utf8(&line[1..])
        .ok()
        .and_then(|text| text.strip_suffix("\r\n"));
    match digits {
        Some("-1") => Ok((line.len(), None)),
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((line.len(), Some(digits.parse().map_err(|_| Step::Lost)?)))
        }
        _ => Err(Step::Lost),
    }
}

fn detect(from: Side, bytes: &[u8]) -> Verdict {
    match from {
        // An array of strings, the first of which is a name.
        Side::Client if bytes[0] == b'*' => {
            let name = sized(bytes, b'*').and_then(|(array, _)| match &bytes[array..] {
                [] => Err(Step::More),
                rest => sized(rest, b'$').map(|(string, size)| (&rest[string..], size)),
            });
            match name {
                Err(Step::More) if bytes.len() < 64 => Verdict::Maybe,
                Ok((name, Some(1..=64))) => match name.first() {
                    None => Verdict::Maybe,
                    Some(first) if first.is_ascii_alphabetic() => Verdict::Yes,
                    Some(_) => Verdict::No,
                },
                _ => Verdict::No,
            }
        }
        Side::Client => match command::is_inline(bytes) {
            true => Verdict::Maybe,
            false => Verdict::No,
        },
        Side::Server => reply::detect(bytes),
    }
}

#[cfg(test)]
mod tests;
