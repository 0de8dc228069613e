//! Secrets in PostgreSQL's protocol: passwords, literals and parameters of statements, columns of results.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    Found, Redact, Redaction, STAR,
    held::{Head, Held},
    sql::{self, Dialect, within},
};
use crate::protocol::Side;

/// Bytes of a message's type and length.
const HEAD: usize = 5;
/// Statements and portals whose secrets are remembered.
const NAMES_LIMIT: usize = 4096;
/// Answers that are waited for.
const ASKED_LIMIT: usize = 16_384;
/// Codes in place of a version.
const CANCEL: u32 = 80_877_102;
const ENCRYPT: [u32; 2] = [80_877_103, 80_877_104];

/// Finds the secrets of a connection.
pub(super) struct Postgres {
    rules: Redaction,
    client: Held,
    server: Held,
    /// The client's first message has come.
    has_begun: bool,
    /// The server answers with one byte whether it encrypts.
    negotiating: bool,
    /// Which parameters and columns of a statement are secrets.
    statements: HashMap<Vec<u8>, Statement>,
    /// The statement of a portal.
    portals: HashMap<Vec<u8>, Vec<u8>>,
    asked: VecDeque<Asked>,
    /// Columns of the rows that come, unless their statement says them.
    columns: Arc<[bool]>,
    /// The rows that are copied have secrets.
    copies: bool,
}

#[derive(Clone, Default)]
struct Statement {
    parameters: Vec<usize>,
    columns: Option<Arc<[bool]>>,
}

/// What the server answers next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Query,
    Describe(Vec<u8>),
    Execute(Vec<u8>),
    Sync,
}

impl Postgres {
    pub(super) fn new(rules: Redaction) -> Self {
        Self {
            rules,
            client: Held::default(),
            server: Held::default(),
            has_begun: false,
            negotiating: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            asked: VecDeque::new(),
            columns: Arc::from([]),
            copies: false,
        }
    }

    fn client_head(&mut self, bytes: &[u8]) -> Head {
        if self.has_begun {
            return head(bytes);
        }
        let Some(length) = number(bytes, 0) else {
            return Head::More;
        };
        Head::Message {
            length: u64::from(length).max(4),
            mask_after: 0,
        }
    }

    fn server_head(&self, bytes: &[u8]) -> Head {
        if self.negotiating {
            return Head::Message {
                length: 1,
                mask_after: 0,
            };
        }
        head(bytes)
    }

    fn client_message(&mut self, message: &mut [u8], found: &mut Found) {
        if !self.has_begun {
            match number(message, 4) {
                Some(code) if ENCRYPT.contains(&code) => self.negotiating = true,
                Some(CANCEL) => {}
                _ => self.has_begun = true,
            }
            return;
        }
        let (kind, body) = (message[0], &mut message[HEAD..]);
        match kind {
            b'p' => {
                if !body.is_empty() {
                    found.note(0, "postgresql", b"password");
                }
                body.fill(STAR);
            }
            b'Q' => {
                let said = sql::mask(until_zero(body, 0), HEAD, Dialect::Postgres, &self.rules, found);
                self.copies = said.copies;
                self.ask(Asked::Query);
            }
            b'P' => {
                let name = zero(body, 0);
                let said = sql::mask(
                    until_zero(body, name + 1),
                    HEAD + name + 1,
                    Dialect::Postgres,
                    &self.rules,
                    found,
                );
                self.copies |= said.copies;
                let statement = Statement {
                    parameters: said.parameters,
                    columns: None,
                };
                if self.statements.len() < NAMES_LIMIT || self.statements.contains_key(&body[..name]) {
                    self.statements.insert(body[..name].to_vec(), statement);
                }
            }
            b'B' => self.bind(body, found),
            b'D' if body.first() == Some(&b'S') => {
                let name = until_zero(body, 1).to_vec();
                self.ask(Asked::Describe(name));
            }
            b'D' => {
                let name = self.portals.get(until_zero(body, 1)).cloned();
                self.ask(Asked::Describe(name.unwrap_or_default()));
            }
            b'E' => {
                let name = self.portals.get(until_zero(body, 0)).cloned();
                self.ask(Asked::Execute(name.unwrap_or_default()));
            }
            b'S' => self.ask(Asked::Sync),
            b'd' => self.copied(body, found),
            _ => {}
        }
    }

