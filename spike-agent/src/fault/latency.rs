//! A delay line: what goes in comes out later, in the same order, and as fast as it came in.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{Permit, Receiver, Sender, error::SendError};
use tokio_util::sync::CancellationToken;

use super::{
    delays::Delays,
    stage::{Chunk, Next},
    timer,
};
use crate::model::Distribution;

/// Most bytes that one delay line holds; when it is full its input has to wait, and throughput falls to this much a
/// delay.
pub const MAX_HELD: usize = 4 << 20;
/// What holding a chunk costs besides its bytes, so that single bytes are bounded too.
const CHUNK_COST: usize = 128;

/// Delays all bytes, and the end, of a direction.
#[derive(Debug)]
pub struct Latency {
    /// The middle of the delays, or the least.
    pub delay: Duration,
    /// How far they spread; at most `delay`.
    pub jitter: Duration,
    /// How they spread.
    pub distribution: Distribution,
    /// Of this connection and direction.
    pub seed: u64,
}

impl Latency {
    pub(super) async fn run(
        self,
        chunk_rx: &mut Receiver<Chunk>,
        chunk_tx: &Sender<Chunk>,
        interrupt: &CancellationToken,
    ) -> Next {
        let delays = Delays {
            delay: self.delay,
            jitter: self.jitter,
            distribution: self.distribution,
            seed: self.seed,
        };
        let mut held = Held::default();
        let mut next = Next::More;
        while next == Next::More || held.next_release.is_some() {
            tokio::select! {
                biased;
                () = interrupt.cancelled() => break,
                permit = release(held.next_release, chunk_tx) => match permit {
                    Ok(permit) => if let Some(chunk) = held.pop() {
                        permit.send(chunk.go_on());
                    },
                    Err(_) => return Next::Over,
                },
                chunk = chunk_rx.recv(), if next == Next::More && held.cost < MAX_HELD => match chunk {
                    Some(chunk) => {
                        let delay = delays.at(chunk.position);
                        held.push(chunk, delay);
                    }
                    None => next = Next::Over,
                },
            }
        }
        while let Some(chunk) = held.pop() {
            if chunk_tx.send(chunk.go_on()).await.is_err() {
                return Next::Over;
            }
        }
        next
    }
}

/// Waits until the first chunk may go and the next stage has room; for ever when there is none.
async fn release(
    time: Option<Instant>,
    chunk_tx: &Sender<Chunk>,
) -> Result<Permit<'_, Chunk>, SendError<()>> {
    match time {
        Some(time) => {
            timer::until(time).await;
            chunk_tx.reserve().await
        }
        None => std::future::pending().await,
    }
}

#[derive(Default)]
struct Held {
    /// With the time at which each may go; it never falls.
    chunks: VecDeque<(Instant, Chunk)>,
    /// When the first of `chunks` may go.
    next_release: Option<Instant>,
    /// Bytes that `chunks` takes up.
    cost: usize,
}

impl Held {
    fn push(&mut self, chunk: Chunk, delay: Duration) {
        let earliest = chunk.at + delay;
        let release = self
            .chunks
            .back()
            .map_or(earliest, |&(last, _)| last.max(earliest));
        self.cost += chunk.len() + CHUNK_COST;
        self.chunks.push_back((release, chunk));
        self.next_release.get_or_insert(release);
    }

    fn pop(&mut self) -> Option<Chunk> {
        let (_, chunk) = self.chunks.pop_front()?;
        self.cost -= chunk.len() + CHUNK_COST;
        self.next_release = self.chunks.front().map(|&(release, _)| release);
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::fault::stage::Content;

    fn line(delay: Duration) -> (Sender<Chunk>, Receiver<Chunk>, CancellationToken) {
        let interrupt = CancellationToken::new();
        let latency = Latency {
            delay,
            jitter: Duration::ZERO,
            distribution: Distribution::Uniform,
            seed: 1,
        };
        let (in_tx, mut in_rx) = mpsc::channel(1);
        let (out_tx, out_rx) = mpsc::channel(1);
        let interrupted = interrupt.clone();
        tokio::spawn(async move { latency.run(&mut in_rx, &out_tx, &interrupted).await });
        (in_tx, out_rx, interrupt)
    }

    fn bytes(length: usize) -> Chunk {
        Chunk::now(0, Content::Bytes(Bytes::from(vec![7; length])))
    }

    #[tokio::test]
    async fn many_chunks_travel_at_the_same_time() {
        let delay = Duration::from_millis(50);
        let (in_tx, mut out_rx, _removed) = line(delay);
        let start = Instant::now();
        for _ in 0..40 {
            in_tx.send(bytes(10)).await.unwrap();
        }
        in_tx.send(Chunk::now(0, Content::End)).await.unwrap();
        drop(in_tx);
        let mut count = 0;
        while let Some(chunk) = out_rx.recv().await {
            assert!(start.elapsed() >= delay);
            count += 1;
            assert_eq!(matches!(chunk.content, Content::End), count == 41);
        }
        assert_eq!(count, 41);
        assert!(start.elapsed() < delay + Duration::from_millis(500));
    }

    #[tokio::test]
    async fn a_full_line_makes_its_input_wait_and_an_interrupt_empties_it() {
        let (in_tx, mut out_rx, interrupt) = line(Duration::from_secs(3600));
        let sent = tokio::spawn(async move {
            for sent in 0.. {
                if tokio::time::timeout(Duration::from_millis(200), in_tx.send(bytes(64 << 10)))
                    .await
                    .is_err()
                {
                    return sent;
                }
            }
            0
        })
        .await
        .unwrap();
        let held = MAX_HELD >> 16;
        assert!((held..=held + 2).contains(&sent), "{sent}");
        interrupt.cancel();
        let mut count = 0;
        while out_rx.recv().await.is_some() {
            count += 1;
        }
        // What it had not yet taken in stays for what comes after it.
        assert!((sent - 1..=sent).contains(&count), "{count} of {sent}");
    }
}
