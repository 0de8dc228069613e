//! What a message says, as names and values, so that messages of every protocol are matched and compared by one code.
//!
//! `POST /orders?dry=1` with a JSON body has the parts `method`, `path.1`, `query.dry`, `body.item.id`, and so on. The
//! order of an object's keys and white space make no difference, and noise can be left out part by part.

mod body;
mod protobuf;
mod statement;

use std::collections::BTreeSet;

pub(super) use body::{add_body, add_pairs};
pub(super) use protobuf::add_protobuf;
pub(super) use statement::add_statement;

/// Longest value that is shown to a person, in bytes.
const SHOWN_LIMIT: usize = 160;

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts {
    parts: Vec<(String, String)>,
}

/// A part that two messages say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name, such as `body.total`.
    pub part: String,
    /// What was recorded; none where it had no such part.
    pub recorded: Option<String>,
    /// What came; none where it has no such part.
    pub came: Option<String>,
}

impl Parts {
    /// Adds a part; one name may have several values.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.parts.push((name.into(), value.into()));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Those whose name and value pass, in the order that makes equal messages equal.
    #[must_use]
    pub fn only(&self, passes: impl Fn(&str, &str) -> bool) -> Self {
        let kept = self.parts.iter().filter(|(name, value)| passes(name, value));
        let mut parts: Vec<_> = kept.cloned().collect();
        // Stable: values of one name keep their order.
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        Self { parts }
    }

    /// Where the message `came` says something else than this one, which was recorded; in the order of the names.
    pub fn differences(&self, came: &Self) -> Vec<Difference> {
        let names: BTreeSet<&str> = self.iter().chain(came.iter()).map(|(name, _)| name).collect();
        let mut differences = Vec::new();
        for name in names {
            let values = |parts: &Self| -> Vec<String> {
                let named = parts.iter().filter(|(known, _)| *known == name);
                named.map(|(_, value)| value.to_owned()).collect()
            };
            let (recorded, came) = (values(self), values(came));
            if recorded != came {
                let shown = |values: Vec<String>| (!values.is_empty()).then(|| values.join(", "));
                differences.push(Difference {
                    part: name.to_owned(),
                    recorded: shown(recorded),
                    came: shown(came),
                });
            }
        }
        differences
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.recorded, &self.came) {
            (Some(recorded), Some(came)) => {
                let (recorded, came) = (shown(recorded), shown(came));
                write!(f, "{}: recorded {recorded}, came {came}", self.part)
            }
            (Some(recorded), None) => write!(f, "{}: recorded {}, missing", self.part, shown(recorded)),
            (None, Some(came)) => write!(f, "{}: not recorded, came {}", self.part, shown(came)),
            (None, None) => f.write_str(&self.part),
        }
    }
}

/// A value as a line shows it: without control characters, cut where it is long.
fn shown(value: &str) -> String {
    let mut text: String = value.chars().flat_map(char::escape_debug).collect();
    if text.len() > SHOWN_LIMIT {
        text.truncate(text.floor_char_boundary(SHOWN_LIMIT));
        text.push('…');
    }
    text
}

/// Bytes as a value: as text where they are text, else by their number and a hash.
pub(super) fn text_of(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => {
            use std::hash::{DefaultHasher, Hasher};
            let mut hasher = DefaultHasher::new();
            hasher.write(bytes);
            format!("{} bytes, hash {:016x}", bytes.len(), hasher.finish())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(all: &[(&str, &str)]) -> Parts {
        let mut parts = Parts::default();
        for (name, value) in all {
            parts.push(*name, *value);
        }
        parts
    }

    #[test]
    fn the_order_of_names_makes_no_difference_and_that_of_values_does() {
        let all = |_: &str, _: &str| true;
        let (a, b) = (
            parts(&[("b", "1"), ("a", "2"), ("a", "3")]),
            parts(&[("a", "2"), ("b", "1"), ("a", "3")]),
        );
        assert_eq!(a.only(all), b.only(all));
        let c = parts(&[("a", "3"), ("a", "2"), ("b", "1")]);
        assert_ne!(a.only(all), c.only(all));
    }

    #[test]
    fn differences_name_what_is_missing_on_either_side() {
        let recorded = parts(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let came = parts(&[("a", "1"), ("b", "4"), ("d", "5")]);
        let lines: Vec<_> = recorded
            .differences(&came)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            lines,
            [
                "b: recorded 2, came 4",
                "c: recorded 3, missing",
                "d: not recorded, came 5"
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_told_apart() {
        assert_eq!(text_of("é".as_bytes()), "é");
        assert_ne!(text_of(b"\xff\x00"), text_of(b"\xff\x01"));
        assert!(text_of(b"\xff\x00").starts_with("2 bytes"));
    }
}
