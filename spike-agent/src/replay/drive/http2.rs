//! Sends requests of HTTP/2 and gRPC, all on one connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{sync::Mutex, time::timeout};

use super::{Shared as Sending, compare::Outcome, plan::Step, turns::Turn};
use crate::replay::{
    exchange::{Answer, Header, Sent},
    parts::Parts,
    stub::http2::ask,
    wire::http2::response_parts,
};

/// The connection, once there is one.
#[derive(Default)]
pub(super) struct Shared(Mutex<Option<SendRequest<Bytes>>>);

impl Shared {
    /// Sends a request in its turn and judges its answer.
    pub(super) async fn send(&self, step: &Step, shared: &Sending, turn: Turn) -> Outcome {
        let due = turn.due();
        let client = match self.client(shared).await {
            Ok(client) => client,
            Err(why) => return shared.judge(step, due, None, Err(why)),
        };
        turn.comes().await;
        let Sent::Stream { head, body } = &step.exchange.sent else {
            return shared.judge(step, due, None, Err("not a request of HTTP/2".to_owned()));
        };
        let sent = Instant::now();
        let head = changed(head, shared);
        let asked = ask(client, &head, body.clone(), || turn.is_over());
        let patience = shared.options.patience;
        let answer = match timeout(patience, asked).await {
            Ok(Ok(answer)) => Ok(told(&answer)),
            Ok(Err(error)) => {
                // The next one connects anew.
                *self.0.lock().await = None;
                Err(error.to_string())
            }
            Err(_) => Err(format!("no answer within {patience:?}")),
        };
        shared.judge(step, due, Some(sent), answer)
    }

    async fn client(&self, shared: &Sending) -> Result<SendRequest<Bytes>, String> {
        let mut kept = self.0.lock().await;
        if let Some(client) = &*kept {
            return Ok(client.clone());
        }
        let stream = shared.options.target.connect().await?;
        let (client, connection) = h2::client::handshake(stream)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(kept.insert(client).clone())
    }
}

fn told(answer: &Answer) -> (Parts, Duration) {
    match answer {
        Answer::Stream {
            head,
            after,
            trailers,
            ..
        } => (response_parts(head, &answer.bytes(), trailers.as_deref()), *after),
        Answer::Raw { .. } => (Parts::default(), Duration::ZERO),
    }
}

/// The recorded fields as they are sent now.
fn changed(head: &[Header], shared: &Sending) -> Vec<Header> {
    let changes = &shared.options.changes;
    let replacements = shared.replacements();
    let is_set = |name: &[u8]| {
        changes
            .headers
            .iter()
            .any(|(set, _)| set.as_bytes().eq_ignore_ascii_case(name))
    };
    let mut fields = Vec::new();
    for (name, value) in head.iter().filter(|(name, _)| !is_set(name)) {
        let value = if name == ":authority" && !changes.keep_host {
            shared.options.target.to_string().into()
        } else {
            match str::from_utf8(value) {
                Ok(text) => replacements
                    .iter()
                    .fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
                    .into(),
                Err(_) => value.clone(),
            }
        };
        fields.push((name.clone(), value));
    }
    for (name, value) in &changes.headers {
        fields.push((name.to_ascii_lowercase().into(), value.clone().into()));
    }
    fields
}
