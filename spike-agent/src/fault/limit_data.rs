//! Closes a connection after a number of bytes, as a server does that dies in the middle of an answer.

use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::stage::{Chunk, Content, Next, receive};

/// Closes a connection after a number of bytes.
#[derive(Debug)]
pub struct LimitData {
    /// How many bytes pass before, counted from the start of the direction.
    pub bytes: u64,
}

impl LimitData {
    pub(super) async fn run(
        self,
        chunk_rx: &mut Receiver<Chunk>,
        chunk_tx: &Sender<Chunk>,
        interrupt: &CancellationToken,
    ) -> Next {
        loop {
            let mut chunk = match receive(chunk_rx, interrupt).await {
                Ok(chunk) => chunk,
                Err(next) => return next,
            };
            let left = self.bytes.saturating_sub(chunk.position);
            let is_reached = chunk.has_more() && chunk.len() as u64 >= left;
            if is_reached {
                chunk = chunk.split_to(usize::try_from(left).unwrap_or(usize::MAX));
            }
            let end = chunk.position + chunk.len() as u64;
            let is_last = is_reached || !chunk.has_more();
            if (!chunk.is_empty() || !chunk.has_more()) && chunk_tx.send(chunk.go_on()).await.is_err() {
                return Next::Over;
            }
            if is_reached {
                let _ = chunk_tx.send(Chunk::now(end, Content::Cut)).await;
            }
            if is_last {
                return Next::Over;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn exactly_so_many_bytes_pass() {
        for (bytes, lengths) in [
            (10, &[4, 4, 2][..]),
            (8, &[4, 4]),
            (3, &[3]),
            (0, &[]),
            (12, &[4, 4, 4]),
        ] {
            let (in_tx, mut in_rx) = mpsc::channel(9);
            let (out_tx, mut out_rx) = mpsc::channel(9);
            for index in 0..3 {
                let four = Content::Bytes(Bytes::from_static(b"four"));
                in_tx.send(Chunk::now(index * 4, four)).await.unwrap();
            }
            let interrupt = CancellationToken::new();
            LimitData { bytes }.run(&mut in_rx, &out_tx, &interrupt).await;
            drop(out_tx);
            for length in lengths {
                assert_eq!(out_rx.recv().await.unwrap().len(), *length, "of {bytes}");
            }
            assert!(matches!(out_rx.recv().await.unwrap().content, Content::Cut));
            assert!(out_rx.recv().await.is_none());
        }
    }
}
