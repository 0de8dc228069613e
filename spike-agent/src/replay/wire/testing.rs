//! Recorded connections for tests of protocols.

use super::Recorded;
use crate::replay::flow::Flow;

/// A connection on which each side sent these bytes at once: the client at 1 ms, the server at 3 ms.
pub(in crate::replay) fn recorded(protocol: &str, client: &[u8], server: &[u8]) -> Recorded {
    let flow = |at: u64, bytes: &[u8]| {
        Flow::new([(0, at, bytes.to_vec())], bytes.len() as u64).expect("a short flow")
    };
    Recorded {
        connection: 1,
        protocol: Some(protocol.to_owned()),
        server: "127.0.0.1:80".to_owned(),
        client: flow(1_000_000, client),
        answers: flow(3_000_000, server),
        ..Recorded::default()
    }
}
