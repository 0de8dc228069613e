//! PostgreSQL's protocol, version 3 (<https://www.postgresql.org/docs/current/protocol.html>), CockroachDB's and
//! PgBouncer's too.
//!
//! A call is a statement that is executed: a simple query, however many statements are in its text, or an `Execute` with
//! what prepares it. What prepares statements and executes none is a call `PREPARE`, `DESCRIBE` or `CLOSE`; the start
//! of a connection up to the first `ReadyForQuery` is `connect`. Read by hand: the crates that know the protocol want
//! whole messages in memory, and a value may have a gigabyte.

mod detect;
mod message;
mod names;

use std::collections::VecDeque;

use super::{Key::Order, Kind, Messages, Next, Protocol, ProtocolName, Request, Side, Step};
use message::{Header, Start, took};
use names::Names;

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Postgres,
    ports: &[5432, 5433, 6432, 26257],
    detect: detect::detect,
    start: || Box::new(Postgres::default()),
};

/// Units that are not answered yet. More than the calls that the framework keeps open, so that it notices first.
const UNITS_LIMIT: usize = 4096;
/// Clients that pipeline send on as soon as there is an answer; in nanoseconds.
const QUIET_NS: u64 = 1_000_000;

#[derive(Default)]
struct Postgres {
    /// The client asked for encryption: one byte answers.
    negotiating: bool,
    /// The last unit is not complete.
    building: bool,
    /// The client sends the rows of a `COPY`.
    copying: bool,
    /// The server passes over what comes up to the next `Sync`.
    skipping: bool,
    /// What the server has to answer.
    units: VecDeque<Unit>,
    names: Names,
}

/// Messages that are answered together.
#[derive(Default)]
struct Unit {
    /// Whether it is a call; not so a `Sync` that follows none.
    call: bool,
    /// Answers to its messages that are still to come.
    replies: u32,
    /// `ReadyForQuery` ends it.
    synced: bool,
    /// It ended in an error.
    failed: bool,
    connect: bool,
}

impl Protocol for Postgres {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let step = match from {
            Side::Client if bytes[0] == 0 => self.start(bytes, messages),
            Side::Client => self.client(bytes, messages),
            Side::Server if self.negotiating && bytes[0] != b'E' => Ok(self.encryption(bytes)),
            Side::Server => self.server(bytes, messages),
        };
        step.unwrap_or_else(|step| step)
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        detect::find(from, bytes)
    }

    fn lost(&mut self, from: Side) {
        self.units.clear();
        self.negotiating = false;
        self.building = false;
        self.skipping = false;
        if from == Side::Client {
            self.copying = false;
            // Names may stand for other statements now.
            self.names = Names::default();
        }
    }

    fn quiet_ns(&self) -> u64 {
        QUIET_NS
    }
}

