//! Answers PostgreSQL's clients from a recording: everyone may connect, nothing is encrypted.

use std::{io, time::Instant};

use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::session::{Input, Outcome, Session};
use crate::replay::{
    exchange::{Answer, Exchange},
    flow::Piece,
    wire::postgres::{self, Asked, Start, State},
};

/// SQLSTATE of what could not be answered: an error of the connection, which clients don't try again by themselves.
const CODE: &str = "08P01";

/// Where a connection is.
struct Server {
    state: State,
    /// Of the transaction, as `ReadyForQuery` has it.
    transaction: u8,
    /// After an error: all up to the next `Sync` is passed over.
    skipping: bool,
}

pub(super) async fn serve(session: &mut Session, io: &mut UnixStream, mut input: Input) -> io::Result<()> {
    if !begin(session, io, &mut input).await? {
        return Ok(());
    }
    let mut server = Server {
        state: State::default(),
        transaction: b'I',
        skipping: false,
    };
    while let Some((kind, message, at)) = next(io, &mut input).await? {
        if kind == b'X' {
            return Ok(());
        }
        let asked = server.state.follow(kind, &message);
        match kind {
            b'S' => {
                server.skipping = false;
                io.write_all(&postgres::ready(server.transaction)).await?;
            }
            _ if server.skipping => {}
            b'Q' | b'F' => server.query(session, io, &mut input, asked, at).await?,
            b'P' | b'B' => {
                let known = asked.and_then(|asked| session.ask_quietly(&asked.kind, &asked.parts));
                match known {
                    Some(exchange) => server.give(session, io, &mut input, &exchange, at).await?,
                    None => {
                        io.write_all(&[if kind == b'P' { b'1' } else { b'2' }, 0, 0, 0, 4])
                            .await?
                    }
                }
            }
            b'C' => io.write_all(&postgres::close()).await?,
            b'D' | b'E' => server.query(session, io, &mut input, asked, at).await?,
            // A flush, rows after an error, a password that nobody asked for.
            _ => {}
        }
    }
    Ok(())
}

/// The start of the connection; false when it is no connection for statements.
async fn begin(session: &Session, io: &mut UnixStream, input: &mut Input) -> io::Result<bool> {
    loop {
        match postgres::start(&input.bytes) {
            Ok(Some((Start::Encrypt, size))) => {
                input.take(size);
                io.write_all(b"N").await?;
            }
            Ok(Some((Start::Cancel, _))) => return Ok(false),
            Ok(Some((Start::Connect(_), size))) => {
                input.take(size);
                break;
            }
            Ok(None) if input.more(io).await? => {}
            Ok(None) => return Ok(false),
            Err(why) => {
                io.write_all(&error(&format!("the stub cannot read this: {why}")))
                    .await?;
                return Ok(false);
            }
        }
    }
    let mut words = postgres::message(b'R', &[0, 0, 0, 0]);
    words.extend_from_slice(&session.place().greeting);
    words.extend(postgres::ready(b'I'));
    io.write_all(&words).await?;
    Ok(true)
}

/// The next message, its type first, and when it had come.
async fn next(io: &mut UnixStream, input: &mut Input) -> io::Result<Option<(u8, Vec<u8>, Instant)>> {
    loop {
        match postgres::frame(&input.bytes) {
            Ok(Some((kind, size))) => {
                let message = input.bytes[..size].to_vec();
                return Ok(Some((kind, message, input.take(size))));
            }
            Ok(None) if input.more(io).await? => {}
            Ok(None) => return Ok(None),
            Err(why) => {
                io.write_all(&error(&format!("the stub cannot read this: {why}")))
                    .await?;
                return Ok(None);
            }
        }
    }
}

