//! MySQL's and MariaDB's protocol (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>,
//! <https://mariadb.com/kb/en/clientserver-protocol/>).
//!
//! Read by hand: the crates that know it are clients or servers with sockets of their own. What was agreed on at the
//! connection's start is needed only where a packet doesn't tell, so that a connection can be joined in its middle.

mod command;
mod connect;
mod detect;
mod reply;

use std::collections::VecDeque;

use super::{Key::Order, Kind, Messages, Next, Protocol, ProtocolName, Request, Side, Step};

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::MySql,
    ports: &[3306, 3307, 4000, 6033],
    detect: detect::detect,
    start: || Box::new(MySql::default()),
};

/// Size of a packet's head.
const HEAD: usize = 4;
/// Size of a packet that goes on in the next one.
const FULL: usize = 0xff_ffff;
/// Commands that are not answered yet; clients hardly ever send one before they have the answer to the last.
const ASKED_LIMIT: usize = 64;
/// Prepared statements whose names are kept.
const STATEMENTS_LIMIT: usize = 256;
/// MariaDB's number for the statement that was prepared last.
const LAST_STATEMENT: u32 = u32::MAX;

#[derive(Default)]
struct MySql {
    connect: connect::Connect,
    /// What the server has to answer.
    asked: VecDeque<Asked>,
    /// Whether all that is unanswered is in `asked`.
    sure: bool,
    /// The client's packet goes on in its next one.
    continues: bool,
    /// The client sends a file, up to an empty packet.
    file: bool,
    statements: Statements,
    reply: reply::Reader,
}

/// A command, as far as its answer goes.
struct Asked {
    reply: reply::Form,
    /// Number of the packet that its answer starts with.
    sequence: u8,
    /// Of a statement that is prepared.
    name: Option<Name>,
}

/// A statement's verb and table.
type Name = (String, String);

#[derive(Default)]
struct Statements {
    known: VecDeque<(u32, Name)>,
    last: Option<Name>,
}

struct Packet {
    size: usize,
    sequence: u8,
}

impl Protocol for MySql {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let Some(packet) = packet(bytes) else {
            return Step::Need(HEAD);
        };
        match from {
            Side::Client => self.client(&packet, bytes, messages),
            Side::Server => self.server(&packet, bytes, messages),
        }
    }

    /// Packets of a server have no mark: the framework finds them behind the next command.
    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len())
            .filter(|_| from == Side::Client)
            .find(|at| detect::is_command(&bytes[*at..], *at == 0))
    }

    fn lost(&mut self, from: Side) {
        self.sure = false;
        self.file = false;
        self.connect.greeted = false;
        if from == Side::Client {
            self.continues = false;
            // What the server is in the middle of can still be framed.
            self.asked.truncate(usize::from(self.reply.is_within()));
        } else {
            self.asked.clear();
            self.reply.lost();
        }
    }
}

impl MySql {
    fn client(&mut self, packet: &Packet, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let whole = Step::Took {
            bytes: HEAD,
            skip: packet.size as u64,
        };
        let goes_on = packet.size == FULL;
        if self.continues {
            if let Some(asked) = self.asked.back_mut() {
                asked.sequence = packet.sequence.wrapping_add(1);
            }
            self.continues = goes_on;
            if !goes_on {
                messages.request_end(Order);
            }
            return whole;
        }
        if self.file {
            self.file = packet.size > 0;
            return whole;
        }
        if self.connect.greeted {
            return self.connect(packet, bytes, messages);
        }
        // Only commands start anew; the rest is a part of proving who one is.
        if packet.sequence != 0 {
            return whole;
        }
        let command = match command::read(packet, &bytes[HEAD..], &mut self.statements) {
            Ok(command) => command,
            Err(step) => return step,
        };
        messages.request(Order, command.request);
        match command.reply {
            Some(reply) => self.ask(Asked {
                reply,
                sequence: 1,
                name: command.name,
            }),
            None => messages.no_response(Order),
        }
        self.continues = goes_on;
        if !goes_on {
            messages.request_end(Order);
        }
        if command.endless {
            return Step::Switch {
                bytes: HEAD + packet.size,
                next: Next::Opaque,
            };
        }
        whole
    }