    fn ask(&mut self, asked: Asked) {
        if self.asked.len() < ASKED_LIMIT {
            self.asked.push_back(asked);
        }
    }

    fn bind(&mut self, body: &mut [u8], found: &mut Found) {
        let portal = until_zero(body, 0).to_vec();
        let name = until_zero(body, portal.len() + 1).to_vec();
        let mut at = portal.len() + name.len() + 2;
        let statement = self.statements.get(&name).cloned().unwrap_or_default();
        if self.portals.len() < NAMES_LIMIT || self.portals.contains_key(&portal) {
            self.portals.insert(portal, name);
        }
        let formats = short(body, at).unwrap_or(0);
        at += 2 + 2 * usize::from(formats);
        let count = short(body, at).unwrap_or(0);
        at += 2;
        let is_secret = |index: usize| statement.parameters.contains(&index);
        self.values(body, at, count, is_secret, "parameter", found);
    }

    /// Values with their lengths before them.
    fn values(
        &self,
        body: &mut [u8],
        mut at: usize,
        count: u16,
        is_secret: impl Fn(usize) -> bool,
        kind: &str,
        found: &mut Found,
    ) {
        for index in 0..usize::from(count) {
            let Some(length) = number(body, at) else { return };
            at += 4;
            // NULL has none.
            let Ok(length) = usize::try_from(length.cast_signed()) else {
                continue;
            };
            let end = (at + length).min(body.len());
            let value = &mut body[at.min(end)..end];
            if is_secret(index) {
                found.note(HEAD + at, "sql", kind.as_bytes());
                value.fill(STAR);
            } else {
                within(value, HEAD + at, &self.rules, found);
            }
            at = end;
        }
    }

    fn copied(&self, body: &mut [u8], found: &mut Found) {
        if self.copies && !body.is_empty() {
            found.note(HEAD, "sql", b"copy");
            let is_mark = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r');
            body.iter_mut()
                .filter(|byte| !is_mark(byte))
                .for_each(|byte| *byte = STAR);
        }
    }

    fn server_message(&mut self, message: &mut [u8], found: &mut Found) {
        if self.negotiating {
            self.negotiating = false;
            // What is encrypted has no secrets that could be read.
            let is_other = matches!(message[0], b'S' | b'G');
            (self.client.is_other, self.server.is_other) = (is_other, is_other);
            return;
        }
        let (kind, body) = (message[0], &mut message[HEAD..]);
        match kind {
            b'T' => {
                let columns = self.described(body);
                self.columns = columns.clone();
                if let Some(Asked::Describe(name)) = self.asked.front().cloned() {
                    self.asked.pop_front();
                    if let Some(statement) = self.statements.get_mut(&name) {
                        statement.columns = Some(columns);
                    }
                }
            }
            b'n' => {
                if let Some(Asked::Describe(_)) = self.asked.front() {
                    self.asked.pop_front();
                }
            }
            b'D' => {
                let of_statement = match self.asked.front() {
                    Some(Asked::Execute(name)) => {
                        self.statements.get(name).and_then(|known| known.columns.clone())
                    }
                    _ => None,
                };
                let columns = of_statement.unwrap_or_else(|| self.columns.clone());
                let count = short(body, 0).unwrap_or(0);
                self.values(
                    body,
                    2,
                    count,
                    |index| columns.get(index) == Some(&true),
                    "column",
                    found,
                );
            }
            b'C' | b'I' | b's' => {
                if let Some(Asked::Execute(_)) = self.asked.front() {
                    self.asked.pop_front();
                }
            }
            b'E' | b'N' => {
                self.told(body, found);
                if kind == b'E' && self.asked.front() != Some(&Asked::Query) {
                    while self.asked.front().is_some_and(|asked| *asked != Asked::Sync) {
                        self.asked.pop_front();
                    }
                }
            }
            b'Z' => {
                while let Some(asked) = self.asked.pop_front() {
                    if matches!(asked, Asked::Sync | Asked::Query) {
                        break;
                    }
                }
            }
            // With it anyone could end the connection's statements.
            b'K' => body.iter_mut().skip(4).for_each(|byte| *byte = STAR),
            b'A' => within(body, HEAD, &self.rules, found),
            b'd' => self.copied(body, found),
            _ => {}
        }
    }

