//! Redis' commands and replies.

use serde_json::{Value, json};

use super::text;

/// More elements, and levels, are not shown.
const ELEMENTS_LIMIT: usize = 256;
const DEPTH_LIMIT: usize = 8;

/// `command`: name and arguments.
pub(super) fn command(bytes: &[u8]) -> Value {
    match value(&mut &bytes[..], DEPTH_LIMIT) {
        Some(words @ Value::Array(_)) => json!({"command": words}),
        _ if !bytes.is_empty() && bytes[0] != b'*' => {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let words = line
                .trim_ascii()
                .split(|byte| *byte == b' ')
                .filter(|word| !word.is_empty());
            json!({"command": words.map(text).collect::<Vec<_>>()})
        }
        _ => Value::Null,
    }
}

/// `value`, or `error`.
pub(super) fn reply(bytes: &[u8]) -> Value {
    if let Some(b'-' | b'!') = bytes.first() {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return json!({"error": String::from_utf8_lossy(line.get(1..).unwrap_or_default())});
    }
    value(&mut &bytes[..], DEPTH_LIMIT).map_or(Value::Null, |value| json!({"value": value}))
}

/// None when it is not whole, or not read.
fn value(rest: &mut &[u8], depth: usize) -> Option<Value> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = rest[..end].trim_ascii_end();
    let (kind, line) = line.split_first()?;
    *rest = &rest[end + 1..];
    let words = str::from_utf8(line).ok()?;
    let count = || words.parse::<i64>().ok();
    Some(match kind {
        b'+' | b'-' => text(line),
        b':' => json!(words.parse::<i64>().ok()?),
        b',' => json!(words.parse::<f64>().ok()?),
        b'#' => json!(words == "t"),
        b'(' => json!(words),
        b'_' => Value::Null,
        b'$' | b'=' | b'!' => {
            let Ok(length) = usize::try_from(count()?) else {
                return Some(Value::Null);
            };
            let bytes = rest.get(..length)?;
            *rest = rest.get(length + 2..)?;
            text(bytes)
        }
        b'*' | b'~' | b'>' | b'%' => {
            let Ok(length) = usize::try_from(count()?) else {
                return Some(Value::Null);
            };
            let length = if *kind == b'%' {
                length.checked_mul(2)?
            } else {
                length
            };
            if length > ELEMENTS_LIMIT || depth == 0 {
                return None;
            }
            let elements = (0..length).map(|_| value(rest, depth - 1));
            Value::Array(elements.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_replies_are_read() {
        assert_eq!(
            command(b"*2\r\n$3\r\nGET\r\n$2\r\n\xff\x00\r\n"),
            json!({"command": ["GET", {"hex": "ff00"}]})
        );
        assert_eq!(command(b"PING now\r\n"), json!({"command": ["PING", "now"]}));
        assert_eq!(command(b"*2\r\n$3\r\nGET\r\n"), Value::Null);
        assert_eq!(reply(b"-ERR no\r\n"), json!({"error": "ERR no"}));
        assert_eq!(
            reply(b"%1\r\n+a\r\n*2\r\n:1\r\n$-1\r\n"),
            json!({"value": ["a", [1, null]]})
        );
    }
}
