//! Answers bytes of a protocol that is not known: by the recorded conversation whose turns the caller's bytes follow.

use std::io;

use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    net::UnixStream,
};

use super::session::{Input, Outcome, Session};
use crate::replay::{
    exchange::{Answer, Sent, Talk},
    wire::raw::label,
};

pub(super) async fn serve(session: &Session, io: &mut UnixStream, mut input: Input) -> io::Result<()> {
    let mut candidates: Vec<&Talk> = session.place().conversations.iter().collect();
    io.write_all(&session.place().greeting).await?;
    let mut turn = 0;
    loop {
        // Those that have a turn here which begins as the caller's bytes do.
        candidates.retain(|talk| asked(talk, turn).is_some_and(|asked| starts(asked, &input.bytes)));
        let complete = candidates
            .iter()
            .find(|talk| asked(talk, turn).is_some_and(|asked| input.bytes.starts_with(asked)));
        if let Some(exchange) = complete.and_then(|talk| talk.exchanges.get(turn)).cloned()
            && !input.bytes.is_empty()
        {
            let Sent::Raw(bytes) = &exchange.sent else {
                return Ok(());
            };
            let asked_at = input.take(bytes.len());
            candidates.retain(|talk| asked(talk, turn) == Some(bytes));
            session.count_answer();
            if session.give_all(io, asked_at, &exchange.answer).await? {
                return io.shutdown().await;
            }
            turn += 1;
            continue;
        }
        if candidates.is_empty() && !input.bytes.is_empty() {
            return miss(session, io, &input.bytes, turn).await;
        }
        if !input.more(io).await? {
            return Ok(());
        }
    }
}

/// What the client said in a turn of a conversation that can be answered.
fn asked(talk: &Talk, turn: usize) -> Option<&[u8]> {
    let exchange = talk.exchanges.get(turn).filter(|exchange| exchange.whole)?;
    match (&exchange.sent, &exchange.answer) {
        (Sent::Raw(bytes), Answer::Raw { .. }) => Some(bytes),
        _ => None,
    }
}

/// Whether one begins as the other, as far as both go.
fn starts(a: &[u8], b: &[u8]) -> bool {
    let length = a.len().min(b.len());
    a[..length] == b[..length]
}

/// There is no error that every protocol has: the connection ends, or goes on to the real server where that has missed
/// nothing.
async fn miss(session: &Session, io: &mut UnixStream, bytes: &[u8], turn: usize) -> io::Result<()> {
    let note = match bytes.first() {
        Some(0x16) if turn == 0 => "it is TLS, which cannot be answered from a recording",
        _ => "no recorded conversation goes on so",
    };
    match session.miss(&label(bytes), None, Some(note.to_owned())) {
        Outcome::Pass(_) if turn == 0 && session.place().greeting.is_empty() => {
            let mut upstream = session.dial().await?;
            upstream.write_all(bytes).await?;
            copy_bidirectional(io, &mut upstream).await.map(drop)
        }
        _ => Ok(()),
    }
}
