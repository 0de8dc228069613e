//! Makes few names out of many: `/users/123/orders` and `/users/456/orders` are the same call.

use std::collections::HashSet;

/// Segments of a path that are kept.
const SEGMENTS_LIMIT: usize = 8;
/// Longest segment that may be a name.
const NAME_LIMIT: usize = 40;
/// What takes the place of a segment that differs from call to call.
const ID: &str = "{id}";

/// A path, without its query, with `{id}` in place of each segment that looks like a value: numbers, UUIDs, long hex
/// and base64-like strings, dates, addresses of e-mail. More than eight segments end in `/…`.
pub fn path(path: &str) -> String {
    let end = path.find(['?', '#', ';']).unwrap_or(path.len());
    let mut folded = String::with_capacity(end.min(256));
    for (index, segment) in path[..end].split('/').enumerate() {
        if index > 0 {
            folded.push('/');
        }
        if index > SEGMENTS_LIMIT {
            folded.push('…');
            break;
        }
        folded.push_str(if is_value(segment) { ID } else { segment });
    }
    folded
}

/// A key such as Redis', with `{id}` in place of each part between `:`, `/`, `.` or `|` that looks like a value.
pub fn key(key: &str) -> String {
    let mut folded = String::with_capacity(key.len().min(256));
    if is_email(key) || is_uuid(key) {
        return ID.to_owned();
    }
    for part in key.split_inclusive([':', '/', '.', '|']).take(SEGMENTS_LIMIT) {
        let name = part.trim_end_matches([':', '/', '.', '|']);
        folded.push_str(if is_value(name) { ID } else { name });
        folded.push_str(&part[name.len()..]);
    }
    folded
}

/// Whether a part of a name differs from call to call.
pub fn is_value(part: &str) -> bool {
    let bytes = part.as_bytes();
    if bytes.is_empty() {
        return false;
    }
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let letters = bytes.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let marks = bytes.len() - digits - letters;
    // Numbers, dates, times, addresses, versions; not `v1`.
    if digits > 0 && letters == 0 {
        return true;
    }
    let hex = bytes.iter().all(u8::is_ascii_hexdigit);
    part.len() > NAME_LIMIT
        || (hex && digits > 0 && bytes.len() >= 8)
        || is_uuid(part)
        || is_email(part)
        || is_timestamp(bytes)
        || is_token(bytes, digits, marks)
        || part.contains('%') && digits > 3
}

fn is_uuid(part: &str) -> bool {
    let mut lengths = [8, 4, 4, 4, 12].into_iter();
    let hex =
        |piece: &str| lengths.next() == Some(piece.len()) && piece.bytes().all(|b| b.is_ascii_hexdigit());
    part.len() == 36 && part.split('-').all(hex)
}

fn is_email(part: &str) -> bool {
    let (name, host) = match part.split_once('@') {
        Some(halves) => halves,
        None => match part.split_once("%40") {
            Some(halves) => halves,
            None => return false,
        },
    };
    !name.is_empty() && host.contains('.')
}

/// `2026-01-31T08:00:00Z` and its relatives.
fn is_timestamp(bytes: &[u8]) -> bool {
    bytes.len() >= 10
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && [0, 1, 2, 3, 5, 6, 8, 9]
            .iter()
            .all(|&at: &usize| bytes[at].is_ascii_digit())
}

/// Like base64: long, of one piece, with digits among upper- and lower-case letters.
fn is_token(bytes: &[u8], digits: usize, marks: usize) -> bool {
    let upper = bytes.iter().any(u8::is_ascii_uppercase);
    let lower = bytes.iter().any(u8::is_ascii_lowercase);
    let of_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'+' | b'~');
    bytes.len() >= 16
        && bytes.iter().all(of_base64)
        && marks * 8 <= bytes.len()
        && (digits >= 2 && upper && lower || digits * 4 >= bytes.len())
}

/// A set of at most so many names; what comes after is `{other}`.
///
/// Bounds what a caller can make a service cost by asking for ever new names.
#[derive(Debug)]
pub struct Names {
    known: HashSet<Box<str>>,
    limit: usize,
}

impl Names {
    /// No name yet, and at most `limit` ever.
    pub fn new(limit: usize) -> Self {
        Self {
            known: HashSet::new(),
            limit,
        }
    }

    /// The name itself if it is known or there is room, else `{other}`.
    pub fn admit<'a>(&mut self, name: &'a str) -> &'a str {
        if self.known.contains(name) {
            return name;
        }
        if self.known.len() >= self.limit {
            return "{other}";
        }
        self.known.insert(name.into());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::{Names, key, path};

    #[test]
    fn values_in_paths_are_folded() {
        for (given, folded) in [
            ("/", "/"),
            (
                "/users/123/orders/550e8400-e29b-41d4-a716-446655440000",
                "/users/{id}/orders/{id}",
            ),
            ("/v1/api2/index.html?user=1", "/v1/api2/index.html"),
            ("/blobs/9f86d081884c7d65", "/blobs/{id}"),
            (
                "/days/2026-01-31/slots/2026-01-31T08:00:00Z",
                "/days/{id}/slots/{id}",
            ),
            ("/mail/ann@example.org/inbox", "/mail/{id}/inbox"),
            ("/t/eyJhbGciOiJIUzI1NiJ9", "/t/{id}"),
            (
                "/internationalization/settings-and-preferences",
                "/internationalization/settings-and-preferences",
            ),
            ("/getUserPreferencesById", "/getUserPreferencesById"),
            ("/decade/facade/", "/decade/facade/"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/…"),
            ("/x/1.2.3.4:80", "/x/{id}"),
        ] {
            assert_eq!(path(given), folded, "{given}");
        }
    }

    #[test]
    fn values_in_keys_are_folded() {
        assert_eq!(key("user:1001:cart"), "user:{id}:cart");
        assert_eq!(
            key("session:550e8400-e29b-41d4-a716-446655440000"),
            "session:{id}"
        );
        assert_eq!(key("ann@example.org"), "{id}");
        assert_eq!(key("counter"), "counter");
        assert_eq!(key("a::b"), "a::b");
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names::new(2);
        assert_eq!(
            ["a", "b", "a", "c", "b"].map(|name| names.admit(name)),
            ["a", "b", "a", "{other}", "b"]
        );
    }
}
