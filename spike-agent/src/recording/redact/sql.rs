//! Secrets in SQL: literals that are assigned to, compared with, or inserted into what a secret's name stands for.
//!
//! No parser of a dialect: words, literals and brackets are enough to tell which name a literal belongs to, and what is
//! not understood leaves a literal masked rather than readable where a secret's name was before it.

use super::{Found, Redaction, STAR, json::Json};

/// Which dialect's strings are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Backslashes are letters, double quotes are for names.
    Postgres,
    /// Backslashes escape, double quotes are for strings.
    MySql,
}

/// What else of a statement is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sql {
    /// Its parameters, from 0.
    pub(super) parameters: Vec<usize>,
    /// The rows that a `COPY` moves.
    pub(super) copies: bool,
}

/// Words after which a name before them says nothing about what follows.
const BREAKS: [&str; 24] = [
    "AND",
    "OR",
    "WHERE",
    "FROM",
    "SELECT",
    "SET",
    "ORDER",
    "GROUP",
    "LIMIT",
    "RETURNING",
    "ON",
    "JOIN",
    "UNION",
    "CREATE",
    "ALTER",
    "INSERT",
    "UPDATE",
    "DELETE",
    "HAVING",
    "DEFAULT",
    "VALID",
    "INTO",
    "VALUES",
    "THEN",
];

struct Scan<'a> {
    text: &'a mut [u8],
    at: usize,
    depth: u32,
    pending: Option<Pending>,
    insert: Insert,
    columns: Vec<bool>,
    /// Level at which the list of columns, and of values, begins.
    base: u32,
    questions: usize,
    copy: bool,
    sql: Sql,
    rules: &'a Redaction,
    found: &'a mut Found,
    offset: usize,
    dialect: Dialect,
}

/// A secret's name was read.
#[derive(Clone, Copy)]
struct Pending {
    depth: u32,
    /// Something is given to it: what is in brackets counts, too.
    assigned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Insert {
    No,
    /// After `INSERT INTO`, up to a bracket.
    Table,
    Columns,
    /// After them.
    Listed,
    /// In rows: the index of the value.
    Values(usize),
}

/// Masks the secrets of a statement, which is at `offset` of what is looked at.
pub(super) fn mask(
    text: &mut [u8],
    offset: usize,
    dialect: Dialect,
    rules: &Redaction,
    found: &mut Found,
) -> Sql {
    let mut scan = Scan {
        text,
        at: 0,
        depth: 0,
        pending: None,
        insert: Insert::No,
        columns: Vec::new(),
        base: 0,
        questions: 0,
        copy: false,
        sql: Sql::default(),
        rules,
        found,
        offset,
        dialect,
    };
    while scan.at < scan.text.len() {
        scan.token();
    }
    scan.sql
}

impl Scan<'_> {
    fn token(&mut self) {
        let rest = &self.text[self.at..];
        match rest[0] {
            b'-' if rest.starts_with(b"--") => self.at += length_to(rest, b"\n"),
            b'/' if rest.starts_with(b"/*") => self.at += length_to(rest, b"*/"),
            b'\'' => {
                let before = self.at.checked_sub(1).map(|at| self.text[at]);
                let escapes = self.dialect == Dialect::MySql || matches!(before, Some(b'e' | b'E'));
                let length = quoted(rest, b'\'', escapes);
                self.literal(self.at + 1, self.at + length.saturating_sub(1).max(1));
                self.at += length;
            }
            b'"' if self.dialect == Dialect::MySql => {
                let length = quoted(rest, b'"', true);
                self.literal(self.at + 1, self.at + length.saturating_sub(1).max(1));
                self.at += length;
            }
            quote @ (b'"' | b'`') => {
                let length = quoted(rest, quote, false);
                let word = rest[1..length.max(2) - 1].to_vec();
                self.at += length;
                self.name(&word);
            }
            b'$' => self.dollar(),
            b'?' => {
                let index = self.questions;
                self.questions += 1;
                self.at += 1;
                self.parameter(index);
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 => self.word(),
            byte if byte.is_ascii_digit() => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'.';
                let length = rest.iter().take_while(|byte| is_part(byte)).count();
                self.number(length);
                self.at += length;
            }
            byte => {
                self.mark(byte);
                self.at += 1;
            }
        }
    }

