//! The answers of a recording, found by what a request says; the n-th same request gets the n-th answer, then the last.

use std::{collections::HashMap, sync::Arc};

use crate::replay::{
    exchange::{Exchange, Talk},
    noise::{Matcher, Rule, RuleSide},
    parts::{Difference, Parts},
};

/// What takes the place of each character of a secret in a recording.
const REDACTED: char = '*';
/// Entries that are looked at for the nearest one.
const NEAREST_LIMIT: usize = 10_000;

/// The answers of one server.
#[derive(Debug)]
pub(super) struct Book {
    entries: Vec<Entry>,
    by_key: HashMap<Parts, usize>,
    matcher: Matcher,
}

/// One request, and its answers in their order.
#[derive(Debug)]
struct Entry {
    label: String,
    kind: String,
    key: Parts,
    answers: Vec<Arc<Exchange>>,
}

/// How many answers to each request were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    given: HashMap<usize, usize>,
}

/// What the recording has that is most like a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The recorded request.
    pub label: String,
    /// Where the two differ; empty when the recorded one has no whole answer.
    pub differences: Vec<Difference>,
}

impl Book {
    pub(super) fn new<'a>(talks: impl IntoIterator<Item = &'a Talk>, matcher: &Matcher) -> Self {
        let mut all: Vec<&Arc<Exchange>> = talks.into_iter().flat_map(|talk| &talk.exchanges).collect();
        all.sort_by_key(|exchange| exchange.started_ns);
        let mut book = Self {
            entries: Vec::new(),
            by_key: HashMap::new(),
            matcher: matcher.clone(),
        };
        for exchange in &all {
            book.leave_out_secrets(exchange);
        }
        for exchange in all {
            book.add(exchange.clone());
        }
        book
    }

    /// Adds an answer behind those that are there.
    pub(super) fn add(&mut self, exchange: Arc<Exchange>) {
        let key = self.matcher.key(&exchange.kind, &exchange.request);
        let next = self.entries.len();
        let place = *self.by_key.entry(key.clone()).or_insert(next);
        if place == next {
            self.entries.push(Entry {
                label: exchange.label.clone(),
                kind: exchange.kind.clone(),
                key,
                answers: Vec::new(),
            });
        }
        self.entries[place].answers.push(exchange);
    }

    /// A secret that is not in the recording can't be matched.
    fn leave_out_secrets(&mut self, exchange: &Exchange) {
        for (part, _) in exchange.request.iter().filter(|(_, value)| is_redacted(value)) {
            let rule = Rule {
                side: RuleSide::Request,
                call: exchange.kind.clone(),
                part: part.to_owned(),
            };
            if !self.matcher.noise.rules.contains(&rule) {
                self.matcher.noise.rules.push(rule);
            }
        }
    }

    /// The next answer to a request.
    ///
    /// # Errors
    /// What is most like it, when there is none; nothing when the recording is empty.
    pub(super) fn find(
        &self,
        kind: &str,
        request: &Parts,
        cursor: &mut Cursor,
    ) -> Result<Arc<Exchange>, Option<Nearest>> {
        let key = self.matcher.key(kind, request);
        let Some(place) = self.by_key.get(&key) else {
            return Err(self.nearest(kind, &key));
        };
        let entry = &self.entries[*place];
        let given = cursor.given.entry(*place).or_default();
        let index = (*given).min(entry.answers.len().saturating_sub(1));
        *given += 1;
        match entry.answers.get(index).filter(|answer| answer.whole) {
            Some(answer) => Ok(answer.clone()),
            None => Err(Some(Nearest {
                label: entry.label.clone(),
                differences: Vec::new(),
            })),
        }
    }

    fn nearest(&self, kind: &str, key: &Parts) -> Option<Nearest> {
        let compared = self.entries.iter().take(NEAREST_LIMIT).map(|entry| {
            let differences = entry.key.differences(key);
            (entry.kind != kind, differences.len(), entry, differences)
        });
        let (_, _, entry, differences) =
            compared.min_by_key(|(is_other, differences, ..)| (*differences, *is_other))?;
        Some(Nearest {
            label: entry.label.clone(),
            differences,
        })
    }

    /// How many different requests there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn is_redacted(value: &str) -> bool {
    let inner = value.trim_matches(['"', '\'']);
    !inner.is_empty() && inner.chars().all(|c| c == REDACTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::wire::{redis, testing::recorded};

    fn book(asked: &str, told: &str) -> Book {
        Book::new(
            [&recorded("redis", asked.as_bytes(), told.as_bytes()).split()],
            &Matcher::default(),
        )
    }

    fn ask(book: &Book, cursor: &mut Cursor, line: &str) -> Result<Vec<u8>, Option<Nearest>> {
        let command = redis::command(format!("{line}\r\n").as_bytes()).unwrap().unwrap();
        let found = book.find(&command.kind(), &command.parts(), cursor);
        found.map(|exchange| exchange.answer.bytes())
    }

    #[test]
    fn the_nth_same_request_gets_the_nth_answer_and_then_the_last() {
        let book = book("GET a\r\nGET b\r\nGET a\r\n", "$-1\r\n+b\r\n+a\r\n");
        let mut cursor = Cursor::default();
        for expected in ["$-1\r\n", "+a\r\n", "+a\r\n"] {
            assert_eq!(ask(&book, &mut cursor, "GET a").unwrap(), expected.as_bytes());
        }
        assert_eq!(ask(&book, &mut cursor, "get b").unwrap(), b"+b\r\n");
        assert_eq!(ask(&book, &mut Cursor::default(), "GET a").unwrap(), b"$-1\r\n");
        assert_eq!(book.len(), 2);
    }

    #[test]
    fn a_miss_names_the_nearest_and_the_difference() {
        let book = book("SET a 1\r\nGET b\r\n", "+OK\r\n+b\r\n");
        let nearest = ask(&book, &mut Cursor::default(), "SET a 2")
            .unwrap_err()
            .unwrap();
        assert_eq!(nearest.label, "SET a 1");
        let lines: Vec<_> = nearest.differences.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["arg.2: recorded 1, came 2"]);
        let empty = Book::new([], &Matcher::default());
        assert_eq!(ask(&empty, &mut Cursor::default(), "PING").unwrap_err(), None);
    }

    #[test]
    fn a_secret_that_was_made_unreadable_matches_any() {
        let book = book("AUTH ****\r\n", "+OK\r\n");
        assert!(ask(&book, &mut Cursor::default(), "AUTH hunter2").is_ok());
        assert!(ask(&book, &mut Cursor::default(), "PING").is_err());
    }
}
