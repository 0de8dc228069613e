//! Answers Redis' commands from a recording.

use std::{io, time::Instant};

use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::{
    pass::Upstream,
    session::{Input, Outcome, Session},
};
use crate::replay::{
    exchange::{Answer, Exchange, Sent},
    wire::redis::{self, Command, Transaction},
};

/// Commands by which clients tell about themselves: an answer says nothing, so that a newer client is no miss.
const POLITE: [&str; 2] = ["SETINFO", "SETNAME"];

pub(super) async fn serve(session: &mut Session, io: &mut UnixStream, mut input: Input) -> io::Result<()> {
    let mut upstream = None;
    let mut transaction = Transaction::default();
    loop {
        let command = match redis::command(&input.bytes) {
            Ok(Some(command)) => command,
            Ok(None) if input.more(io).await? => continue,
            Ok(None) => return Ok(()),
            Err(why) => {
                return io
                    .write_all(&error(&format!("the stub cannot read this: {why}")))
                    .await;
            }
        };
        let raw = input.bytes[..command.size].to_vec();
        let asked_at = input.take(command.size);
        if command.arguments.is_empty() {
            continue;
        }
        let (label, kind) = (command.label(), command.kind());
        let mut parts = command.parts();
        transaction.follow(&command, &mut parts);
        let outcome = match polite(&command) {
            Some(answer) => match session.ask_quietly(&kind, &parts) {
                Some(exchange) => Outcome::Answer(exchange),
                None => {
                    io.write_all(answer).await?;
                    continue;
                }
            },
            None => session.ask(&label, &kind, &parts),
        };
        match outcome {
            Outcome::Answer(exchange) => {
                if session.give_all(io, asked_at, &exchange.answer).await? {
                    return Ok(());
                }
            }
            Outcome::Fail(text) => io.write_all(&error(&text)).await?,
            Outcome::Pass(text) => match pass(session, &mut upstream, &raw).await {
                Ok(answer) => {
                    io.write_all(&answer).await?;
                    session.passed(|| Exchange {
                        label,
                        kind,
                        request: parts,
                        response: redis::reply_parts(&answer),
                        sent: Sent::Raw(raw.into()),
                        answer: Answer::at_once(answer),
                        started_ns: u64::MAX,
                        waited: Some(asked_at.elapsed()),
                        whole: true,
                    });
                }
                Err(why) => {
                    io.write_all(&error(&format!("{text}; the real server: {why}")))
                        .await?;
                    upstream = None;
                }
            },
        }
    }
}

/// What is answered to a client that tells about itself.
fn polite(command: &Command) -> Option<&'static [u8]> {
    let second = command.arguments.get(1)?.to_ascii_uppercase();
    let is_polite = command.name() == "CLIENT" && POLITE.iter().any(|word| word.as_bytes() == second);
    is_polite.then_some(b"+OK\r\n")
}

fn error(text: &str) -> Vec<u8> {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("-ERR spike stub: {text}\r\n").into_bytes()
}

async fn pass(session: &Session, upstream: &mut Option<Upstream>, raw: &[u8]) -> Result<Vec<u8>, String> {
    let connection = match upstream {
        Some(connection) => connection,
        None => upstream.insert(Upstream::connect(session).await?),
    };
    connection.send(raw).await?;
    let started = Instant::now();
    loop {
        if let Some(size) = redis::reply(&connection.bytes)? {
            let answer = connection.bytes[..size].to_vec();
            connection.bytes.drain(..size);
            return Ok(answer);
        }
        if connection.ended {
            return Err("it ended the connection".to_owned());
        }
        connection.more(started).await?;
    }
}
