//! One step on a connection's way in one direction: takes chunks in, and lets them out later, in the same order.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender};

use super::{bandwidth::Bandwidth, latency::Latency, stall::Stall};

/// Something read from a connection.
#[derive(Debug)]
pub struct Chunk {
    /// When it came to the stage that takes it in.
    pub at: Instant,
    /// What was read.
    pub content: Content,
}

/// What was read from a connection.
#[derive(Debug)]
pub enum Content {
    /// Some bytes, at least one.
    Bytes(Bytes),
    /// The sender has no more to say; nothing follows.
    End,
    /// The sender broke the connection; nothing follows.
    Reset,
}

impl Chunk {
    /// A chunk that has just come.
    pub fn now(content: Content) -> Self {
        Self {
            at: Instant::now(),
            content,
        }
    }

    /// How many bytes it carries.
    pub fn len(&self) -> usize {
        match &self.content {
            Content::Bytes(bytes) => bytes.len(),
            Content::End | Content::Reset => 0,
        }
    }

    /// True when it carries no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What one fault does to one direction of a connection, until the fault is removed.
#[derive(Debug)]
pub enum Stage {
    /// Lets each chunk out later.
    Latency(Latency),
    /// Lets bytes out no faster than a rate.
    Bandwidth(Bandwidth),
    /// Lets nothing out.
    Stall(Stall),
}

impl Stage {
    /// `previous stage --Chunk--> this stage --Chunk--> next stage`, until there is nothing more to come.
    pub async fn run(self, chunk_rx: Receiver<Chunk>, chunk_tx: Sender<Chunk>) {
        match self {
            Self::Latency(latency) => latency.run(chunk_rx, chunk_tx).await,
            Self::Bandwidth(bandwidth) => bandwidth.run(chunk_rx, chunk_tx).await,
            Self::Stall(stall) => stall.run(chunk_rx, chunk_tx).await,
        }
    }
}

/// What a stage does once its fault is removed: passes on all that comes.
pub(super) async fn forward(mut chunk_rx: Receiver<Chunk>, chunk_tx: Sender<Chunk>) {
    while let Some(chunk) = chunk_rx.recv().await {
        if chunk_tx.send(Chunk::now(chunk.content)).await.is_err() {
            return;
        }
    }
}