    /// Which columns of a row's description are secrets.
    fn described(&self, body: &[u8]) -> Arc<[bool]> {
        let count = short(body, 0).unwrap_or(0);
        let mut at = 2;
        let mut columns = Vec::new();
        for _ in 0..count {
            if at >= body.len() {
                break;
            }
            let end = zero(body, at);
            columns.push(self.rules.is_secret_field(&body[at..end]));
            // Table, column, type, its length and modifier, format.
            at = end + 1 + 18;
        }
        columns.into()
    }

    /// The fields of an error or a notice quote what was sent.
    fn told(&self, body: &mut [u8], found: &mut Found) {
        let mut at = 0;
        while at < body.len() && body[at] != 0 {
            let end = zero(body, at + 1);
            let text = &mut body[(at + 1).min(end)..end];
            // `Key (token)=(abc) already exists.`
            if let Some(equals) = text.windows(3).position(|window| window == b")=(") {
                let from = text[..equals]
                    .iter()
                    .rposition(|byte| *byte == b'(')
                    .map_or(0, |at| at + 1);
                let names = text[from..equals].split(|byte| *byte == b',');
                if names
                    .into_iter()
                    .any(|name| self.rules.is_secret_field(name.trim_ascii()))
                {
                    found.note(HEAD + at, "sql", b"error");
                    let to = text.iter().rposition(|byte| *byte == b')').unwrap_or(text.len());
                    text[(equals + 3).min(to)..to].fill(STAR);
                }
            }
            sql::mask(text, HEAD + at + 1, Dialect::Postgres, &self.rules, found);
            at = end + 1;
        }
    }
}

impl Redact for Postgres {
    fn take(&mut self, from: Side, bytes: &[u8], out: &mut Vec<u8>, found: &mut Found) {
        // Heads and messages change what the other ones are read by, so that the two cannot be borrowed apart.
        let mut held = std::mem::take(match from {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        });
        let this = std::cell::RefCell::new(&mut *self);
        held.take(
            bytes,
            out,
            |bytes| match from {
                Side::Client => this.borrow_mut().client_head(bytes),
                Side::Server => {
                    let this = this.borrow();
                    if this.server.is_other {
                        Head::Other
                    } else {
                        this.server_head(bytes)
                    }
                }
            },
            found,
            |message, found| match from {
                Side::Client => this.borrow_mut().client_message(message, found),
                Side::Server => this.borrow_mut().server_message(message, found),
            },
        );
        match from {
            Side::Client => {
                held.is_other |= self.client.is_other;
                self.client = held;
            }
            Side::Server => {
                held.is_other |= self.server.is_other;
                self.server = held;
            }
        }
    }

    fn gap(&mut self, from: Side, count: u64) -> bool {
        match from {
            Side::Client => self.client.gap(count),
            Side::Server => self.server.gap(count),
        }
    }

    fn end(&mut self, from: Side, out: &mut Vec<u8>) {
        match from {
            Side::Client => self.client.end(HEAD, out),
            Side::Server => self.server.end(HEAD, out),
        }
    }
}

fn head(bytes: &[u8]) -> Head {
    match number(bytes, 1) {
        None => Head::More,
        Some(length) if length < 4 || !bytes[0].is_ascii_alphanumeric() => Head::Other,
        Some(length) => Head::Message {
            length: u64::from(length) + 1,
            mask_after: HEAD,
        },
    }
}

/// Where the text that begins at `from` ends.
fn zero(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let length = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    (from + length).min(bytes.len())
}

fn until_zero(bytes: &mut [u8], from: usize) -> &mut [u8] {
    let end = zero(bytes, from);
    &mut bytes[from.min(end)..end]
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}
