//! What a server answers.

use super::{Asked, FULL, Packet, number};

/// Bytes of a packet that are looked at: most that a status may need.
pub(super) const HEAD_LIMIT: usize = 32;

const OK: u8 = 0x00;
const FILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;
/// Size of the packet that ends a list.
const EOF_SIZE: usize = 5;
/// MariaDB's number for news of a long command, which are no error.
const PROGRESS: u16 = 0xffff;
const MORE_RESULTS: u16 = 0x08;
const CURSOR: u16 = 0x40;

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Whether it went well.
    Done,
    /// The same, for each statement, or columns and rows.
    Results,
    Rows,
    Fields,
    Text,
    Prepared,
    /// Questions, before it says whether it went well.
    Proof,
}

/// What a packet says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is not a part of the answer.
    Nothing,
    Part,
    Well {
        last: bool,
    },
    /// The answer goes on when the client has sent a file.
    File,
    Prepared {
        id: u32,
        last: bool,
    },
    Last,
    Failed(String),
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Answer,
    /// Of a further statement, or after a file.
    Further,
    Columns(u64),
    /// Rows, but the columns may have an end of their own first.
    ColumnsEnd,
    Rows,
    /// Definitions of a prepared statement: parameters, then columns.
    Definitions {
        now: u64,
        then: u64,
        end_first: bool,
    },
    DefinitionsEnd,
}

/// Where in an answer a server is.
#[derive(Default)]
pub(super) struct Reader {
    stage: Stage,
    /// The packet goes on in the next one.
    continues: bool,
    /// Number of the next packet.
    sequence: Option<u8>,
    /// Whether lists of columns end in a packet of their own, once that is known.
    eofs: Option<bool>,
    /// Number of such a packet that may come behind an answer, as it wasn't known.
    stray: Option<u8>,
}

impl Reader {
    pub(super) fn agreed(&mut self, eofs: bool) {
        self.eofs = Some(eofs);
    }

    pub(super) fn is_within(&self) -> bool {
        self.stage != Stage::Answer || self.continues
    }

    pub(super) fn lost(&mut self) {
        *self = Self {
            eofs: self.eofs,
            ..Self::default()
        };
    }

    /// Whether the packet is a part of the last one.
    pub(super) fn continues(&mut self, packet: &Packet) -> bool {
        let within = self.continues;
        if within {
            self.took(packet);
        }
        within
    }

    /// Whether a packet that nobody asked for may be passed over.
    pub(super) fn is_stray(&mut self, packet: &Packet, head: &[u8]) -> bool {
        let end = is_eof(packet, head) && self.stray == Some(packet.sequence);
        if end {
            self.stray = None;
            self.eofs = Some(false);
        }
        // An error before the connection is closed.
        end || head.first() == Some(&ERR)
    }

    fn took(&mut self, packet: &Packet) {
        self.continues = packet.size == FULL;
        self.sequence = Some(packet.sequence.wrapping_add(1));
    }

    /// What a packet says in answer to `asked`; none where it doesn't fit. Only then nothing is remembered of it.
    pub(super) fn read(&mut self, packet: &Packet, head: &[u8], asked: &Asked) -> Option<Said> {
        if self.stage == Stage::Answer && self.stray.is_some() && self.is_stray(packet, head) {
            return Some(Said::Nothing);
        }
        let expected = match self.stage {
            Stage::Answer => Some(asked.sequence),
            _ => self.sequence,
        };
        // The client's packets count where there are several questions, and those of a file.
        let counted = asked.reply != Form::Proof && self.sequence.is_some() || self.stage == Stage::Answer;
        if counted && expected.is_some_and(|expected| expected != packet.sequence) {
            return None;
        }
        let (said, stage) = match self.stage {
            Stage::Answer | Stage::Further => self.answer(packet, head, asked.reply)?,
            Stage::Columns(left) if left > 1 => (Said::Part, Stage::Columns(left - 1)),
            Stage::Columns(_) => (Said::Part, Stage::ColumnsEnd),
            Stage::ColumnsEnd => self.columns_end(packet, head)?,
            Stage::Rows => row(packet, head)?,
            Stage::Definitions { now, then, end_first } => {
                self.definition(packet, head, now, then, end_first)
            }
            Stage::DefinitionsEnd if is_eof(packet, head) => (Said::Last, Stage::Answer),
            Stage::DefinitionsEnd => return None,
        };
        self.took(packet);
        self.stage = stage;
        let last = stage == Stage::Answer;
        if said == Said::File {
            self.sequence = None;
        }
        if last {
            let unknown = asked.reply == Form::Prepared && self.eofs.is_none();
            self.stray = self.sequence.take().filter(|_| unknown);
        }
        Some(said)
    }

