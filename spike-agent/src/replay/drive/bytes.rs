//! Sends what was said on one recorded connection on one new connection, in order: Redis, and bytes of any protocol.

use std::{sync::Arc, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    Shared,
    plan::{Lane, Step},
};
use crate::{
    fault::timer,
    protocol::ProtocolName,
    replay::{
        exchange::Sent,
        parts::Parts,
        wire::{raw, redis},
    },
};

/// Sends a lane; what cannot be sent any more fails.
pub(super) async fn send_all(lane: Lane, shared: Arc<Shared>, start: Instant) {
    let mut connection = shared.options.target.connect().await;
    let mut bytes = Vec::new();
    for step in &lane.steps {
        let due = start + step.due;
        timer::until(due).await;
        let stream = match &mut connection {
            Ok(stream) => stream,
            Err(why) => {
                shared.add(shared.judge(step, due, None, Err(why.clone())));
                continue;
            }
        };
        let sent = Instant::now();
        let is_redis = lane.protocol == Some(ProtocolName::Redis);
        let exchanged = exchange(stream, step, &shared, is_redis, &mut bytes);
        let patience = shared.options.patience;
        let answer = timeout(patience, exchanged).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")));
        let failed = answer.as_ref().err().cloned();
        shared.add(shared.judge(step, due, Some(sent), answer));
        if let Some(why) = failed {
            connection = Err(why);
        }
    }
}

async fn exchange(
    stream: &mut TcpStream,
    step: &Step,
    shared: &Shared,
    is_redis: bool,
    bytes: &mut Vec<u8>,
) -> Result<(Parts, std::time::Duration), String> {
    let Sent::Raw(asked) = &step.exchange.sent else {
        return Err("not bytes".to_owned());
    };
    let asked = if is_redis {
        changed(asked, shared)
    } else {
        asked.to_vec()
    };
    stream
        .write_all(&asked)
        .await
        .map_err(|error| error.to_string())?;
    let sent = Instant::now();
    let expected = step.exchange.answer.bytes().len();
    let mut latency = None;
    loop {
        let size = if is_redis {
            redis::reply(bytes)?
        } else {
            (bytes.len() >= expected).then_some(expected)
        };
        if let Some(size) = size {
            let answer: Vec<u8> = bytes.drain(..size).collect();
            let parts = if is_redis {
                redis::reply_parts(&answer)
            } else {
                raw::parts(&answer)
            };
            return Ok((parts, latency.unwrap_or_default()));
        }
        let read = stream.read_buf(bytes).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the connection ended before the answer".to_owned());
        }
        latency.get_or_insert_with(|| sent.elapsed());
    }
}

/// A command with what is to be replaced in its arguments.
fn changed(raw: &[u8], shared: &Shared) -> Vec<u8> {
    let replacements = shared.replacements();
    let Some(command) = redis::command(raw)
        .ok()
        .flatten()
        .filter(|_| !replacements.is_empty())
    else {
        return raw.to_vec();
    };
    let mut out = format!("*{}\r\n", command.arguments.len()).into_bytes();
    for argument in command.arguments {
        let argument = match String::from_utf8(argument) {
            Ok(text) => replacements
                .iter()
                .fold(text, |text, (old, new)| text.replace(old, new))
                .into_bytes(),
            Err(error) => error.into_bytes(),
        };
        out.extend(format!("${}\r\n", argument.len()).into_bytes());
        out.extend(argument);
        out.extend(b"\r\n");
    }
    out
}
