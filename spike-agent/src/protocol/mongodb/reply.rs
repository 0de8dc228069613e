//! How a command went.

use super::{
    bson::{self, Value},
    long,
};

/// Flags of an answer of the first versions.
const CURSOR_NOT_FOUND: u32 = 1;
const QUERY_FAILURE: u32 = 1 << 1;
/// Flags, cursor, position and count of such an answer.
const OLD_HEAD: usize = 20;

/// The status of an answer, and whether it is a failure: of the command, or of a write or its concern.
pub(super) fn status(document: &[u8]) -> (String, bool) {
    let (mut ok, mut error) = (true, Error::default());
    let mut write = None;
    for (name, value) in bson::elements(document) {
        match (name, value) {
            ("ok", Value::Number(number)) => ok = number != 0.0,
            ("writeErrors", Value::Document(errors)) => {
                let first = bson::elements(errors).next();
                if let Some((_, Value::Document(first))) = first {
                    write = Some(Error::of(first));
                }
            }
            ("writeConcernError", Value::Document(found)) => {
                write.get_or_insert_with(|| Error::of(found));
            }
            _ => error.note(name, value),
        }
    }
    match (ok, write) {
        (false, _) => (error.named(), true),
        (true, Some(write)) => (write.named(), true),
        (true, None) => ("OK".to_owned(), false),
    }
}

/// The same of an answer of the first versions.
pub(super) fn old_status(message: &[u8]) -> Option<(String, bool)> {
    let flags = long(message, 0)?;
    if flags & CURSOR_NOT_FOUND != 0 {
        return Some(("CursorNotFound".to_owned(), true));
    }
    if flags & QUERY_FAILURE != 0 {
        return Some(("QueryFailure".to_owned(), true));
    }
    Some(status(message.get(OLD_HEAD..)?))
}

#[derive(Default)]
struct Error<'a> {
    name: Option<&'a str>,
    code: Option<f64>,
}

impl<'a> Error<'a> {
    fn of(document: &'a [u8]) -> Self {
        let mut error = Self::default();
        for (name, value) in bson::elements(document) {
            error.note(name, value);
        }
        error
    }

    fn note(&mut self, name: &str, value: Value<'a>) {
        match (name, value) {
            ("codeName", Value::Text(text)) => self.name = Some(text),
            ("code", Value::Number(code)) => self.code = Some(code),
            _ => {}
        }
    }

    /// Its name, else its number.
    fn named(&self) -> String {
        match (self.name, self.code) {
            (Some(name), _) => name.to_owned(),
            // Errors of writes come without a name.
            (None, Some(11000.0)) => "DuplicateKey".to_owned(),
            (None, Some(121.0)) => "DocumentValidationFailure".to_owned(),
            (None, Some(code)) => code.to_string(),
            (None, None) => "error".to_owned(),
        }
    }
}
