//! Answers HTTP/1 from a recording: keep-alive, pipelining and `Expect` as a server has them.

use std::{io, time::Instant};

use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::{
    pass::Upstream,
    session::{Input, Outcome, Session},
};
use crate::replay::{
    exchange::{Answer, Exchange, Sent},
    wire::http1::{self, Message, Read, names, request_parts},
};

pub(super) async fn serve(session: &mut Session, io: &mut UnixStream, mut input: Input) -> io::Result<()> {
    let mut upstream = None;
    while let Some(message) = next(io, &mut input).await? {
        let (label, kind) = names(&message.method, &message.target);
        let raw = input.bytes[..message.size].to_vec();
        let asked_at = input.take(message.size);
        let parts = request_parts(&message);
        let closes = match session.ask(&label, &kind, &parts) {
            Outcome::Answer(exchange) => session.give_all(io, asked_at, &exchange.answer).await?,
            Outcome::Fail(text) => {
                io.write_all(&error(502, &text, &message)).await?;
                false
            }
            Outcome::Pass(text) => match pass(session, &mut upstream, &raw, &message).await {
                Ok((answer, response)) => {
                    io.write_all(&answer).await?;
                    let closes = response.closes;
                    session.passed(|| Exchange {
                        label,
                        kind,
                        request: parts,
                        response: http1::response_parts(&response),
                        sent: Sent::Raw(raw.into()),
                        answer: Answer::Raw {
                            pieces: match Answer::at_once(answer) {
                                Answer::Raw { pieces, .. } | Answer::Stream { pieces, .. } => pieces,
                            },
                            closes,
                        },
                        started_ns: u64::MAX,
                        waited: Some(asked_at.elapsed()),
                        whole: true,
                    });
                    closes
                }
                Err(error_text) => {
                    let text = format!("{text}; the real server: {error_text}");
                    io.write_all(&error(502, &text, &message)).await?;
                    upstream = None;
                    false
                }
            },
        };
        if closes || message.closes {
            break;
        }
    }
    io.shutdown().await
}

/// The caller's next request; none when it has no more.
async fn next(io: &mut UnixStream, input: &mut Input) -> io::Result<Option<Box<Message>>> {
    let mut was_told_to_go_on = false;
    loop {
        let part = match http1::request(&input.bytes) {
            Read::Message(message) => return Ok(Some(message)),
            Read::Part(part) => part,
            Read::Bad(why) => {
                let text = format!("the stub cannot read the request: {why}");
                io.write_all(&error(400, &text, &Message::default())).await?;
                return Ok(None);
            }
        };
        let expects = part.as_ref().and_then(|head| head.header("expect"));
        if expects.is_some_and(|what| what.eq_ignore_ascii_case("100-continue")) && !was_told_to_go_on {
            io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            was_told_to_go_on = true;
        }
        let size = part.as_ref().and_then(|head| {
            let length = head.header("content-length")?.trim().parse::<usize>().ok()?;
            head.head.checked_add(length)
        });
        // Not looked at again until it can be whole: a long body comes in many pieces.
        loop {
            if !input.more(io).await? {
                return Ok(None);
            }
            let may_be_whole = match size {
                Some(size) => input.bytes.len() >= size,
                None => input.bytes.ends_with(b"\n"),
            };
            if may_be_whole || part.is_none() {
                break;
            }
        }
    }
}

/// An answer of the stub's own.
fn error(status: u16, text: &str, asked: &Message) -> Vec<u8> {
    let reason = if status == 400 {
        "Bad Request"
    } else {
        "Bad Gateway"
    };
    let body = format!("spike stub: {text}\n");
    let mut answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         X-Spike: miss\r\n\r\n",
        body.len()
    );
    if asked.method != "HEAD" {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

/// Has the real server answer.
async fn pass(
    session: &Session,
    upstream: &mut Option<Upstream>,
    raw: &[u8],
    asked: &Message,
) -> Result<(Vec<u8>, Box<Message>), String> {
    let connection = match upstream {
        Some(connection) => connection,
        None => upstream.insert(Upstream::connect(session).await?),
    };
    connection.send(raw).await?;
    let started = Instant::now();
    let mut interim = 0;
    loop {
        let ended = connection.ended;
        match http1::response(&connection.bytes[interim..], &asked.method, ended) {
            Read::Message(response) if (100..200).contains(&response.status) && response.status != 101 => {
                interim += response.size;
            }
            Read::Message(response) => {
                let end = interim + response.size;
                let answer = connection.bytes[interim..end].to_vec();
                connection.bytes.drain(..end);
                if response.closes {
                    *upstream = None;
                }
                return Ok((answer, response));
            }
            Read::Part(_) if ended => return Err("it ended the connection".to_owned()),
            Read::Part(_) => connection.more(started).await?,
            Read::Bad(why) => return Err(why.to_owned()),
        }
    }
}
