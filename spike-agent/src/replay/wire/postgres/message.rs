//! The formats of messages.

/// Bytes of a message's type and length.
const HEAD: usize = 5;
/// Longest message, in bytes: no value is longer than 1 GiB.
const SIZE_LIMIT: usize = 0x4000_0000;
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The server should say whether it encrypts.
    Encrypt,
    /// Another connection's statement should be cancelled.
    Cancel,
    /// Names and values of the connection.
    Connect(Vec<(String, String)>),
}

/// What a `Bind` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The portal that is made.
    pub portal: String,
    /// The statement that it is made of.
    pub statement: String,
    /// Values, none for NULL.
    pub values: Vec<Option<Vec<u8>>>,
    /// Formats of the result's columns, as they were sent.
    pub formats: Vec<u8>,
}

/// The first message of a client, and its size; none when there is more to come.
///
/// # Errors
/// Why it is none.
pub fn start(bytes: &[u8]) -> Result<Option<(Start, usize)>, &'static str> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes(*length) as usize;
    if !(8..=10_000).contains(&size) {
        return Err("no start of a PostgreSQL connection");
    }
    let Some(content) = rest.get(..size - 4) else {
        return Ok(None);
    };
    let code = content.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
    let start = match code {
        TLS | GSS => Start::Encrypt,
        CANCEL => Start::Cancel,
        code if code >> 16 == 3 => {
            let mut rest = &content[4..];
            let mut pairs = Vec::new();
            while let Some((name, after)) = text(rest)
                && !name.is_empty()
                && let Some((value, after)) = text(after)
            {
                pairs.push((name, value));
                rest = after;
            }
            Start::Connect(pairs)
        }
        _ => return Err("a version of PostgreSQL's protocol that is not known"),
    };
    Ok(Some((start, size)))
}

/// The type and the size of the message at the start; none when there is more to come.
///
/// # Errors
/// Why it is none.
pub fn frame(bytes: &[u8]) -> Result<Option<(u8, usize)>, &'static str> {
    let Some((kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(length) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let size = 1 + u32::from_be_bytes(*length) as usize;
    if !(HEAD..=SIZE_LIMIT).contains(&size) || !kind.is_ascii_alphanumeric() {
        return Err("no message of PostgreSQL");
    }
    Ok((bytes.len() >= size).then_some((*kind, size)))
}

/// What is behind a message's type and length.
pub fn body(message: &[u8]) -> &[u8] {
    message.get(HEAD..).unwrap_or_default()
}

/// The text before the first NUL, and what is behind it.
pub(super) fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|b| *b == 0)?;
    Some((
        String::from_utf8_lossy(&bytes[..end]).into_owned(),
        &bytes[end + 1..],
    ))
}

/// The texts at the start of a message's body, up to `count`.
pub fn names(message: &[u8], count: usize) -> Vec<String> {
    let mut rest = body(message);
    let mut names = Vec::new();
    while names.len() < count
        && let Some((name, after)) = text(rest)
    {
        names.push(name);
        rest = after;
    }
    names
}

impl Bound {
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let (portal, rest) = text(body(message))?;
        let (statement, mut rest) = text(rest)?;
        let formats = number(&mut rest)?;
        rest = rest.get(2 * formats..)?;
        let mut values = Vec::new();
        for _ in 0..number(&mut rest)? {
            let (length, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            match usize::try_from(i32::from_be_bytes(*length)) {
                Err(_) => values.push(None),
                Ok(length) => {
                    let (value, after) = rest.split_at_checked(length)?;
                    values.push(Some(value.to_vec()));
                    rest = after;
                }
            }
        }
        let count = number(&mut rest)?;
        Some(Self {
            portal,
            statement,
            values,
            formats: rest.get(..2 * count)?.to_vec(),
        })
    }
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(usize::from(u16::from_be_bytes(*number)))
}

/// A message.
pub(in crate::replay) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// `ReadyForQuery` in a state of the transaction: `I`, `T` or `E`.
pub fn ready(state: u8) -> Vec<u8> {
    message(b'Z', &[state])
}

/// What answers a `Close`.
pub fn close() -> Vec<u8> {
    message(b'3', &[])
}
