//! Elements of a document, as far as it is there (<https://bsonspec.org/spec.html>).
//!
//! By hand, as the crate that there is wants whole documents, which may have megabytes.

/// Longest name or text that is told; longer ones are passed over.
const TEXT_LIMIT: usize = 256;

/// What is told of an element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(f64),
    /// A document or an array.
    Document(&'a [u8]),
    Other,
}

/// The elements of the document at the start of `bytes`, up to the first one that isn't there as a whole; a document
/// within, or a text, that is cut is given as far as it goes.
pub(super) fn elements(bytes: &[u8]) -> impl Iterator<Item = (&str, Value<'_>)> {
    let mut rest = bytes.get(4..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (kind, named) = rest.split_first()?;
        let name = name(named)?;
        let value = named.get(name.len() + 1..)?;
        let (size, value) = read(*kind, value)?;
        rest = named.get(name.len() + 1 + size..).unwrap_or_default();
        Some((name, value))
    })
}

/// A name with a zero behind it.
pub(super) fn name(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().take(TEXT_LIMIT).position(|b| *b == 0)?;
    str::from_utf8(&bytes[..end]).ok()
}

/// The size of a value, and what it says.
fn read(kind: u8, bytes: &[u8]) -> Option<(usize, Value<'_>)> {
    let size = || {
        let size = i32::from_le_bytes(*bytes.first_chunk()?);
        usize::try_from(size).ok()
    };
    let other = |size: usize| Some((size, Value::Other));
    match kind {
        0x01 => {
            let number = f64::from_le_bytes(*bytes.first_chunk()?);
            Some((8, Value::Number(number)))
        }
        0x02 => {
            let size = size()?;
            Some((4 + size, text(bytes, size)))
        }
        0x03 | 0x04 => {
            let size = size()?;
            let document = &bytes[..size.min(bytes.len())];
            (size >= 5).then_some((size, Value::Document(document)))
        }
        0x05 => other(5 + size()?),
        0x06 | 0x0a | 0x7f | 0xff => other(0),
        0x07 => other(12),
        0x08 => {
            let set = *bytes.first()? != 0;
            Some((1, Value::Number(f64::from(u8::from(set)))))
        }
        0x09 | 0x11 => other(8),
        0x0b => {
            let pattern = bytes.iter().position(|b| *b == 0)?;
            let options = bytes[pattern + 1..].iter().position(|b| *b == 0)?;
            other(pattern + options + 2)
        }
        0x0c => other(4 + size()? + 12),
        0x0d | 0x0e => other(4 + size()?),
        0x0f => size().filter(|size| *size >= 4).and_then(other),
        0x10 => {
            let number = i32::from_le_bytes(*bytes.first_chunk()?);
            Some((4, Value::Number(f64::from(number))))
        }
        0x12 => {
            let number = i64::from_le_bytes(*bytes.first_chunk()?);
            let small = i32::try_from(number).map_or(Value::Other, |number| Value::Number(f64::from(number)));
            Some((8, small))
        }
        0x13 => other(16),
        _ => None,
    }
}

fn text(bytes: &[u8], size: usize) -> Value<'_> {
    let text = size.checked_sub(1).filter(|size| *size <= TEXT_LIMIT);
    let text = text.and_then(|size| bytes.get(4..4 + size));
    let text = text.and_then(|text| str::from_utf8(text).ok());
    text.map_or(Value::Other, Value::Text)
}
