//! Bytes of a protocol that is not known: turns of a conversation.

use super::Recorded;
use crate::replay::{
    exchange::Talk,
    parts::{Parts, text_of},
};

/// What bytes say.
pub fn parts(bytes: &[u8]) -> Parts {
    let mut parts = Parts::default();
    if !bytes.is_empty() {
        parts.push("bytes", text_of(bytes));
    }
    parts
}

/// As bytes are shown.
pub fn label(bytes: &[u8]) -> String {
    let start: String = bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{} bytes {start}", bytes.len())
}

/// Who spoke when: runs of one side's bytes, each ended by the other side's next one.
pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    let mut chunks: Vec<(u64, bool, usize, usize)> = Vec::new();
    for (is_server, flow) in [(false, &recorded.client), (true, &recorded.answers)] {
        for (start, end, at) in flow.chunks() {
            chunks.push((at, is_server, start, end));
        }
    }
    // Stable: what came at the same time stays in order, the client's first.
    chunks.sort_by_key(|(at, is_server, start, _)| (*at, *is_server, *start));
    let mut turns: Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> = vec![(0..0, 0..0)];
    for (_, is_server, start, end) in chunks {
        let Some((client, server)) = turns.last_mut() else {
            return;
        };
        if is_server {
            server.end = end;
        } else if server.start == server.end {
            client.end = end;
        } else {
            let server = server.end..server.end;
            turns.push((start..end, server));
        }
    }
    if turns
        .first()
        .is_some_and(|(client, _)| client.start == client.end)
    {
        talk.greeting = recorded.answers.bytes().slice(turns[0].1.clone());
        turns.remove(0);
    }
    let last = turns.len().saturating_sub(1);
    for (index, (client, server)) in turns.into_iter().enumerate() {
        let bytes = recorded.client.bytes().slice(client.clone());
        let names = [label(&bytes), "bytes".to_owned()];
        let parts = [parts(&bytes), parts(&recorded.answers.bytes()[server.clone()])];
        let closes = index == last && recorded.closed;
        let exchange = recorded.exchange(names, parts, client, server, closes);
        talk.exchanges.push(exchange.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{
        exchange::{Answer, Sent},
        flow::Flow,
    };

    #[test]
    fn turns_are_told_by_who_speaks() {
        let flow = |chunks: &[(u64, u64, &[u8])]| {
            let sent = chunks.last().map_or(0, |(at, _, bytes)| at + bytes.len() as u64);
            Flow::new(
                chunks
                    .iter()
                    .map(|(at, time, bytes)| (*at, *time, bytes.to_vec())),
                sent,
            )
            .unwrap()
        };
        let recorded = Recorded {
            client: flow(&[(0, 10, b"a"), (1, 11, b"b"), (2, 40, b"c")]),
            answers: flow(&[(0, 5, b"hello"), (5, 20, b"X"), (6, 30, b"Y"), (7, 50, b"Z")]),
            closed: true,
            ..Recorded::default()
        };
        let talk = recorded.split();
        assert_eq!(&talk.greeting[..], b"hello");
        let turns: Vec<_> = talk
            .exchanges
            .iter()
            .map(|turn| (turn.sent.clone(), turn.answer.bytes()))
            .collect();
        assert_eq!(
            turns,
            [
                (Sent::Raw("ab".into()), b"XY".to_vec()),
                (Sent::Raw("c".into()), b"Z".to_vec())
            ]
        );
        assert!(matches!(
            talk.exchanges[1].answer,
            Answer::Raw { closes: true, .. }
        ));
    }
}
