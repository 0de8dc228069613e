//! A command's name and key, from the first few of its arguments.

use super::{LINE_LIMIT, Step, line, sized};
use crate::protocol::{Request, fold};

/// Arguments that are read, the name among them; no more are needed to name a call and to know its reply.
const READ_LIMIT: usize = 3;
/// Longest argument that is read; a longer one is passed over, and what is behind it, too.
const ARGUMENT_LIMIT: u64 = 256;

/// Commands whose second word says what they do.
const CONTAINERS: [&str; 17] = [
    "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "MODULE",
    "OBJECT", "PUBSUB", "SCRIPT", "SENTINEL", "SLOWLOG", "XGROUP", "XINFO",
];
/// Commands whose first argument is not a key: nothing, a secret, a script, a number.
const KEYLESS: [&str; 31] = [
    "ASKING",
    "AUTH",
    "BGREWRITEAOF",
    "BGSAVE",
    "DBSIZE",
    "DISCARD",
    "ECHO",
    "EVAL",
    "EVALSHA",
    "EVALSHA_RO",
    "EVAL_RO",
    "EXEC",
    "FLUSHALL",
    "FLUSHDB",
    "HELLO",
    "INFO",
    "KEYS",
    "LASTSAVE",
    "MIGRATE",
    "MONITOR",
    "MULTI",
    "PING",
    "QUIT",
    "RANDOMKEY",
    "RESET",
    "ROLE",
    "SCAN",
    "SELECT",
    "SWAPDB",
    "UNWATCH",
    "WAIT",
];

pub(super) struct Command {
    /// The first ones, and only short ones.
    pub(super) arguments: Vec<String>,
    /// Those that are behind them.
    pub(super) left: u64,
    name: String,
}

pub(super) enum Read {
    Command(Command, usize),
    /// That many bytes that mean nothing.
    Nothing(usize),
    Step(Step),
}

/// Reads the start of a command: its name, and what of its first arguments is short.
pub(super) fn read(bytes: &[u8]) -> Read {
    let read = if bytes[0] == b'*' {
        array(bytes)
    } else {
        inline(bytes)
    };
    read.unwrap_or_else(Read::Step)
}

fn array(bytes: &[u8]) -> Result<Read, Step> {
    let (mut at, count) = sized(bytes, b'*')?;
    let count = count.unwrap_or(0);
    if count == 0 {
        return Ok(Read::Nothing(at));
    }
    let mut arguments = Vec::new();
    while (arguments.len() as u64) < count && arguments.len() < READ_LIMIT {
        let rest = &bytes[at..];
        if rest.is_empty() {
            return Err(Step::More);
        }
        let (head, size) = sized(rest, b'$')?;
        let size = size.ok_or(Step::Lost)?;
        if size > ARGUMENT_LIMIT {
            break;
        }
        let end = head + size as usize;
        if rest.len() < end + 2 {
            return Err(Step::Need(at + end + 2));
        }
        if &rest[end..end + 2] != b"\r\n" {
            return Err(Step::Lost);
        }
        arguments.push(String::from_utf8_lossy(&rest[head..end]).into_owned());
        at += end + 2;
    }
    let left = count - arguments.len() as u64;
    Ok(Read::Command(Command::new(arguments, left)?, at))
}

/// A line as it is typed by hand.
fn inline(bytes: &[u8]) -> Result<Read, Step> {
    let line = line(bytes)?;
    let text = str::from_utf8(line).map_err(|_| Step::Lost)?;
    let arguments: Vec<_> = text
        .split_ascii_whitespace()
        .take(READ_LIMIT)
        .map(str::to_owned)
        .collect();
    if arguments.is_empty() {
        return Ok(Read::Nothing(line.len()));
    }
    Ok(Read::Command(Command::new(arguments, 0)?, line.len()))
}

/// Whether it can be the start of a command that was typed by hand.
pub(super) fn is_inline(bytes: &[u8]) -> bool {
    let printable = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    let end = bytes.iter().take(LINE_LIMIT).position(|b| *b == b'\n');
    let text = &bytes[..end.unwrap_or(bytes.len().min(LINE_LIMIT))];
    let name = text.split(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
    is_name(name) && text.iter().all(printable)
}

/// Modules have names such as `FT.SEARCH`.
fn is_name(name: &[u8]) -> bool {
    let of_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    name.len() <= 64 && name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(of_name)
}

impl Command {
    fn new(arguments: Vec<String>, left: u64) -> Result<Self, Step> {
        let first = arguments
            .first()
            .filter(|name| is_name(name.as_bytes()))
            .ok_or(Step::Lost)?;
        let mut name = first.to_ascii_uppercase();
        let sub = arguments.get(1).filter(|_| CONTAINERS.contains(&&*name));
        if let Some(sub) = sub.filter(|sub| is_name(sub.as_bytes())) {
            name = format!("{name} {}", sub.to_ascii_uppercase());
        }
        Ok(Self {
            arguments,
            left,
            name,
        })
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    pub(super) fn is_subscription(&self) -> bool {
        let kind = self.name.trim_end_matches("SUBSCRIBE");
        kind.len() < self.name.len() && matches!(kind, "" | "P" | "S" | "UN" | "PUN" | "SUN")
    }

    pub(super) fn request(&self) -> Request {
        let keyless = self.name.contains(' ') || KEYLESS.contains(&&*self.name);
        let key = self.arguments.get(1).filter(|_| !keyless);
        Request::new(
            self.name.clone(),
            key.map_or_else(String::new, |key| fold::key(key)),
        )
    }
}
