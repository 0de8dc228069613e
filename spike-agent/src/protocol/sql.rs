//! What a statement of SQL does, and to which table: never a value out of it.
//!
//! Read by hand: a full parser knows one dialect, fails on what it doesn't know, and costs more than the rest of the
//! decoding; here a verb and a name are enough, in MySQL's SQL and PostgreSQL's alike.

mod token;

use std::iter::Peekable;

use super::fold;
use token::{Token, Tokens};

/// Bytes of a statement that are looked at.
pub(super) const STATEMENT_LIMIT: usize = 8 * 1024;
/// Longest part of a name; PostgreSQL has 63 bytes, MySQL 64 characters.
const NAME_LIMIT: usize = 256;
/// Parts of a name: catalog, schema, table.
const PARTS_LIMIT: usize = 3;
/// Common table expressions that are remembered.
const EXPRESSIONS_LIMIT: usize = 8;
/// Statements within a statement that are read; bounds the depth of the reader's own calls, too.
const NESTED_LIMIT: usize = 32;
/// Tokens between `CREATE` and what is created.
const CREATE_LIMIT: usize = 16;

/// First words of statements.
const VERBS: [&str; 75] = [
    "ABORT",
    "ALTER",
    "ANALYSE",
    "ANALYZE",
    "BEGIN",
    "BINLOG",
    "CALL",
    "CHANGE",
    "CHECK",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "FLUSH",
    "GET",
    "GRANT",
    "HANDLER",
    "HELP",
    "IMPORT",
    "INSERT",
    "INSTALL",
    "KILL",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "OPTIMIZE",
    "PREPARE",
    "PURGE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RENAME",
    "REPAIR",
    "REPLACE",
    "RESET",
    "RESIGNAL",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "SHUTDOWN",
    "SIGNAL",
    "START",
    "STOP",
    "TABLE",
    "TRUNCATE",
    "UNINSTALL",
    "UNLISTEN",
    "UNLOCK",
    "UPDATE",
    "USE",
    "VACUUM",
    "VALUES",
];
/// What can be created, altered and dropped, and whether its name is told.
const KINDS: [(&str, bool); 20] = [
    ("TABLE", true),
    ("VIEW", true),
    ("INDEX", false),
    ("DATABASE", true),
    ("SCHEMA", true),
    ("SEQUENCE", true),
    ("FUNCTION", true),
    ("PROCEDURE", true),
    ("TRIGGER", false),
    ("TYPE", true),
    ("EVENT", true),
    ("EXTENSION", true),
    ("USER", false),
    ("ROLE", false),
    ("SERVER", false),
    ("POLICY", false),
    ("PUBLICATION", false),
    ("SUBSCRIPTION", false),
    ("DOMAIN", false),
    ("AGGREGATE", false),
];
/// Words between a verb and the name of its table.
const FILLERS: [&str; 16] = [
    "CONCURRENTLY",
    "DELAYED",
    "EXISTS",
    "EXTENDED",
    "FULL",
    "HIGH_PRIORITY",
    "IF",
    "IGNORE",
    "INTO",
    "LATERAL",
    "LOW_PRIORITY",
    "NOT",
    "ONLY",
    "OVERWRITE",
    "QUICK",
    "TABLE",
];
/// Words that are no name where one is looked for.
const RESERVED: [&str; 8] = [
    "AS", "DUMPFILE", "OUTFILE", "SELECT", "SET", "VALUES", "WHERE", "WITH",
];

/// The verb of a statement, such as `SELECT` or `CREATE TABLE`, and its main table, as it is written but without
/// quotes; each is empty where it isn't sure.
///
/// The table is the first of `FROM`, through sub-queries and common table expressions, or what is written to.
pub(super) fn summary(statement: &[u8]) -> (String, String) {
    let tokens = Tokens::new(&statement[..statement.len().min(STATEMENT_LIMIT)]).peekable();
    let mut reader = Reader {
        tokens,
        depth: 0,
        floor: 0,
        expressions: Vec::new(),
        nested: 0,
    };
    let (verb, table) = reader.statement().unwrap_or_default();
    (verb, table.unwrap_or_default())
}

