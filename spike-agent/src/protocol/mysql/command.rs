//! What a client asks.

use super::{FULL, HEAD, Name, Packet, Request, Statements, Step, reply::Form};
use crate::protocol::sql;

/// What stands before a statement: the command, and a count of attributes and of their sets.
const BEFORE: usize = 3;
/// Longest name of a database that is told.
const NAME_LIMIT: usize = 64;

pub(super) const QUERY: u8 = 0x03;
pub(super) const PREPARE: u8 = 0x16;

pub(super) struct Command {
    pub(super) request: Request,
    /// None where there is no answer.
    pub(super) reply: Option<Form>,
    /// Of the statement that it prepares.
    pub(super) name: Option<Name>,
    /// Whether the answer goes on for ever, as to a replica.
    pub(super) endless: bool,
}

/// How a command is called and answered; none for what isn't one.
pub(super) fn known(code: u8) -> Option<(&'static str, Option<Form>)> {
    Some(match code {
        0x01 => ("QUIT", None),
        0x02 => ("USE", Some(Form::Done)),
        QUERY => ("QUERY", Some(Form::Results)),
        0x04 => ("FIELD LIST", Some(Form::Fields)),
        0x05 => ("CREATE DATABASE", Some(Form::Done)),
        0x06 => ("DROP DATABASE", Some(Form::Done)),
        0x07 => ("REFRESH", Some(Form::Done)),
        0x08 => ("SHUTDOWN", Some(Form::Done)),
        0x09 => ("STATISTICS", Some(Form::Text)),
        0x0a => ("PROCESS INFO", Some(Form::Results)),
        0x0c => ("KILL", Some(Form::Done)),
        0x0d => ("DEBUG", Some(Form::Done)),
        0x0e => ("PING", Some(Form::Done)),
        0x11 => ("CHANGE USER", Some(Form::Proof)),
        0x12 | 0x1e => ("BINLOG DUMP", None),
        0x15 => ("REGISTER REPLICA", Some(Form::Done)),
        PREPARE => ("PREPARE", Some(Form::Prepared)),
        0x17 | 0xfa => ("EXECUTE", Some(Form::Results)),
        0x18 => ("SEND LONG DATA", None),
        0x19 => ("CLOSE", None),
        0x1a => ("RESET STATEMENT", Some(Form::Done)),
        0x1b => ("SET OPTION", Some(Form::Done)),
        0x1c => ("FETCH", Some(Form::Rows)),
        0x1f => ("RESET CONNECTION", Some(Form::Done)),
        _ => return None,
    })
}

/// Reads a command from `payload`, of which as much is asked for as is needed to name it.
pub(super) fn read(packet: &Packet, payload: &[u8], statements: &mut Statements) -> Result<Command, Step> {
    if packet.size == 0 {
        return Err(Step::Lost);
    }
    let code = *payload.first().ok_or(Step::Need(HEAD + 1))?;
    let (operation, reply) = known(code).ok_or(Step::Lost)?;
    let wanted = match code {
        QUERY | PREPARE => BEFORE + sql::STATEMENT_LIMIT,
        0x02 | 0x05 | 0x06 => 1 + NAME_LIMIT,
        _ => 5,
    };
    // A replica's request has a name in it, and is all there is.
    let endless = operation == "BINLOG DUMP";
    if endless && packet.size == FULL {
        return Err(Step::Lost);
    }
    let wanted = if endless {
        packet.size
    } else {
        wanted.min(packet.size)
    };
    let payload = payload.get(..wanted).ok_or(Step::Need(HEAD + wanted))?;
    let mut command = Command {
        request: Request::new(operation, ""),
        reply,
        name: None,
        endless,
    };
    match code {
        QUERY => {
            let (verb, table) = sql::summary(statement(payload));
            if !verb.is_empty() {
                command.request = Request::new(verb, table);
            }
        }
        PREPARE => {
            let (verb, table) = sql::summary(&payload[1..]);
            command.request.target.clone_from(&table);
            let name = if verb.is_empty() {
                operation.to_owned()
            } else {
                verb
            };
            statements.last = Some((name.clone(), table.clone()));
            command.name = Some((name, table));
        }
        0x17 | 0xfa | 0x18 | 0x1a | 0x1c => {
            if let Some((verb, table)) = of_statement(payload).and_then(|id| statements.get(id)) {
                command.request.target.clone_from(table);
                if reply == Some(Form::Results) {
                    command.request.operation.clone_from(verb);
                }
            }
        }
        0x19 => {
            if let Some(id) = of_statement(payload) {
                if let Some((_, table)) = statements.get(id) {
                    command.request.target.clone_from(table);
                }
                statements.known.retain(|(known, _)| *known != id);
            }
        }
        0x02 | 0x05 | 0x06 => command.request.target = String::from_utf8_lossy(&payload[1..]).into_owned(),
        _ => {}
    }
    Ok(command)
}

/// The text of a query, which may come behind attributes (MySQL 8.0.23); empty where there are some.
pub(super) fn statement(payload: &[u8]) -> &[u8] {
    match &payload[1..] {
        [0, 1, text @ ..] => text,
        [0..=8, ..] => &[],
        text => text,
    }
}

fn of_statement(payload: &[u8]) -> Option<u32> {
    payload.get(1..5)?.try_into().ok().map(u32::from_le_bytes)
}
