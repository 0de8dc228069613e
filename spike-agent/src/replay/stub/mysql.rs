//! Answers MySQL's clients from a recording: everyone may connect, nothing is encrypted or compressed.

use std::io;

use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::session::{Input, Outcome, Session};
use crate::replay::{
    exchange::Answer,
    flow::Piece,
    wire::mysql::{self, HEAD, State},
};

/// That all is well, in the second protocol that all clients speak.
const GOOD: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];
/// What `caching_sha2_password` says to who is known already.
const KNOWN: [u8; 2] = [1, 3];
/// The server's error for what it has no other one for.
const UNKNOWN_ERROR: u16 = 1105;

pub(super) async fn serve(session: &mut Session, io: &mut UnixStream, mut input: Input) -> io::Result<()> {
    let greeting = session.place().greeting.clone();
    io.write_all(&greeting).await?;
    let Some((content, number)) = next(io, &mut input).await? else {
        return Ok(());
    };
    let login = mysql::login(&content);
    let cached = greeting.windows(21).any(|word| word == b"caching_sha2_password");
    let mut number = number.wrapping_add(1);
    if cached && login.has_password {
        io.write_all(&mysql::frame(number, &KNOWN)).await?;
        number = number.wrapping_add(1);
    }
    io.write_all(&mysql::frame(number, &GOOD)).await?;
    let mut state = State::new(login.capabilities);
    let mut statements = 0;
    while let Some((content, _)) = next(io, &mut input).await? {
        let asked_at = input.take(0);
        let Some(command) = content.first().copied().filter(|command| *command != mysql::QUIT) else {
            return Ok(());
        };
        if !mysql::is_answered(command) {
            continue;
        }
        let asked = state.read(&content);
        let outcome = match command {
            mysql::PING => match session.ask_quietly(&asked.kind, &asked.parts) {
                Some(exchange) => Outcome::Answer(exchange),
                None => {
                    io.write_all(&mysql::frame(1, &GOOD)).await?;
                    continue;
                }
            },
            _ => session.ask(&asked.label, &asked.kind, &asked.parts),
        };
        match outcome {
            Outcome::Answer(exchange) if command == mysql::PREPARE => {
                statements += 1;
                let mut answer = exchange.answer.bytes();
                if let Some((_, place)) = mysql::prepared(&answer) {
                    // Two recorded connections may have given one number to different statements.
                    answer[place].copy_from_slice(&u32::to_le_bytes(statements));
                    state.keep(statements, asked.text);
                }
                let piece = Piece {
                    after: exchange.waited.unwrap_or_default(),
                    bytes: answer.into(),
                };
                session.give(io, asked_at, &[piece]).await?;
            }
            Outcome::Answer(exchange) => {
                if let Answer::Raw { pieces, .. } = &exchange.answer {
                    session.give(io, asked_at, pieces).await?;
                }
            }
            Outcome::Fail(text) => io.write_all(&error(&text)).await?,
            Outcome::Pass(text) => {
                let text =
                    format!("{text}; a statement of MySQL cannot be passed on in the middle of a session");
                io.write_all(&error(&text)).await?;
            }
        }
    }
    Ok(())
}

/// The content of the next packet, and its number.
async fn next(io: &mut UnixStream, input: &mut Input) -> io::Result<Option<(Vec<u8>, u8)>> {
    loop {
        if let Some((size, number)) = mysql::packet(&input.bytes) {
            let content = input.bytes[HEAD..size].to_vec();
            input.take(size);
            return Ok(Some((content, number)));
        }
        if !input.more(io).await? {
            return Ok(None);
        }
    }
}

fn error(text: &str) -> Vec<u8> {
    let mut content = vec![0xff];
    content.extend(UNKNOWN_ERROR.to_le_bytes());
    content.extend(format!("#HY000spike stub: {text}").into_bytes());
    mysql::frame(1, &content)
}