struct Reader<'a> {
    tokens: Peekable<Tokens<'a>>,
    /// Open parentheses.
    depth: usize,
    /// Those around the part that is read: it ends with them.
    floor: usize,
    /// Common table expressions, and the table of each.
    expressions: Vec<(String, Option<String>)>,
    /// Statements in parentheses that were read.
    nested: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        if self.depth < self.floor {
            return None;
        }
        let token = self.tokens.next()?;
        match token {
            Token::Mark(b'(') => self.depth += 1,
            Token::Mark(b')') => self.depth = self.depth.checked_sub(1)?,
            Token::Mark(b';') => return None,
            _ => {}
        }
        (self.depth >= self.floor).then_some(token)
    }

    fn statement(&mut self) -> Option<(String, Option<String>)> {
        while let Some(Token::Mark(b'(' | b';')) = self.tokens.peek() {
            // `(SELECT …) UNION …`; an empty statement.
            if self.next().is_none() {
                self.depth = self.floor;
            }
        }
        let Token::Word(word) = self.next()? else {
            return None;
        };
        if is(word, "WITH") {
            return self.with();
        }
        let verb = *VERBS.iter().find(|verb| is(word, verb))?;
        if matches!(verb, "CREATE" | "ALTER" | "DROP") {
            return Some(self.definition(verb));
        }
        Some((verb.to_owned(), self.table(verb)))
    }

    /// `WITH name AS (…), … SELECT …`
    fn with(&mut self) -> Option<(String, Option<String>)> {
        while self.nested < NESTED_LIMIT {
            let name = match self.next()? {
                Token::Word(word) if is(word, "RECURSIVE") => continue,
                Token::Word(word) => word,
                Token::Quoted(name) => name,
                _ => return None,
            };
            let name = String::from_utf8_lossy(name).into_owned();
            while !matches!(self.next()?, Token::Word(word) if is(word, "AS")) {}
            while self.next()? != Token::Mark(b'(') {}
            let table = self.inner();
            if self.expressions.len() < EXPRESSIONS_LIMIT {
                self.expressions.push((name, table));
            }
            match self.tokens.peek()? {
                Token::Mark(b',') => self.next()?,
                _ => return self.statement(),
            };
        }
        None
    }

    /// The table of what is in the parentheses that were opened, which are closed again.
    fn inner(&mut self) -> Option<String> {
        let around = std::mem::replace(&mut self.floor, self.depth);
        self.nested += 1;
        let table = self.statement().and_then(|(_, table)| table);
        while self.next().is_some() {}
        self.floor = around;
        table
    }

    /// `CREATE OR REPLACE TEMPORARY TABLE IF NOT EXISTS name`
    fn definition(&mut self, verb: &str) -> (String, Option<String>) {
        for _ in 0..CREATE_LIMIT {
            let Some(token) = self.next() else {
                break;
            };
            let Token::Word(word) = token else {
                continue;
            };
            if let Some((kind, named)) = KINDS.iter().find(|(kind, _)| is(word, kind)) {
                let table = match *kind {
                    "INDEX" => self.behind("ON"),
                    _ if *named => self.name(),
                    _ => None,
                };
                return (format!("{verb} {kind}"), table);
            }
        }
        (verb.to_owned(), None)
    }

    fn table(&mut self, verb: &str) -> Option<String> {
        match verb {
            "SELECT" | "DELETE" => self.from(),
            "INSERT" | "REPLACE" | "MERGE" | "UPDATE" | "TRUNCATE" | "CALL" | "TABLE" | "DESC"
            | "DESCRIBE" => self.name(),
            "COPY" if self.nested < NESTED_LIMIT && self.tokens.peek() == Some(&Token::Mark(b'(')) => {
                self.next();
                self.inner()
            }
            "COPY" => self.name(),
            "LOAD" => self.behind("TABLE"),
            "EXPLAIN" => self.explained(),
            _ => None,
        }
    }

    fn explained(&mut self) -> Option<String> {
        loop {
            if let Token::Word(word) = self.next()? {
                for verb in ["SELECT", "DELETE", "INSERT", "REPLACE", "UPDATE", "MERGE"] {
                    if is(word, verb) {
                        return self.table(verb);
                    }
                }
                if is(word, "WITH") {
                    return self.with().and_then(|(_, table)| table);
                }
            }
        }
    }

    /// The first table of the query that is read, or of the sub-query in its place.
    fn from(&mut self) -> Option<String> {
        let mut level = self.depth;
        let mut distinct = false;
        loop {
            let token = self.next()?;
            if self.depth < level {
                return None;
            }
            // Not those of `EXTRACT(… FROM …)` and of `IS DISTINCT FROM`.
            let from = matches!(token, Token::Word(word) if is(word, "FROM"));
            if from && self.depth == level && !distinct {
                while let Some(Token::Mark(b'(')) = self.tokens.peek() {
                    self.next();
                    level = self.depth;
                }
                match self.tokens.peek() {
                    Some(Token::Word(word)) if is(word, "SELECT") => {}
                    _ => return self.name(),
                }
            }
            distinct = matches!(token, Token::Word(word) if is(word, "DISTINCT"));
        }
    }

    /// The name that comes behind a keyword.
    fn behind(&mut self, keyword: &str) -> Option<String> {
        let level = self.depth;
        loop {
            let found = matches!(self.next()?, Token::Word(word) if is(word, keyword));
            if found && self.depth == level {
                return self.name();
            }
        }
    }

    /// A name that may have a schema before it; of a common table expression the table in it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        for _ in 0..PARTS_LIMIT {
            let part = loop {
                match self.next()? {
                    Token::Word(word) if name.is_empty() && FILLERS.iter().any(|filler| is(word, filler)) => {
                    }
                    Token::Word(word) if !RESERVED.iter().any(|reserved| is(word, reserved)) => break word,
                    Token::Quoted(part) => break part,
                    _ => return None,
                }
            };
            if part.len() > NAME_LIMIT {
                return None;
            }
            name.push_str(&String::from_utf8_lossy(part));
            if self.tokens.peek() != Some(&Token::Mark(b'.')) {
                break;
            }
            self.next();
            name.push('.');
        }
        let known = self
            .expressions
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&name));
        match known {
            Some((_, table)) => table.clone(),
            None => Some(fold::key(&name)),
        }
    }
}

fn is(word: &[u8], keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword.as_bytes())
}

#[cfg(test)]
mod tests;
