//! Which message is the reply to which.

use std::collections::VecDeque;

use super::REPLIES_LIMIT;

/// Subscriptions that are remembered.
const SUBSCRIPTIONS_LIMIT: usize = 256;
/// Longest subject that is remembered.
const SUBJECT_LIMIT: usize = 256;

/// Subjects that a client listens to.
#[derive(Default)]
pub(super) struct Subscriptions(VecDeque<Box<[u8]>>);

impl Subscriptions {
    pub(super) fn add(&mut self, subject: &[u8]) {
        if subject.len() > SUBJECT_LIMIT || self.0.iter().any(|known| **known == *subject) {
            return;
        }
        if self.0.len() >= SUBSCRIPTIONS_LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(subject.into());
    }

    /// An inbox that is not known shows that it is listened to: the connection was joined in its middle.
    pub(super) fn delivered(&mut self, subject: &[u8]) {
        let Some(end) = subject.iter().rposition(|b| *b == b'.') else {
            return;
        };
        if subject.starts_with(b"_INBOX.") && !self.cover(subject) {
            self.add(&[&subject[..=end], b"*"].concat());
        }
    }

    /// Whether what is sent to `subject` comes here.
    pub(super) fn cover(&self, subject: &[u8]) -> bool {
        self.0.iter().any(|pattern| covers(pattern, subject))
    }
}

fn covers(pattern: &[u8], subject: &[u8]) -> bool {
    let mut tokens = subject.split(|b| *b == b'.');
    for part in pattern.split(|b| *b == b'.') {
        match (part, tokens.next()) {
            (b">", Some(_)) => return true,
            (_, None) => return false,
            (b"*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Subjects where a reply is awaited, and the call of each.
#[derive(Default)]
pub(super) struct Replies {
    awaited: Vec<(Box<[u8]>, u64)>,
    last: u64,
}

impl Replies {
    /// A number for a new call, if there is room for one and its subject isn't awaited already.
    pub(super) fn add(&mut self, subject: &[u8]) -> Option<u64> {
        let full = self.awaited.len() >= REPLIES_LIMIT || subject.len() > SUBJECT_LIMIT;
        if full || self.awaited.iter().any(|(known, _)| **known == *subject) {
            return None;
        }
        self.last += 1;
        self.awaited.push((subject.into(), self.last));
        Some(self.last)
    }

    pub(super) fn take(&mut self, subject: &[u8]) -> Option<u64> {
        let place = self.awaited.iter().position(|(known, _)| **known == *subject)?;
        Some(self.awaited.swap_remove(place).1)
    }

    pub(super) fn clear(&mut self) {
        self.awaited.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn wildcards_stand_for_one_part_or_for_the_rest() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("*.b", "a.c", false),
        ] {
            assert_eq!(
                covers(pattern.as_bytes(), subject.as_bytes()),
                expected,
                "{pattern} {subject}"
            );
        }
    }
}