    fn answer(&mut self, packet: &Packet, head: &[u8], form: Form) -> Option<(Said, Stage)> {
        let first = *head.first()?;
        if first == ERR {
            return failed(head, self.stage);
        }
        Some(match form {
            Form::Done | Form::Proof if first == OK => (Said::Well { last: true }, Stage::Answer),
            Form::Done if first == EOF => (Said::Well { last: true }, Stage::Answer),
            Form::Proof if matches!(first, 1 | EOF) => (Said::Part, Stage::Further),
            Form::Done | Form::Proof => return None,
            Form::Text => (Said::Well { last: true }, Stage::Answer),
            Form::Rows => row(packet, head)?,
            Form::Fields if first == EOF => (Said::Well { last: true }, Stage::Answer),
            Form::Fields => (Said::Part, Stage::Further),
            Form::Prepared => {
                let id = head.get(1..5)?.try_into().ok().map(u32::from_le_bytes)?;
                let (columns, parameters) = (short(head, 5)?, short(head, 7)?);
                if first != OK {
                    return None;
                }
                let (now, then) = match (u64::from(parameters), u64::from(columns)) {
                    (0, columns) => (columns, 0),
                    both => both,
                };
                let last = now == 0;
                let stage = match last {
                    true => Stage::Answer,
                    false => Stage::Definitions {
                        now,
                        then,
                        end_first: false,
                    },
                };
                (Said::Prepared { id, last }, stage)
            }
            Form::Results => match first {
                OK => ended(head)?,
                FILE => (Said::File, Stage::Further),
                _ => columns(packet, head)?,
            },
        })
    }

    fn columns_end(&mut self, packet: &Packet, head: &[u8]) -> Option<(Said, Stage)> {
        self.eofs = Some(is_eof(packet, head));
        if !is_eof(packet, head) {
            return row(packet, head);
        }
        // The rows are fetched by commands of their own.
        if short(head, 3)? & CURSOR != 0 {
            return ended(head);
        }
        Some((Said::Part, Stage::Rows))
    }

    fn definition(
        &mut self,
        packet: &Packet,
        head: &[u8],
        now: u64,
        then: u64,
        end_first: bool,
    ) -> (Said, Stage) {
        if end_first {
            self.eofs = Some(is_eof(packet, head));
            if is_eof(packet, head) {
                let stage = Stage::Definitions {
                    now,
                    then,
                    end_first: false,
                };
                return (Said::Part, stage);
            }
        }
        if now > 1 || then > 0 {
            let (now, then, end_first) = match now {
                1 => (then, 0, true),
                _ => (now - 1, then, false),
            };
            return (Said::Part, Stage::Definitions { now, then, end_first });
        }
        match self.eofs {
            Some(true) => (Said::Part, Stage::DefinitionsEnd),
            Some(false) | None => (Said::Last, Stage::Answer),
        }
    }
}

/// The count of a result's columns; MariaDB may say behind it whether their definitions follow.
fn columns(packet: &Packet, head: &[u8]) -> Option<(Said, Stage)> {
    let (count, rest) = number(&head[..packet.size.min(head.len())])?;
    let stage = match rest {
        [] | [1] if count > 0 => Stage::Columns(count),
        [0] if count > 0 => Stage::ColumnsEnd,
        _ => return None,
    };
    Some((Said::Well { last: false }, stage))
}

fn row(packet: &Packet, head: &[u8]) -> Option<(Said, Stage)> {
    match *head.first()? {
        ERR => failed(head, Stage::Rows),
        EOF if packet.size < FULL => ended(head),
        _ => Some((Said::Part, Stage::Rows)),
    }
}

/// The end of a result.
fn ended(head: &[u8]) -> Option<(Said, Stage)> {
    let status = if head.len() == EOF_SIZE && head[0] == EOF {
        short(head, 3)?
    } else {
        let (_, rest) = number(&head[1..])?;
        let (_, rest) = number(rest)?;
        short(rest, 0)?
    };
    Some(match status & MORE_RESULTS != 0 {
        true => (Said::Well { last: false }, Stage::Further),
        false => (Said::Well { last: true }, Stage::Answer),
    })
}

/// `1146 (42S02)`
fn failed(head: &[u8], stage: Stage) -> Option<(Said, Stage)> {
    let code = short(head, 1)?;
    if code == PROGRESS {
        return Some((Said::Part, stage.or_further()));
    }
    let state = head.get(3..9).and_then(|state| state.strip_prefix(b"#"));
    let state = state.filter(|state| state.iter().all(u8::is_ascii_alphanumeric));
    let status = match state.and_then(|state| str::from_utf8(state).ok()) {
        Some(state) => format!("{code} ({state})"),
        None => code.to_string(),
    };
    Some((Said::Failed(status), Stage::Answer))
}

impl Stage {
    /// The same answer, which has begun.
    fn or_further(self) -> Self {
        match self {
            Self::Answer => Self::Further,
            stage => stage,
        }
    }
}

fn is_eof(packet: &Packet, head: &[u8]) -> bool {
    packet.size == EOF_SIZE && head.first() == Some(&EOF)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}
