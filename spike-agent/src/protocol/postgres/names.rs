//! What prepared statements and portals stand for.

use std::collections::VecDeque;

use crate::protocol::{Request, sql};

/// Prepared statements, and portals, whose names are kept: those that were used last.
const LIMIT: usize = 256;
/// In place of what was prepared before the conversation was joined, or too long ago.
const UNKNOWN: &str = "?";

/// A statement's verb and table.
type Statement = (String, String);

#[derive(Default)]
pub(super) struct Names {
    statements: Known,
    portals: Known,
}

/// The one that was used last at the end.
#[derive(Default)]
struct Known(VecDeque<(Vec<u8>, Statement)>);

impl Names {
    pub(super) fn prepare(&mut self, name: &[u8], statement: Statement) {
        self.statements.put(name, statement);
    }

    pub(super) fn bind(&mut self, portal: &[u8], name: &[u8]) {
        let unknown = || (UNKNOWN.to_owned(), UNKNOWN.to_owned());
        let statement = self.statements.get(name).unwrap_or_else(unknown);
        self.portals.put(portal, statement);
    }

    /// The request that executes a portal.
    pub(super) fn executed(&mut self, portal: &[u8]) -> Request {
        match self.portals.get(portal) {
            Some((verb, table)) => Request::new(verb, table),
            // `DECLARE` makes portals, too.
            None => Request::new(UNKNOWN, UNKNOWN),
        }
    }
}

impl Known {
    fn put(&mut self, name: &[u8], statement: Statement) {
        self.take(name);
        if self.0.len() >= LIMIT {
            self.0.pop_front();
        }
        self.0.push_back((name.to_vec(), statement));
    }

    fn get(&mut self, name: &[u8]) -> Option<Statement> {
        let entry = self.take(name)?;
        let statement = entry.1.clone();
        self.0.push_back(entry);
        Some(statement)
    }

    fn take(&mut self, name: &[u8]) -> Option<(Vec<u8>, Statement)> {
        let at = self.0.iter().rposition(|(known, _)| known == name)?;
        self.0.remove(at)
    }
}

/// The verb and table of a statement.
pub(super) fn summary(text: &[u8]) -> Statement {
    let (verb, table) = sql::summary(text);
    let known = !verb.is_empty();
    (if known { verb } else { "QUERY".to_owned() }, table)
}

/// The request that a statement is.
pub(super) fn statement(text: &[u8]) -> Request {
    let (verb, table) = summary(text);
    Request::new(verb, table)
}
