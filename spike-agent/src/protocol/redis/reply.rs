//! Replies, pushes, and what a server says unasked.

use super::{LINE_LIMIT, Mode, Step, Verdict, line, sized};
use crate::protocol::{Key::Order, Messages};

/// Arrays in arrays; Redis itself nests a few.
const DEPTH_LIMIT: usize = 64;
/// First words of the messages that a subscriber gets.
const PUSHES: [&str; 9] = [
    "message",
    "pmessage",
    "smessage",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
];
/// Longest first word of a push, with its line ends.
const PUSH_LIMIT: usize = 5 + "punsubscribe\r\n".len();

/// Where in a reply a server is.
#[derive(Default)]
pub(super) struct Reader {
    /// Elements that are still to come, of each array around.
    left: Vec<u64>,
    /// Whether it answers a command.
    answer: bool,
}

impl Reader {
    pub(super) fn read(&mut self, bytes: &[u8], mode: &Mode, messages: &mut Messages<'_>) -> Step {
        self.element(bytes, mode, messages).unwrap_or_else(|step| step)
    }

    fn element(&mut self, bytes: &[u8], mode: &Mode, messages: &mut Messages<'_>) -> Result<Step, Step> {
        let outermost = self.left.is_empty();
        let kind = bytes[0];
        let (size, skip, elements) = match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => (line(bytes)?.len(), 0, 0),
            b'$' | b'=' | b'!' => {
                let (size, string) = sized(bytes, kind)?;
                (size, string.map_or(0, |string| string.saturating_add(2)), 0)
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let (size, count) = sized(bytes, kind)?;
                let each = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                (size, 0, count.unwrap_or(0).checked_mul(each).ok_or(Step::Lost)?)
            }
            _ => return Err(Step::Lost),
        };
        if self.left.len() >= DEPTH_LIMIT {
            return Err(Step::Lost);
        }
        let answer = if outermost {
            !is_unasked(
                &bytes[size..],
                kind,
                elements,
                &bytes[..size],
                mode,
                messages.asked(),
            )?
        } else {
            self.answer
        };
        // Nothing is said or changed before here, as the same bytes may come again.
        self.answer = answer;
        if answer && outermost {
            messages.response(Order);
        }
        if answer && kind == b'-' && (outermost || is_exec(messages.asked())) {
            messages.status(Order, first_word(bytes), true);
        } else if answer && outermost && kind == b'!' {
            messages.status(Order, "ERR", true);
        } else if answer && outermost {
            messages.status(Order, "OK", false);
        }
        if !outermost && kind != b'|' {
            self.one_less();
        }
        if elements > 0 {
            self.left.push(elements);
        }
        while self.left.last() == Some(&0) {
            self.left.pop();
        }
        // Attributes come before what they are about.
        if answer && self.left.is_empty() {
            messages.response_end(Order);
        }
        Ok(Step::Took { bytes: size, skip })
    }

    fn one_less(&mut self) {
        if let Some(left) = self.left.last_mut() {
            *left -= 1;
        }
    }
}

/// Whether what starts here answers no command; `rest` is behind its first line.
fn is_unasked(
    rest: &[u8],
    kind: u8,
    elements: u64,
    line: &[u8],
    mode: &Mode,
    asked: Option<&str>,
) -> Result<bool, Step> {
    match kind {
        b'>' | b'|' => Ok(true),
        b'+' => Ok(mode.monitoring && line.get(1).is_some_and(u8::is_ascii_digit)),
        b'*' if elements > 0 && (mode.subscribed || asked.is_none()) => {
            let mut lines = rest.splitn(3, |b| *b == b'\n');
            let word = match (lines.next(), lines.next(), lines.next()) {
                (Some(_), Some(word), Some(_)) => word,
                _ if rest.len() > PUSH_LIMIT || rest.first().is_some_and(|b| *b != b'$') => return Ok(false),
                _ => return Err(Step::More),
            };
            let word = word.strip_suffix(b"\r").unwrap_or(word);
            Ok(PUSHES.iter().any(|push| push.as_bytes() == word))
        }
        _ => Ok(false),
    }
}

/// Its reply has those of all the commands of the transaction.
fn is_exec(asked: Option<&str>) -> bool {
    asked == Some("EXEC")
}

/// `WRONGTYPE` of `-WRONGTYPE Operation against …`.
fn first_word(line: &[u8]) -> String {
    let word = line[1..]
        .split(|b| b.is_ascii_whitespace())
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}

/// Whether a server of Redis may begin so.
pub(super) fn detect(bytes: &[u8]) -> Verdict {
    let kind = bytes[0];
    let fits = match kind {
        b'$' | b'*' | b'%' | b'~' | b'>' | b'=' | b'!' | b'|' => {
            !matches!(sized(bytes, kind), Err(step) if step != Step::More)
        }
        b':' | b',' | b'(' => bytes[1..]
            .iter()
            .take_while(|b| **b != b'\r')
            .all(|b| !b.is_ascii_alphabetic()),
        b'+' | b'-' => {
            let text = &bytes[1..bytes.len().min(LINE_LIMIT)];
            text.iter()
                .take_while(|b| **b != b'\n')
                .all(|b| !b.is_ascii_control() || *b == b'\r')
        }
        b'_' | b'#' => bytes.len() < 2 || matches!(bytes[1], b'\r' | b't' | b'f'),
        _ => false,
    };
    if bytes.starts_with(b"+PONG\r\n") || bytes.starts_with(b"-NOAUTH ") {
        Verdict::Yes
    } else if fits {
        Verdict::Maybe
    } else {
        Verdict::No
    }
}