impl Postgres {
    fn start(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Result<Step, Step> {
        let (start, size) = Start::read(bytes)?;
        match start {
            Start::Encrypt => self.negotiating = true,
            Start::Cancel => messages.one_way(Order, Request::new("cancel", "")),
            Start::Connect(request) => {
                messages.whole_request(Order, request);
                self.push(Unit {
                    call: true,
                    synced: true,
                    connect: true,
                    ..Unit::default()
                })?;
            }
        }
        Ok(Step::Took { bytes: size, skip: 0 })
    }

    /// The one byte that answers a request for encryption.
    fn encryption(&mut self, bytes: &[u8]) -> Step {
        let next = match bytes[0] {
            b'N' => {
                self.negotiating = false;
                return Step::Took { bytes: 1, skip: 0 };
            }
            b'S' => Next::Protocol(ProtocolName::Tls),
            b'G' => Next::Opaque,
            _ => return Step::Lost,
        };
        Step::Switch { bytes: 1, next }
    }

    fn client(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Result<Step, Step> {
        let header = Header::read(bytes)?;
        match header.kind {
            b'Q' => {
                let text = header.text(bytes)?;
                let request = names::statement(text);
                self.query(request, message::copies_in(text), messages)?;
            }
            b'F' => self.query(Request::new("CALL", ""), false, messages)?,
            b'P' => {
                let (name, text) = header.named_text(bytes)?;
                let (verb, table) = names::summary(text);
                self.prepare(Request::new("PREPARE", &*table), messages)?;
                self.names.prepare(name, (verb, table));
            }
            b'B' => {
                let (portal, statement) = header.two_names(bytes)?;
                self.prepare(Request::default(), messages)?;
                self.names.bind(portal, statement);
            }
            b'D' => self.prepare(Request::new("DESCRIBE", ""), messages)?,
            b'C' => self.prepare(Request::new("CLOSE", ""), messages)?,
            b'E' => {
                let request = self.names.executed(header.name(bytes)?);
                self.execute(request, messages)?;
            }
            b'S' => self.sync(messages)?,
            b'H' => self.complete(messages),
            b'c' | b'f' if self.copying => {
                messages.request_end(Order);
                self.copying = false;
            }
            // Rows, passwords, the end of the connection.
            b'd' | b'c' | b'f' | b'p' | b'X' => {}
            _ => return Err(Step::Lost),
        }
        Ok(took(&header))
    }

    fn query(&mut self, request: Request, copies_in: bool, messages: &mut Messages<'_>) -> Result<(), Step> {
        self.push(Unit {
            call: true,
            synced: true,
            ..Unit::default()
        })?;
        messages.request(Order, request);
        // The rows are a part of the request.
        self.copying = copies_in;
        if !copies_in {
            messages.request_end(Order);
        }
        self.building = false;
        Ok(())
    }

    /// A message that executes nothing, and is answered by one.
    fn prepare(&mut self, request: Request, messages: &mut Messages<'_>) -> Result<(), Step> {
        match self.units.back_mut().filter(|_| self.building) {
            Some(unit) => {
                unit.replies += 1;
                // It has its name from the first message.
                messages.describe(Order, Request::default());
            }
            None => {
                self.push(Unit {
                    call: true,
                    replies: 1,
                    ..Unit::default()
                })?;
                self.building = true;
                let unnamed = request.operation.is_empty();
                let request = if unnamed {
                    Request::new("BIND", "")
                } else {
                    request
                };
                messages.request(Order, request);
            }
        }
        Ok(())
    }

    fn execute(&mut self, request: Request, messages: &mut Messages<'_>) -> Result<(), Step> {
        match self.units.back_mut().filter(|_| self.building) {
            Some(unit) => {
                unit.replies += 1;
                messages.describe(Order, request);
            }
            None => {
                self.push(Unit {
                    call: true,
                    replies: 1,
                    ..Unit::default()
                })?;
                messages.request(Order, request);
            }
        }
        messages.request_end(Order);
        self.building = false;
        Ok(())
    }

    fn complete(&mut self, messages: &mut Messages<'_>) {
        if self.building {
            messages.request_end(Order);
            self.building = false;
        }
    }

    fn sync(&mut self, messages: &mut Messages<'_>) -> Result<(), Step> {
        self.complete(messages);
        match self.units.back_mut().filter(|unit| !unit.synced) {
            Some(unit) => unit.synced = true,
            None => self.push(Unit {
                synced: true,
                ..Unit::default()
            })?,
        }
        Ok(())
    }

    fn push(&mut self, unit: Unit) -> Result<(), Step> {
        if self.units.len() >= UNITS_LIMIT {
            return Err(Step::Lost);
        }
        self.units.push_back(unit);
        Ok(())
    }

    fn server(&mut self, bytes: &[u8], messages: &mut Messages<'_>) -> Result<Step, Step> {
        let header = Header::read(bytes)?;
        match header.kind {
            b'Z' => self.ready(messages)?,
            b'E' => self.failed(&header.sqlstate(bytes)?, messages),
            b'R' => {
                if self.units.front().is_some_and(|unit| unit.connect) {
                    messages.response(Order);
                    messages.status(Order, "OK", false);
                }
            }
            // Notices, notifications and parameters come at any time.
            b'N' | b'A' | b'S' | b'K' | b'v' => {}
            b'1' | b'2' | b'3' | b'T' | b'n' | b't' | b'C' | b's' | b'I' | b'D' | b'G' | b'H' | b'W'
            | b'd' | b'c' | b'V' => self.answer(header.kind, messages),
            _ => return Err(Step::Lost),
        }
        Ok(took(&header))
    }

    fn answer(&mut self, kind: u8, messages: &mut Messages<'_>) {
        // Of what was asked before a gap nothing is said: it would be taken for the next one's.
        let Some(unit) = self.units.front_mut().filter(|unit| unit.call) else {
            return;
        };
        messages.response(Order);
        if matches!(kind, b'C' | b's' | b'I' | b'V') {
            messages.status(Order, "OK", false);
        }
        // Simple queries count none.
        if unit.replies > 0 && matches!(kind, b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b's' | b'I') {
            unit.replies -= 1;
            if unit.replies == 0 && !matches!(kind, b'C' | b's' | b'I') {
                messages.status(Order, "OK", false);
            }
            if unit.replies == 0 && !unit.synced && !self.is_building() {
                messages.response_end(Order);
                self.units.pop_front();
            }
        }
    }

    /// Whether the unit that is answered is the one that the client is at.
    fn is_building(&self) -> bool {
        self.building && self.units.len() == 1
    }

    fn failed(&mut self, code: &str, messages: &mut Messages<'_>) {
        // What isn't asked for is about the connection: the server shuts down.
        let Some(unit) = self.units.front_mut().filter(|unit| unit.call) else {
            return;
        };
        unit.failed = true;
        let over = unit.connect || !unit.synced;
        self.skipping = !unit.connect;
        messages.response(Order);
        messages.status(Order, code, true);
        if over {
            messages.response_end(Order);
            self.units.pop_front();
            self.building &= !self.units.is_empty();
        }
    }

    /// All up to a `Sync`, or a simple query, is done, or was passed over after an error.
    fn ready(&mut self, messages: &mut Messages<'_>) -> Result<(), Step> {
        let Some(last) = self.units.iter().position(|unit| unit.synced) else {
            return Ok(());
        };
        // Without an error all the others were answered before.
        if last > 0 && !self.skipping {
            return Err(Step::Lost);
        }
        for unit in self.units.drain(..=last).filter(|unit| unit.call) {
            if unit.failed || !self.skipping {
                messages.response(Order);
                messages.response_end(Order);
            } else {
                messages.skipped(Order, "aborted", true);
            }
        }
        self.skipping = false;
        self.building &= !self.units.is_empty();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
