//! Redis' RESP2 and RESP3: whole commands and replies.

use super::Recorded;
use crate::{
    protocol::fold,
    replay::{
        exchange::Talk,
        parts::{Parts, add_body, text_of},
    },
};

/// Most arguments of a command, and elements of a reply on one level.
const COUNT_LIMIT: usize = 1 << 20;
/// Arrays in arrays.
const DEPTH_LIMIT: usize = 64;
/// Commands that turn a connection into a stream of messages that nobody asked for.
const STREAMS: [&str; 8] = [
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "MONITOR",
    "PSYNC",
];

/// A command: its arguments, the name first, and its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// As they were sent.
    pub arguments: Vec<Vec<u8>>,
    /// In bytes.
    pub size: usize,
}

impl Command {
    /// In capitals.
    pub fn name(&self) -> String {
        let name = self.arguments.first().map(Vec::as_slice).unwrap_or_default();
        String::from_utf8_lossy(name).to_ascii_uppercase()
    }

    /// Whether what follows are messages, and no replies.
    pub fn streams(&self) -> bool {
        STREAMS.contains(&self.name().as_str())
    }

    /// As it is shown.
    pub fn label(&self) -> String {
        let rest = self.arguments.iter().skip(1).take(2);
        let words = rest.map(|argument| {
            let text = String::from_utf8_lossy(argument);
            text.chars().take(64).collect::<String>()
        });
        let mut label = self.name();
        for word in words {
            label.push(' ');
            label.push_str(&word);
        }
        label
    }

    /// The same for all of its kind.
    pub fn kind(&self) -> String {
        match self.arguments.get(1) {
            Some(key) => format!("{} {}", self.name(), fold::key(&text_of(key))),
            None => self.name(),
        }
    }

    /// What it says.
    pub fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        parts.push("command", self.name());
        for (number, argument) in self.arguments.iter().enumerate().skip(1) {
            let name = format!("arg.{number}");
            if argument.is_empty() {
                parts.push(name, "");
            } else {
                add_body(&mut parts, &name, None, argument);
            }
        }
        parts
    }
}

/// Follows transactions: what an `EXEC` is to do is what was queued before it.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    queued: Option<Vec<String>>,
}

impl Transaction {
    /// Adds to the parts of a command what they depend on.
    pub fn follow(&mut self, command: &Command, parts: &mut Parts) {
        match command.name().as_str() {
            "MULTI" => self.queued = Some(Vec::new()),
            "DISCARD" => self.queued = None,
            "EXEC" => {
                for (number, line) in (1..).zip(self.queued.take().unwrap_or_default()) {
                    parts.push(format!("queued.{number}"), line);
                }
            }
            _ => {
                if let Some(queued) = &mut self.queued {
                    let words: Vec<_> = command.arguments.iter().map(|word| text_of(word)).collect();
                    queued.push(words.join(" "));
                }
            }
        }
    }
}

/// The command at the start of `bytes`; none when there is more to come.
///
/// # Errors
/// Why it is none.
pub fn command(bytes: &[u8]) -> Result<Option<Command>, &'static str> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    if *first != b'*' {
        return Ok(inline(bytes));
    }
    let Some((count, mut at)) = number(bytes)? else {
        return Ok(None);
    };
    let count = usize::try_from(count).unwrap_or(0);
    if count > COUNT_LIMIT {
        return Err("a command with too many arguments");
    }
    let mut arguments = Vec::new();
    for _ in 0..count {
        let rest = &bytes[at..];
        if rest.first().is_some_and(|first| *first != b'$') {
            return Err("an argument that is no string");
        }
        let Some((size, line)) = number(rest)? else {
            return Ok(None);
        };
        let size = usize::try_from(size).map_err(|_| "an argument without a size")?;
        let Some(argument) = (at + line)
            .checked_add(size)
            .and_then(|end| bytes.get(at + line..end))
        else {
            return Ok(None);
        };
        arguments.push(argument.to_vec());
        at += line + size + 2;
        if at > bytes.len() {
            return Ok(None);
        }
    }
    Ok(Some(Command { arguments, size: at }))
}

/// A command in words on a line.
fn inline(bytes: &[u8]) -> Option<Command> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let words = bytes[..end].split(u8::is_ascii_whitespace);
    Some(Command {
        arguments: words
            .filter(|word| !word.is_empty())
            .map(<[u8]>::to_vec)
            .collect(),
        size: end + 1,
    })
}

/// The number in the line at the start, and the line's size.
fn number(bytes: &[u8]) -> Result<Option<(i64, usize)>, &'static str> {
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        return Ok(None);
    };
    let digits = bytes.get(1..end).unwrap_or_default().trim_ascii();
    let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let number = number.ok_or("a size that is no number")?;
    Ok(Some((number, end + 1)))
}

