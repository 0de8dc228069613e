//! Messages of gRPC as parts, by the numbers of their fields: the names are in a schema that nobody gave us.

use super::{Parts, text_of};

/// Messages in messages; deeper ones are bytes.
const DEPTH_LIMIT: usize = 16;

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Adds the fields of a message under `name`, or the bytes as they are when they are no message.
pub(in crate::replay) fn add_protobuf(parts: &mut Parts, name: &str, bytes: &[u8]) {
    match fields(bytes) {
        Some(fields) => add(parts, name, &fields, 0),
        None => parts.push(name, text_of(bytes)),
    }
}

fn add(parts: &mut Parts, name: &str, all: &[(u64, Value<'_>)], depth: usize) {
    for (number, value) in all {
        let name = format!("{name}.{number}");
        match value {
            Value::Number(value) => parts.push(name, value.to_string()),
            Value::Bytes(bytes) => match inner(bytes).filter(|_| depth < DEPTH_LIMIT) {
                Some(fields) => add(parts, &name, &fields, depth + 1),
                None => parts.push(name, text_of(bytes)),
            },
        }
    }
}

/// A field's bytes as a message. Text could often be read as one, too: it is taken for what it looks like.
fn inner(bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let is_text = str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\n'));
    if bytes.is_empty() || is_text {
        return None;
    }
    fields(bytes)
}

/// The fields of a message; none if the bytes are no message.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = key >> 3;
        if number == 0 || number >= 1 << 29 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Number(u64::from_le_bytes(*split(&mut bytes, 8)?.first_chunk()?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(split(&mut bytes, length)?)
            }
            5 => {
                let number = u32::from_le_bytes(*split(&mut bytes, 4)?.first_chunk()?);
                Value::Number(u64::from(number))
            }
            _ => return None,
        };
        fields.push((number, value));
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn split<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_by_their_numbers() {
        // 1: 150, 2: "testing", 3: {1: 5, 4: fixed32 1}
        let bytes = [
            0x08, 0x96, 0x01, 0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g', 0x1a, 0x07, 0x08, 0x05,
            0x25, 1, 0, 0, 0,
        ];
        let mut parts = Parts::default();
        add_protobuf(&mut parts, "message", &bytes);
        let all: Vec<_> = parts.iter().collect();
        assert_eq!(
            all,
            [
                ("message.1", "150"),
                ("message.2", "testing"),
                ("message.3.1", "5"),
                ("message.3.4", "1")
            ]
        );
    }

    #[test]
    fn other_bytes_are_kept_whole() {
        let mut parts = Parts::default();
        add_protobuf(&mut parts, "message", b"\xff\xff");
        assert_eq!(parts.len(), 1);
        assert!(
            parts
                .get("message")
                .is_some_and(|value| value.starts_with("2 bytes"))
        );
    }
}
