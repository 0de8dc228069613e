//! Conversations of real clients and servers, recorded by `scripts/record_sample.py`.

use crate::protocol::{Call, Conversation, End, Losses, Side};

/// Feeds a sample to a new conversation; the times are in microseconds, as in the file.
pub(crate) fn play(sample: &str, server_port: u16) -> (Vec<Call>, Losses) {
    let whole = play_in_pieces(sample, server_port, usize::MAX);
    // However it is cut.
    for size in [1, 7, 1000] {
        assert_eq!(
            whole,
            play_in_pieces(sample, server_port, size),
            "in pieces of {size}"
        );
    }
    whole
}

/// Operation, target and status of each call.
pub(crate) fn told(calls: &[Call]) -> Vec<(&str, &str, &str)> {
    calls
        .iter()
        .map(|call| {
            (
                &*call.operation,
                &*call.target,
                call.status.as_deref().unwrap_or("-"),
            )
        })
        .collect()
}

fn play_in_pieces(sample: &str, server_port: u16, size: usize) -> (Vec<Call>, Losses) {
    let (mut conversation, mut calls) = (Conversation::new(server_port), Vec::new());
    for line in sample.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let side = match words.next() {
            Some("C") => Side::Client,
            Some("S") => Side::Server,
            _ => break,
        };
        let at = words.next().and_then(|at| at.parse().ok()).unwrap();
        for piece in bytes(words.next().unwrap()).chunks(size) {
            conversation.data(side, at, piece, &mut calls);
        }
    }
    let end = sample.lines().find_map(|line| line.strip_prefix("E ")).unwrap();
    conversation.end(end.parse().unwrap(), End::Closed, &mut calls);
    (calls, conversation.losses())
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
