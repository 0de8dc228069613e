//! Cuts a direction into small pieces with pauses between them, which finds readers that take one read for one message.
//!
//! Where the cuts are comes from the seed and the position in the direction, and not from how the bytes happened to
//! arrive.

use std::time::{Duration, Instant};

use spike_common::chance;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{
    stage::{Chunk, Next, receive},
    timer,
};

/// Lets bytes out in small pieces.
#[derive(Debug)]
pub struct Slicer {
    /// Average size of a piece in bytes, from 1.
    pub size: u32,
    /// Sizes are spread evenly over `size` ± this; below `size`.
    pub variation: u32,
    /// Pause after each piece.
    pub delay: Duration,
    /// Of this connection and direction.
    pub seed: u64,
}

impl Slicer {
    pub(super) async fn run(
        self,
        chunk_rx: &mut Receiver<Chunk>,
        chunk_tx: &Sender<Chunk>,
        interrupt: &CancellationToken,
    ) -> Next {
        // Where the piece that is being let out ends; none before the first.
        let mut cut = None;
        // When the next piece may begin.
        let mut free_at = None::<Instant>;
        loop {
            let mut chunk = match receive(chunk_rx, interrupt).await {
                Ok(chunk) => chunk,
                Err(next) => return next,
            };
            while chunk.has_more() && !chunk.is_empty() && !interrupt.is_cancelled() {
                if cut == Some(chunk.position) || cut.is_none() {
                    if let Some(free_at) = free_at {
                        tokio::select! {
                            () = timer::until(free_at) => {}
                            () = interrupt.cancelled() => break,
                        }
                    }
                    cut = Some(chunk.position + self.piece_at(chunk.position));
                }
                let left = cut.unwrap_or(chunk.position) - chunk.position;
                let piece = chunk.split_to(usize::try_from(left).unwrap_or(usize::MAX));
                if chunk_tx.send(piece.go_on()).await.is_err() {
                    return Next::Over;
                }
                if cut == Some(chunk.position) && !self.delay.is_zero() {
                    free_at = Some(Instant::now() + self.delay);
                }
            }
            let has_more = chunk.has_more();
            if (!has_more || !chunk.is_empty()) && chunk_tx.send(chunk.go_on()).await.is_err() {
                return Next::Over;
            }
            if !has_more {
                return Next::Over;
            }
        }
    }

    /// Size of the piece that begins at a position, from 1.
    fn piece_at(&self, position: u64) -> u64 {
        let (size, variation) = (u64::from(self.size), u64::from(self.variation));
        let width = 2 * variation + 1;
        // The high half of a product is even over the width.
        let shift = (u64::from(chance::roll(self.seed, position)) * width) >> 32;
        size - variation + shift
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::fault::stage::Content;

    /// Sizes of the pieces that come out when 10,000 bytes come in as `chunks` of equal size.
    async fn pieces(chunks: usize) -> Vec<usize> {
        let slicer = Slicer {
            size: 50,
            variation: 20,
            delay: Duration::ZERO,
            seed: 7,
        };
        let (in_tx, mut in_rx) = mpsc::channel(2000);
        let (out_tx, mut out_rx) = mpsc::channel(20_000);
        let length = 10_000 / chunks;
        for index in 0..chunks {
            let bytes = Bytes::from(vec![7; length]);
            let chunk = Chunk::now((index * length) as u64, Content::Bytes(bytes));
            in_tx.send(chunk).await.unwrap();
        }
        in_tx.send(Chunk::now(10_000, Content::End)).await.unwrap();
        let next = slicer.run(&mut in_rx, &out_tx, &CancellationToken::new()).await;
        assert_eq!(next, Next::Over);
        drop(out_tx);
        let (mut sizes, mut position) = (Vec::new(), 0);
        while let Some(chunk) = out_rx.recv().await {
            assert_eq!(chunk.position, position);
            position += chunk.len() as u64;
            sizes.push(chunk.len());
        }
        assert_eq!((sizes.pop(), position), (Some(0), 10_000));
        sizes
    }

    #[tokio::test]
    async fn pieces_have_the_sizes_that_were_asked_for() {
        let sizes = pieces(1).await;
        let (last, others) = sizes.split_last().unwrap();
        assert!(
            *last <= 70 && others.iter().all(|size| (30..=70).contains(size)),
            "{sizes:?}"
        );
        assert!((160..250).contains(&sizes.len()), "{}", sizes.len());
        assert!(others.iter().any(|size| *size < 40) && others.iter().any(|size| *size > 60));
    }

    #[tokio::test]
    async fn cuts_do_not_depend_on_how_bytes_arrive() {
        let ends = |sizes: Vec<usize>| {
            let sum = |sum: &mut usize, size: usize| {
                *sum += size;
                Some(*sum)
            };
            sizes.into_iter().scan(0, sum).collect::<Vec<_>>()
        };
        let at_once = ends(pieces(1).await);
        let in_tens = ends(pieces(1000).await);
        assert!(at_once.iter().all(|end| in_tens.contains(end)));
    }
}
