//! One direction of a connection through the effects of one fault, which may change while bytes are on their way.
//!
//! A change interrupts the stages: what they hold goes on at once and in order, and new stages take over with the next
//! byte. Whoever changes a fault waits for none of this.

use futures_util::future::{self, BoxFuture};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{
    stage::{Chunk, Next, Stage, forward},
    taken::Taken,
};
use crate::model::Direction;

/// One direction of a connection through the effects of one fault.
#[derive(Clone, Debug)]
pub struct Lane {
    taken: Taken,
    way: Direction,
}

impl Lane {
    /// Of the bytes that go `way`, which is not both.
    pub fn new(taken: Taken, way: Direction) -> Self {
        Self { taken, way }
    }

    /// True when the fault does nothing to this direction now.
    pub fn is_idle(&mut self) -> bool {
        self.taken.stages(self.way).is_empty()
    }

    /// Waits until the fault is changed or removed.
    pub async fn changed(&mut self) {
        self.taken.changed().await;
    }

    /// `socket or previous lane --Chunk--> this lane --Chunk--> next lane or socket`, until nothing more comes.
    pub async fn run(mut self, mut chunk_rx: Receiver<Chunk>, chunk_tx: Sender<Chunk>) {
        loop {
            let stages = self.taken.stages(self.way);
            let interrupt = CancellationToken::new();
            let mut running = std::pin::pin!(through(stages, &mut chunk_rx, &chunk_tx, &interrupt));
            let next = tokio::select! {
                biased;
                () = self.taken.changed() => {
                    interrupt.cancel();
                    running.await
                }
                next = &mut running => next,
            };
            if next == Next::Over {
                return;
            }
        }
    }
}

/// Through stages, one after the other, each channel between them of one chunk.
async fn through(
    stages: Vec<Stage>,
    chunk_rx: &mut Receiver<Chunk>,
    chunk_tx: &Sender<Chunk>,
    interrupt: &CancellationToken,
) -> Next {
    let count = stages.len();
    let mut stages = stages.into_iter();
    let Some(first) = stages.next() else {
        return forward(chunk_rx, chunk_tx, interrupt).await;
    };
    if count == 1 {
        return first.run(chunk_rx, chunk_tx, interrupt).await;
    }
    let (first_tx, mut between_rx) = mpsc::channel(1);
    let first = async move { first.run(chunk_rx, &first_tx, interrupt).await };
    let mut others: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(count - 1);
    for (index, stage) in (2..).zip(stages) {
        let (next_tx, next_rx) = if index == count {
            (chunk_tx.clone(), None)
        } else {
            let (next_tx, next_rx) = mpsc::channel(1);
            (next_tx, Some(next_rx))
        };
        others.push(Box::pin(not_first(stage, between_rx, next_tx, interrupt)));
        match next_rx {
            Some(next_rx) => between_rx = next_rx,
            None => break,
        }
    }
    future::join(first, future::join_all(others)).await.0
}

/// After an interrupt it passes on what the stages before it still let out.
async fn not_first(
    stage: Stage,
    mut chunk_rx: Receiver<Chunk>,
    chunk_tx: Sender<Chunk>,
    interrupt: &CancellationToken,
) {
    if stage.run(&mut chunk_rx, &chunk_tx, interrupt).await == Next::More {
        forward(&mut chunk_rx, &chunk_tx, &CancellationToken::new()).await;
    }
}