/// The size of the reply at the start of `bytes`, with the attributes before it; none when there is more to come.
///
/// # Errors
/// Why it is none.
pub fn reply(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    // Elements that are still to come, of each array around.
    let mut left = vec![1_u64];
    while let Some(last) = left.last_mut() {
        if *last == 0 {
            left.pop();
            continue;
        }
        let rest = &bytes[at..];
        let Some(kind) = rest.first() else {
            return Ok(None);
        };
        // Attributes come before what they are about.
        if *kind != b'|' {
            *last -= 1;
        }
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
                let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                    return Ok(None);
                };
                at += end + 1;
            }
            b'$' | b'=' | b'!' => {
                let Some((size, line)) = number(rest)? else {
                    return Ok(None);
                };
                at += line;
                if let Ok(size) = usize::try_from(size) {
                    at = at.checked_add(size + 2).ok_or("a string without an end")?;
                }
                if at > bytes.len() {
                    return Ok(None);
                }
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let Some((count, line)) = number(rest)? else {
                    return Ok(None);
                };
                at += line;
                let count = u64::try_from(count).unwrap_or(0);
                if count > COUNT_LIMIT as u64 || left.len() > DEPTH_LIMIT {
                    return Err("an array with too many elements");
                }
                left.push(if matches!(kind, b'%' | b'|') {
                    2 * count
                } else {
                    count
                });
            }
            _ => return Err("no reply of Redis"),
        }
    }
    Ok(Some(at))
}

/// What a reply says: each line or string of it.
pub fn reply_parts(mut bytes: &[u8]) -> Parts {
    let mut parts = Parts::default();
    let mut element = 0_usize;
    while let Some(kind) = bytes.first() {
        element += 1;
        let name = format!("reply.{element}");
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            break;
        };
        let line = bytes[..end].trim_ascii_end();
        let size = number(bytes)
            .ok()
            .flatten()
            .and_then(|(size, _)| usize::try_from(size).ok());
        match (kind, size) {
            (b'$' | b'=' | b'!', Some(size)) => {
                let string = bytes.get(end + 1..end + 1 + size).unwrap_or_default();
                if string.is_empty() {
                    parts.push(name, "");
                } else {
                    add_body(&mut parts, &name, None, string);
                }
                bytes = bytes.get(end + 3 + size..).unwrap_or_default();
            }
            _ => {
                parts.push(name, text_of(line));
                bytes = &bytes[end + 1..];
            }
        }
    }
    parts
}

pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    let (asked, told) = (recorded.client.bytes(), recorded.answers.bytes());
    let (mut sent_at, mut told_at) = (0, 0);
    let mut transaction = Transaction::default();
    while sent_at < asked.len() {
        let command = match command(&asked[sent_at..]) {
            Ok(Some(command)) => command,
            Ok(None) => {
                return talk
                    .left_out
                    .push("a command that was not sent to its end".to_owned());
            }
            Err(why) => return talk.left_out.push(why.to_owned()),
        };
        let range = sent_at..sent_at + command.size;
        sent_at = range.end;
        if command.arguments.is_empty() {
            continue;
        }
        let label = command.label();
        if command.streams() {
            return talk.left_out.push(format!(
                "{label}: what follows is not asked for message by message"
            ));
        }
        let (size, why) = match reply(&told[told_at..]) {
            Ok(Some(size)) => (Some(size), ""),
            Ok(None) => (None, "its reply is not there to its end"),
            Err(why) => (None, why),
        };
        let Some(size) = size else {
            return talk.left_out.push(format!("{label}: {why}"));
        };
        let answer = told_at..told_at + size;
        told_at = answer.end;
        let mut parts = command.parts();
        transaction.follow(&command, &mut parts);
        let (names, parts) = (
            [label, command.kind()],
            [parts, reply_parts(&told[answer.clone()])],
        );
        let exchange = recorded.exchange(names, parts, range, answer, command.name() == "QUIT");
        talk.exchanges.push(exchange.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::wire::testing::recorded;

    #[test]
    fn pipelined_commands_get_their_replies() {
        let asked =
            b"*2\r\n$3\r\nGET\r\n$6\r\ncart:1\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$7\r\n{\"a\":1}\r\n";
        let told = b"$2\r\nhi\r\n+PONG\r\n+OK\r\n";
        let talk = recorded("redis", asked, told).split();
        assert!(talk.left_out.is_empty(), "{:?}", talk.left_out);
        let labels: Vec<_> = talk.exchanges.iter().map(|each| each.label.as_str()).collect();
        assert_eq!(labels, ["GET cart:1", "PING", "SET k {\"a\":1}"]);
        assert_eq!(talk.exchanges[0].kind, "GET cart:{id}");
        assert_eq!(talk.exchanges[0].answer.bytes(), b"$2\r\nhi\r\n");
        assert_eq!(talk.exchanges[2].request.get("arg.2.a"), Some("1"));
    }

    #[test]
    fn replies_of_any_depth_have_an_end() {
        for text in [
            "*2\r\n:1\r\n*1\r\n$-1\r\n",
            "%1\r\n+a\r\n*0\r\n",
            "|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n",
            "*-1\r\n",
            "_\r\n",
        ] {
            assert_eq!(reply(text.as_bytes()), Ok(Some(text.len())), "{text}");
            assert_eq!(
                reply(format!("{text}+next\r\n").as_bytes()),
                Ok(Some(text.len())),
                "{text}"
            );
            assert_eq!(reply(&text.as_bytes()[..text.len() - 1]), Ok(None), "{text}");
        }
        assert!(reply(b"HTTP/1.1\r\n").is_err());
    }

    #[test]
    fn an_exec_is_told_by_what_was_queued() {
        let lines = |key: &str| format!("MULTI\r\nINCR {key}\r\nEXEC\r\n");
        let told = b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n";
        let exec = |key: &str| {
            let talk = recorded("redis", lines(key).as_bytes(), told).split();
            talk.exchanges[2].request.clone()
        };
        assert_eq!(exec("a"), exec("a"));
        assert_ne!(exec("a"), exec("b"));
    }
}