    fn word(&mut self) {
        let rest = &self.text[self.at..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        let word = rest[..length].to_vec();
        self.at += length;
        let upper = String::from_utf8_lossy(&word).to_ascii_uppercase();
        // A prefix of a string is no word.
        if length == 1 && matches!(&*upper, "E" | "N" | "B" | "X") && self.text.get(self.at) == Some(&b'\'') {
            return;
        }
        match &*upper {
            "INSERT" | "REPLACE" => (self.insert, self.base) = (Insert::Table, self.depth),
            "COPY" => (self.insert, self.base, self.copy) = (Insert::Table, self.depth, true),
            "VALUES" | "VALUE" if self.insert == Insert::Listed => self.insert = Insert::Values(0),
            "IDENTIFIED" => {
                self.pending = Some(Pending {
                    depth: self.depth,
                    assigned: true,
                });
                return;
            }
            _ => {}
        }
        if BREAKS.contains(&&*upper) {
            // `SET PASSWORD FOR x = 'y'`, `ALTER ROLE x PASSWORD 'y'` come to the name after the break.
            self.pending = None;
            return;
        }
        self.name(&word);
    }

    fn name(&mut self, word: &[u8]) {
        let is_secret = self.rules.is_secret_field(word);
        if self.insert == Insert::Columns {
            if self.depth == self.base + 1
                && let Some(last) = self.columns.last_mut()
            {
                *last |= is_secret;
            }
            return;
        }
        if is_secret && self.insert != Insert::Table {
            let called =
                word.to_ascii_lowercase().ends_with(b"password") && self.text.get(self.at) == Some(&b'(');
            self.pending = Some(Pending {
                depth: self.depth,
                assigned: called,
            });
        }
    }

    fn mark(&mut self, byte: u8) {
        match byte {
            b'(' => {
                match self.insert {
                    Insert::Table if self.depth == self.base => {
                        self.insert = Insert::Columns;
                        self.columns = vec![false];
                    }
                    Insert::Values(_) if self.depth == self.base => self.insert = Insert::Values(0),
                    _ => {}
                }
                self.depth += 1;
            }
            b')' => {
                self.depth = self.depth.saturating_sub(1);
                if self.insert == Insert::Columns && self.depth == self.base {
                    self.insert = Insert::Listed;
                    self.sql.copies |= self.copy && self.columns.contains(&true);
                }
                if self
                    .pending
                    .is_some_and(|pending| self.depth < pending.depth || !pending.assigned)
                {
                    self.pending = None;
                }
            }
            b',' => {
                match &mut self.insert {
                    Insert::Columns if self.depth == self.base + 1 => self.columns.push(false),
                    Insert::Values(index) if self.depth == self.base + 1 => *index += 1,
                    _ => {}
                }
                if self
                    .pending
                    .is_some_and(|pending| !pending.assigned || self.depth <= pending.depth)
                {
                    self.pending = None;
                }
            }
            b';' => {
                (self.pending, self.insert, self.copy) = (None, Insert::No, false);
            }
            b'=' | b':' | b'<' | b'>' | b'~' => {
                if let Some(pending) = &mut self.pending {
                    pending.assigned = true;
                }
            }
            _ => {}
        }
    }

    /// Does what comes now belong to a secret's name?
    fn is_secret(&self) -> bool {
        let inserted = match self.insert {
            Insert::Values(index) if self.depth > self.base => self.columns.get(index) == Some(&true),
            _ => false,
        };
        inserted || self.pending.is_some()
    }

    /// What was given to the name was read.
    fn given(&mut self) {
        if self.pending.is_some_and(|pending| self.depth <= pending.depth) {
            self.pending = None;
        }
    }

    fn literal(&mut self, from: usize, to: usize) {
        let to = to.min(self.text.len());
        if from >= to {
            self.given();
            return;
        }
        if self.is_secret() {
            self.text[from..to].fill(STAR);
            self.found.note(self.offset + from, "sql literal", b"");
        } else {
            let offset = self.offset + from;
            within(&mut self.text[from..to], offset, self.rules, self.found);
        }
        self.given();
    }

    fn number(&mut self, length: usize) {
        if self.is_secret() {
            let digits = &mut self.text[self.at..self.at + length];
            digits
                .iter_mut()
                .filter(|byte| byte.is_ascii_digit())
                .for_each(|byte| *byte = b'1');
            self.found.note(self.offset + self.at, "sql literal", b"");
        }
        self.given();
    }

    fn parameter(&mut self, index: usize) {
        if self.is_secret() {
            self.sql.parameters.push(index);
        }
        self.given();
    }

    /// `$1`, or `$tag$text$tag$`.
    fn dollar(&mut self) {
        let rest = &self.text[self.at + 1..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            let number = str::from_utf8(&rest[..digits])
                .ok()
                .and_then(|text| text.parse::<usize>().ok());
            self.at += 1 + digits;
            if let Some(index) = number.and_then(|number| number.checked_sub(1)) {
                self.parameter(index);
            }
            return;
        }
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let tag = rest.iter().take_while(|byte| is_part(byte)).count();
        if rest.get(tag) != Some(&b'$') {
            self.at += 1;
            return;
        }
        let mark = self.text[self.at..self.at + tag + 2].to_vec();
        let from = self.at + mark.len();
        let body = &self.text[from..];
        let length = body
            .windows(mark.len())
            .position(|window| window == mark)
            .unwrap_or(body.len());
        self.literal(from, from + length);
        self.at = (from + length + mark.len()).min(self.text.len());
    }
}

/// Masks the secrets within a value: members of JSON, and `password=...` of connection strings.
pub(super) fn within(text: &mut [u8], offset: usize, rules: &Redaction, found: &mut Found) {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if matches!(first, Some(b'{' | b'[')) {
        let mut json = Json::default();
        for (index, byte) in text.iter_mut().enumerate() {
            json.byte(byte, offset + index, rules, found);
        }
        return;
    }
    let mut start = 0;
    while let Some(equals) = text[start..].iter().position(|byte| *byte == b'=') {
        let equals = start + equals;
        let name = text[..equals]
            .iter()
            .rposition(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')))
            .map_or(0, |at| at + 1);
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'&' | b';' | b',');
        let length = text[equals + 1..].iter().take_while(|byte| !is_end(byte)).count();
        if name < equals && rules.is_secret_field(&text[name..equals]) {
            found.note(offset + equals, "text", &text[name..equals]);
            text[equals + 1..equals + 1 + length].fill(STAR);
        }
        start = equals + 1 + length;
    }
}

/// Bytes of a text in quotes, with them; up to the end where it is not closed.
fn quoted(rest: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' if escapes => at += 1,
            byte if byte == quote && rest.get(at + 1) == Some(&quote) => at += 1,
            byte if byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

/// Bytes up to and with `end`.
fn length_to(rest: &[u8], end: &[u8]) -> usize {
    let at = rest.windows(end.len()).position(|window| window == end);
    at.map_or(rest.len(), |at| at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dialect: Dialect, sql: &str, expected: &str, parameters: &[usize]) {
        let mut text = sql.as_bytes().to_vec();
        let said = mask(
            &mut text,
            0,
            dialect,
            &Redaction::default(),
            &mut Found::default(),
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(said.parameters, parameters, "{sql}");
    }

    #[test]
    fn literals_of_secrets_go() {
        use Dialect::Postgres;
        for (sql, expected) in [
            (
                "ALTER ROLE ann WITH PASSWORD 'x''y' VALID UNTIL '2030'",
                "ALTER ROLE ann WITH PASSWORD '****' VALID UNTIL '2030'",
            ),
            (
                "CREATE USER b ENCRYPTED PASSWORD $$abc$$;SELECT 'a'",
                "CREATE USER b ENCRYPTED PASSWORD $$***$$;SELECT 'a'",
            ),
            (
                "UPDATE u SET password = crypt('abc', gen_salt('bf')), name = 'ann' WHERE id = 7",
                "UPDATE u SET password = crypt('***', gen_salt('**')), name = 'ann' WHERE id = 7",
            ),
            (
                "SELECT password FROM users WHERE name = 'ann'",
                "SELECT password FROM users WHERE name = 'ann'",
            ),
            (
                "SELECT * FROM users WHERE name = 'ann' AND token = 'abc' AND city = 'b'",
                "SELECT * FROM users WHERE name = 'ann' AND token = '***' AND city = 'b'",
            ),
            (
                "INSERT INTO users (id, \"password\", name) VALUES (1, 'abc', 'ann'), (2, crypt('d', 'e'), 'bob')",
                "INSERT INTO users (id, \"password\", name) VALUES (1, '***', 'ann'), (2, crypt('*', '*'), 'bob')",
            ),
            (
                "INSERT INTO t (a, pin) VALUES ('x', 1234) -- 'y'",
                "INSERT INTO t (a, pin) VALUES ('x', 1111) -- 'y'",
            ),
            (
                "INSERT INTO tokens (a, b) VALUES ('x', 'y')",
                "INSERT INTO tokens (a, b) VALUES ('x', 'y')",
            ),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'host=a password=bcd dbname=e'",
                "CREATE SUBSCRIPTION s CONNECTION 'host=a password=*** dbname=e'",
            ),
            (
                "UPDATE u SET doc = '{\"token\": \"abc\", \"x\": \"y\"}'",
                "UPDATE u SET doc = '{\"token\": \"***\", \"x\": \"y\"}'",
            ),
            ("SELECT 'a\\', token = E'b\\'c'", "SELECT 'a\\', token = E'****'"),
            ("SELECT 'unclosed", "SELECT 'unclosed"),
            ("password '", "password '"),
        ] {
            check(Postgres, sql, expected, &[]);
        }
        for (sql, expected) in [
            (
                "CREATE USER a IDENTIFIED BY 'b\\'c'",
                "CREATE USER a IDENTIFIED BY '****'",
            ),
            (
                "SET PASSWORD FOR 'ann' = PASSWORD(\"abc\")",
                "SET PASSWORD FOR '***' = PASSWORD(\"***\")",
            ),
            (
                "ALTER USER u IDENTIFIED WITH caching_sha2_password BY 'abc'",
                "ALTER USER u IDENTIFIED WITH caching_sha2_password BY '***'",
            ),
        ] {
            check(Dialect::MySql, sql, expected, &[]);
        }
    }

    #[test]
    fn parameters_of_secrets_are_told() {
        let insert = "INSERT INTO users (name, password) VALUES ($1, $2), ($3, $4)";
        check(Dialect::Postgres, insert, insert, &[1, 3]);
        let update = "UPDATE users SET api_key = ?, name = ? WHERE token = ?";
        check(Dialect::MySql, update, update, &[0, 2]);
        let mut copy = b"COPY users (name, password) FROM STDIN".to_vec();
        assert!(
            mask(
                &mut copy,
                0,
                Dialect::Postgres,
                &Redaction::default(),
                &mut Found::default()
            )
            .copies
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}", mysql in proptest::bool::ANY) {
            let mut bytes = text.clone().into_bytes();
            let dialect = if mysql { Dialect::MySql } else { Dialect::Postgres };
            mask(&mut bytes, 0, dialect, &Redaction::default(), &mut Found::default());
            proptest::prop_assert_eq!(bytes.len(), text.len());
        }
    }
}