impl Server {
    /// A message that has an answer of its own.
    async fn query(
        &mut self,
        session: &mut Session,
        io: &mut UnixStream,
        input: &mut Input,
        asked: Option<Asked>,
        at: Instant,
    ) -> io::Result<()> {
        let Some(asked) = asked else {
            return self.fail(io, "the stub cannot read this message", true).await;
        };
        let is_simple = asked
            .parts
            .get("message")
            .is_some_and(|what| matches!(what, "query" | "function"));
        match session.ask(&asked.label, &asked.kind, &asked.parts) {
            Outcome::Answer(exchange) => self.give(session, io, input, &exchange, at).await,
            Outcome::Fail(text) => self.fail(io, &text, is_simple).await,
            Outcome::Pass(text) => {
                let text = format!(
                    "{text}; a statement of PostgreSQL cannot be passed on in the middle of a session"
                );
                self.fail(io, &text, is_simple).await
            }
        }
    }

    /// Gives a recorded answer, and keeps what it says of the transaction.
    async fn give(
        &mut self,
        session: &Session,
        io: &mut UnixStream,
        input: &mut Input,
        exchange: &Exchange,
        at: Instant,
    ) -> io::Result<()> {
        let Answer::Raw { pieces, .. } = &exchange.answer else {
            return Ok(());
        };
        let bytes = exchange.answer.bytes();
        self.note(&bytes, &exchange.kind);
        match copy_in(&bytes) {
            None => session.give(io, at, pieces).await,
            Some(end) => {
                let (before, after) = cut(pieces, end);
                session.give(io, at, &before).await?;
                // The client's rows; what they are is not looked at.
                let mut ended = Instant::now();
                while let Some((kind, _, at)) = next(io, input).await? {
                    ended = at;
                    if matches!(kind, b'c' | b'f') {
                        break;
                    }
                }
                session.give(io, ended, &after).await
            }
        }
    }

    fn note(&mut self, bytes: &[u8], kind: &str) {
        let mut rest = bytes;
        while let Ok(Some((of, size))) = postgres::frame(rest) {
            let content = postgres::body(&rest[..size]);
            match of {
                b'Z' => self.transaction = content.first().copied().unwrap_or(b'I'),
                b'E' => {
                    self.skipping = !kind.starts_with("query ") && !kind.starts_with("function ");
                    if self.transaction == b'T' {
                        self.transaction = b'E';
                    }
                }
                b'C' => {
                    let goes_back = kind.to_ascii_uppercase().contains(" ROLLBACK TO");
                    if content.starts_with(b"BEGIN") || content.starts_with(b"START TRANSACTION") || goes_back
                    {
                        self.transaction = b'T';
                    } else if content.starts_with(b"COMMIT") || content.starts_with(b"ROLLBACK") {
                        self.transaction = b'I';
                    }
                }
                _ => {}
            }
            rest = &rest[size..];
        }
    }

    async fn fail(&mut self, io: &mut UnixStream, text: &str, is_simple: bool) -> io::Result<()> {
        if self.transaction == b'T' {
            self.transaction = b'E';
        }
        let mut words = error(text);
        if is_simple {
            words.extend(postgres::ready(self.transaction));
        } else {
            self.skipping = true;
        }
        io.write_all(&words).await
    }
}

/// Where the server's request for rows ends, if there is one.
fn copy_in(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Ok(Some((kind, size))) = postgres::frame(&bytes[at..]) {
        at += size;
        if kind == b'G' {
            return Some(at);
        }
    }
    None
}

/// Pieces up to a number of bytes, and the rest.
fn cut(pieces: &[Piece], mut end: usize) -> (Vec<Piece>, Vec<Piece>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = piece.clone();
        let first = rest.bytes.split_to(end.min(rest.bytes.len()));
        end -= first.len();
        for (bytes, pieces) in [(first, &mut before), (rest.bytes, &mut after)] {
            if !bytes.is_empty() {
                pieces.push(Piece {
                    after: piece.after,
                    bytes,
                });
            }
        }
    }
    (before, after)
}

fn error(text: &str) -> Vec<u8> {
    let text: String = text.chars().filter(|c| *c != '\0').collect();
    let content = format!("SERROR\0VERROR\0C{CODE}\0Mspike stub: {text}\0\0");
    postgres::message(b'E', content.as_bytes())
}
