//! Sends requests of HTTP/1, each at its time, on whatever connection is free.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Shared, compare::Outcome, plan::Step, turns::Turn};
use crate::replay::{
    exchange::Sent,
    wire::http1::{self, Message, Read},
};

/// Fields that are made anew.
const MADE: [&str; 7] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "expect",
    "keep-alive",
    "te",
    "proxy-connection",
];

/// Connections that nobody uses now.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<TcpStream>>);

impl Pool {
    /// Sends a request in its turn and judges its answer.
    pub(super) async fn send(&self, step: &Step, shared: &Shared, turn: Turn) -> Outcome {
        let due = turn.due();
        let (mut stream, is_new) = match self.take(shared).await {
            Ok(taken) => taken,
            Err(why) => return shared.judge(step, due, None, Err(why)),
        };
        // The values that earlier answers gave are there by now, or never.
        turn.comes().await;
        let Sent::Raw(raw) = &step.exchange.sent else {
            return shared.judge(step, due, None, Err("not a request of HTTP/1".to_owned()));
        };
        let request = match changed(raw, shared) {
            Ok(request) => request,
            Err(why) => return shared.judge(step, due, None, Err(why)),
        };
        let mut sent = Instant::now();
        let method = request.method.clone();
        let patience = shared.options.patience;
        let mut answered = exchange(&mut stream, &request.bytes, &method, &turn, patience).await;
        if answered.is_err() && !is_new {
            // The server had closed it meanwhile.
            if let Ok(fresh) = shared.options.target.connect().await {
                stream = fresh;
                sent = Instant::now();
                answered = exchange(&mut stream, &request.bytes, &method, &turn, patience).await;
            }
        }
        let answer = answered.map(|(response, latency)| {
            if !response.closes {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
            }
            (http1::response_parts(&response), latency)
        });
        shared.judge(step, due, Some(sent), answer)
    }

    async fn take(&self, shared: &Shared) -> Result<(TcpStream, bool), String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(stream) => Ok((stream, false)),
            None => Ok((shared.options.target.connect().await?, true)),
        }
    }
}

/// Sends bytes and reads the answer; tells how long its first byte took.
async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    method: &str,
    turn: &Turn,
    patience: Duration,
) -> Result<(Box<Message>, Duration), String> {
    let exchanged = async {
        stream
            .write_all(request)
            .await
            .map_err(|error| error.to_string())?;
        turn.is_over();
        let sent = Instant::now();
        let (mut bytes, mut latency, mut interim, mut ended) = (Vec::new(), None, 0, false);
        loop {
            match http1::response(&bytes[interim..], method, ended) {
                Read::Message(message) if (100..200).contains(&message.status) && message.status != 101 => {
                    interim += message.size;
                    continue;
                }
                Read::Message(message) => return Ok((message, latency.unwrap_or_default())),
                Read::Part(_) if ended => return Err("the connection ended before the answer".to_owned()),
                Read::Part(_) => {}
                Read::Bad(why) => return Err(format!("the answer: {why}")),
            }
            let read = stream.read_buf(&mut bytes).await;
            ended = read.map_err(|error| error.to_string())? == 0;
            latency.get_or_insert_with(|| sent.elapsed());
        }
    };
    let answered = timeout(patience, exchanged).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
}

struct Request {
    method: String,
    bytes: Vec<u8>,
}

/// A recorded request as it is sent now.
fn changed(raw: &[u8], shared: &Shared) -> Result<Request, String> {
    let Read::Message(message) = http1::request(raw) else {
        return Err("the recorded request is not whole".to_owned());
    };
    let replacements = shared.replacements();
    let replace = |text: &str| {
        replacements
            .iter()
            .fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    };
    let body = match str::from_utf8(&message.body) {
        Ok(text) => replace(text).into_bytes(),
        Err(_) => message.body.clone(),
    };
    let changes = &shared.options.changes;
    let mut head = format!("{} {} HTTP/1.1\r\n", message.method, replace(&message.target));
    let is_set = |name: &str| {
        changes
            .headers
            .iter()
            .any(|(set, _)| set.eq_ignore_ascii_case(name))
    };
    for (name, value) in &message.headers {
        let is_host = name.eq_ignore_ascii_case("host") && !changes.keep_host;
        let is_made = MADE.iter().any(|made| made.eq_ignore_ascii_case(name));
        if !is_host && !is_made && !is_set(name) {
            head = format!("{head}{name}: {}\r\n", replace(value));
        }
    }
    if !changes.keep_host && !is_set("host") {
        head = format!("{head}Host: {}\r\n", shared.options.target);
    }
    for (name, value) in &changes.headers {
        head = format!("{head}{name}: {value}\r\n");
    }
    if !body.is_empty() || message.header("content-length").is_some() {
        head = format!("{head}Content-Length: {}\r\n", body.len());
    }
    Ok(Request {
        method: message.method.clone(),
        bytes: [head.as_bytes(), b"\r\n", &body].concat(),
    })
}
