//! The formats of messages.

use crate::protocol::{Request, Step, sql::STATEMENT_LIMIT};

/// Bytes of a message's type and length.
pub(super) const HEAD: usize = 5;
/// Longest message, in bytes: no value is longer than 1 GiB.
const SIZE_LIMIT: u32 = 0x4000_0000;
/// Bytes that are looked at for a name, and longest name; PostgreSQL's own have at most 63.
const NAME_LIMIT: usize = 256;
/// Bytes of an error that are looked at; its code is among its first fields.
const ERROR_LIMIT: usize = 256;
/// Longest start of a connection, as the server has it (`MAX_STARTUP_PACKET_LENGTH`).
const START_LIMIT: u32 = 10_000;

const VERSION_3: u32 = 3;
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// A message's type and size.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: u8,
    /// With the type and the length.
    pub(super) size: u64,
}

/// What a client says first.
pub(super) enum Start {
    /// The server should say whether it encrypts.
    Encrypt,
    /// Another connection's statement should be cancelled.
    Cancel,
    Connect(Request),
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Step> {
        let (kind, length) = bytes.split_first().ok_or(Step::Need(HEAD))?;
        let length = u32::from_be_bytes(*length.first_chunk().ok_or(Step::Need(HEAD))?);
        if !(4..=SIZE_LIMIT).contains(&length) {
            return Err(Step::Lost);
        }
        Ok(Self {
            kind: *kind,
            size: 1 + u64::from(length),
        })
    }

    /// The first bytes of the message, at most so many.
    fn body<'a>(&self, bytes: &'a [u8], limit: usize) -> Result<&'a [u8], Step> {
        let end = usize::try_from(self.size).map_or(limit, |size| size.min(HEAD + limit));
        bytes.get(HEAD..end).ok_or(Step::Need(end))
    }

    /// A text, as far as it is of interest.
    pub(super) fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Step> {
        Ok(until_nul(self.body(bytes, STATEMENT_LIMIT)?).0)
    }

    pub(super) fn name<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Step> {
        Ok(until_nul(self.body(bytes, NAME_LIMIT)?).0)
    }

    pub(super) fn two_names<'a>(&self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Step> {
        let (first, rest) = until_nul(self.body(bytes, 2 * NAME_LIMIT)?);
        Ok((first, until_nul(rest).0))
    }

    pub(super) fn named_text<'a>(&self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Step> {
        let (name, rest) = until_nul(self.body(bytes, NAME_LIMIT + STATEMENT_LIMIT)?);
        Ok((&name[..name.len().min(NAME_LIMIT)], until_nul(rest).0))
    }

    /// The code of an error.
    pub(super) fn sqlstate(&self, bytes: &[u8]) -> Result<String, Step> {
        let mut fields = self.body(bytes, ERROR_LIMIT)?;
        while let Some((field, rest)) = fields.split_first().filter(|(field, _)| **field != 0) {
            let (value, rest) = until_nul(rest);
            if *field == b'C' {
                return Ok(String::from_utf8_lossy(value).into_owned());
            }
            fields = rest;
        }
        Ok("ERROR".to_owned())
    }
}

impl Start {
    /// What it is, and its size.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, usize), Step> {
        let (length, code) = Self::head(bytes).ok_or(Step::Need(8))?;
        if !(8..=START_LIMIT).contains(&length) {
            return Err(Step::Lost);
        }
        let size = length as usize;
        let body = bytes.get(8..size).ok_or(Step::Need(size))?;
        let start = match code {
            TLS | GSS => Self::Encrypt,
            CANCEL => Self::Cancel,
            _ if code >> 16 == VERSION_3 => Self::Connect(connect(body)),
            _ => return Err(Step::Lost),
        };
        Ok((start, size))
    }

    /// Length and code.
    fn head(bytes: &[u8]) -> Option<(u32, u32)> {
        let (length, rest) = bytes.split_first_chunk()?;
        Some((
            u32::from_be_bytes(*length),
            u32::from_be_bytes(*rest.first_chunk()?),
        ))
    }

    /// Whether bytes start so: none if there are too few to tell.
    pub(super) fn is(bytes: &[u8]) -> Option<bool> {
        let Some((length, code)) = Self::head(bytes) else {
            let zeros = bytes.iter().take(2).all(|b| *b == 0);
            return if zeros { None } else { Some(false) };
        };
        let known = match code {
            CANCEL | TLS | GSS => true,
            // The name of a parameter follows; in Kafka, whose requests can start so too, a number does.
            _ if code >> 16 == VERSION_3 => bytes.get(8)?.is_ascii_lowercase(),
            _ => false,
        };
        Some(known && (8..=START_LIMIT).contains(&length))
    }
}

/// A whole message of which the rest needn't be looked at.
pub(super) fn took(header: &Header) -> Step {
    Step::Took {
        bytes: HEAD,
        skip: header.size - HEAD as u64,
    }
}

/// Whether the client sends rows after this statement.
pub(super) fn copies_in(text: &[u8]) -> bool {
    let starts = text
        .trim_ascii_start()
        .first_chunk()
        .is_some_and(|word: &[u8; 4]| word.eq_ignore_ascii_case(b"COPY"));
    starts && text.windows(5).any(|word| word.eq_ignore_ascii_case(b"STDIN"))
}

/// To a database, by a user.
fn connect(mut parameters: &[u8]) -> Request {
    let (mut user, mut database) = (None, None);
    let mut details = Vec::new();
    while let (name, rest) = until_nul(parameters)
        && !name.is_empty()
    {
        let (value, rest) = until_nul(rest);
        let value = String::from_utf8_lossy(value).into_owned();
        match name {
            b"user" => user = Some(value),
            b"database" => database = Some(value),
            b"application_name" => details.push(("application", value)),
            _ => {}
        }
        parameters = rest;
    }
    // A user's own is the default.
    let database = database.or_else(|| user.clone()).unwrap_or_default();
    details.extend(user.map(|user| ("user", user)));
    Request {
        details,
        ..Request::new("connect", database)
    }
}

/// What is before the first NUL, and what is behind it.
fn until_nul(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| *b == 0);
    end.map_or((bytes, &[]), |end| (&bytes[..end], &bytes[end + 1..]))
}