    /// The client's answer to the greeting.
    fn connect(&mut self, packet: &Packet, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let answer = match connect::read(packet, &bytes[HEAD..]) {
            Ok(answer) => answer,
            Err(step) => return step,
        };
        let bytes = HEAD + packet.size;
        self.connect.greeted = false;
        let mut request = Request::new("connect", answer.database);
        if answer.tls {
            // How it goes can't be seen, but for the handshake.
            request.details.push(("tls", "true".to_owned()));
            messages.one_way(Order, request);
            let next = Next::Protocol(ProtocolName::Tls);
            return Step::Switch { bytes, next };
        }
        self.connect.compressed = answer.compressed;
        self.reply.agreed(answer.eofs);
        messages.whole_request(Order, request);
        self.ask(Asked {
            reply: reply::Form::Proof,
            sequence: packet.sequence.wrapping_add(1),
            name: None,
        });
        Step::Took { bytes, skip: 0 }
    }

    fn ask(&mut self, asked: Asked) {
        if self.asked.len() < ASKED_LIMIT {
            self.asked.push_back(asked);
        } else {
            // Found out at the next answer.
            self.asked.clear();
            self.sure = false;
        }
    }

    fn server(&mut self, packet: &Packet, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let whole = Step::Took {
            bytes: HEAD,
            skip: packet.size as u64,
        };
        if self.reply.continues(packet) {
            return whole;
        }
        // Compression starts behind the packet that agrees to it.
        let switches = self.connect.compressed
            && self
                .asked
                .front()
                .is_some_and(|asked| asked.reply == reply::Form::Proof);
        let head = if switches {
            packet.size
        } else {
            packet.size.min(reply::HEAD_LIMIT)
        };
        let Some(head) = bytes[HEAD..].get(..head) else {
            return Step::Need(HEAD + head);
        };
        if packet.sequence == 0 && head.first() == Some(&connect::VERSION) && self.asked.is_empty() {
            self.connect.greeted = true;
            return whole;
        }
        if !self.sure && self.asked.len() > 1 {
            return Step::Lost;
        }
        let Some(asked) = self.asked.front() else {
            return match self.reply.is_stray(packet, head) {
                true => whole,
                false => Step::Lost,
            };
        };
        let Some(said) = self.reply.read(packet, head, asked) else {
            return Step::Lost;
        };
        self.sure = true;
        if said == reply::Said::Nothing {
            return whole;
        }
        messages.response(Order);
        match said {
            reply::Said::Nothing | reply::Said::Part => {}
            reply::Said::File => self.file = true,
            reply::Said::Well { last } => {
                messages.status(Order, "OK", false);
                if last {
                    self.answered(messages);
                }
                if switches {
                    let (bytes, next) = (HEAD + packet.size, Next::Opaque);
                    return Step::Switch { bytes, next };
                }
            }
            reply::Said::Prepared { id, last } => {
                if let Some(name) = self.asked.front_mut().and_then(|asked| asked.name.take()) {
                    self.statements.add(id, name);
                }
                messages.status(Order, "OK", false);
                if last {
                    self.answered(messages);
                }
            }
            reply::Said::Last => self.answered(messages),
            reply::Said::Failed(status) => {
                messages.status(Order, status, true);
                self.answered(messages);
            }
        }
        whole
    }

    fn answered(&mut self, messages: &mut Messages<'_>) {
        self.asked.pop_front();
        messages.response_end(Order);
    }
}

impl Statements {
    fn add(&mut self, id: u32, name: Name) {
        self.known.retain(|(known, _)| *known != id);
        if self.known.len() >= STATEMENTS_LIMIT {
            self.known.pop_front();
        }
        self.known.push_back((id, name));
    }

    fn get(&self, id: u32) -> Option<&Name> {
        if id == LAST_STATEMENT {
            return self.last.as_ref();
        }
        let known = self.known.iter().find(|(known, _)| *known == id);
        known.map(|(_, name)| name)
    }
}

fn packet(bytes: &[u8]) -> Option<Packet> {
    let head = bytes.first_chunk::<HEAD>()?;
    Some(Packet {
        size: u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize,
        sequence: head[3],
    })
}

/// A number of the protocol's, and what is behind it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let size = match first {
        0..=0xfa => return Some((u64::from(*first), rest)),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(size)?;
    let mut all = [0; 8];
    all[..size].copy_from_slice(digits);
    Some((u64::from_le_bytes(all), rest))
}

#[cfg(test)]
mod tests;
