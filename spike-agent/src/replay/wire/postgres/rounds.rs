//! What a client sends together, up to the message after which the server says that it is ready: so it is sent again.

use std::sync::Arc;

use super::{
    message::frame,
    walk::{Asked, State, answer_end, row_parts},
};
use crate::replay::{exchange::Exchange, wire::Recorded};

/// The rounds of a connection behind its start, which ends at these positions of what either side sent.
pub(super) fn rounds(recorded: &Recorded, mut at: usize, mut told_at: usize) -> Vec<Arc<Exchange>> {
    let (client, server) = (recorded.client.bytes(), recorded.answers.bytes());
    let mut rounds = Vec::new();
    let mut state = State::default();
    let mut start = at;
    let mut named: Option<Asked> = None;
    let next = |at: usize| frame(&client[at..]).ok().flatten();
    while let Some((kind, size)) = next(at).filter(|(kind, _)| *kind != b'X') {
        let message = at..at + size;
        at = message.end;
        // What proved who the client was.
        if kind == b'p' {
            start = at;
            continue;
        }
        let asked = state.follow(kind, &client[message]);
        // What is executed names the round, else what comes first.
        if asked.is_some() && (named.is_none() || kind == b'E') {
            named = asked;
        }
        if !matches!(kind, b'Q' | b'S' | b'F') {
            continue;
        }
        // Rows that the server asked for.
        let mut has_rows = false;
        while let Some((b'd' | b'c' | b'f', size)) = next(at) {
            (at, has_rows) = (at + size, true);
        }
        // While it took them, it did not hear the first one.
        if has_rows
            && kind == b'S'
            && let Some((b'S', size)) = next(at)
        {
            at += size;
        }
        let Some(end) = answer_end(server, told_at, b'Q') else {
            break;
        };
        let (sent, answer) = (start..at, told_at..end);
        (start, told_at) = (at, end);
        let asked = named.take().unwrap_or_else(|| Asked {
            label: "sync".to_owned(),
            kind: "sync".to_owned(),
            ..Asked::default()
        });
        let parts = [asked.parts, row_parts(&server[answer.clone()])];
        let round = recorded.exchange([asked.label, asked.kind], parts, sent, answer, false);
        rounds.push(round.into());
    }
    rounds
}
