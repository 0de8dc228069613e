//! Secrets in `name=value&name=value`: queries and forms.

use super::{Found, Redaction, STAR, rules::NAME_LIMIT};

/// Finds them, a byte at a time.
#[derive(Debug, Default)]
pub(super) struct Form {
    name: Vec<u8>,
    part: Part,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Name,
    Value,
    Secret,
}

impl Form {
    /// Makes the next byte, at `offset` of what is looked at, unreadable if it is of a secret.
    pub(super) fn byte(
        &mut self,
        byte: &mut u8,
        offset: usize,
        kind: &str,
        rules: &Redaction,
        found: &mut Found,
    ) {
        match (self.part, *byte) {
            (_, b'&' | b';') => {
                self.name.clear();
                self.part = Part::Name;
            }
            (Part::Name, b'=') => {
                let name = decoded(&self.name);
                self.part = Part::Value;
                if rules.is_secret_field(&name) {
                    self.part = Part::Secret;
                    found.note(offset, kind, &name);
                }
            }
            (Part::Name, byte) if self.name.len() < NAME_LIMIT => self.name.push(byte),
            (Part::Name | Part::Value, _) => {}
            (Part::Secret, _) => *byte = STAR,
        }
    }
}

/// A name as it was before `%xx` and `+`.
fn decoded(name: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(name).collect()
}
