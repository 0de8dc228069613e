//! One step on a connection's way in one direction: takes chunks in, and lets them out later, in the same order.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{
    bandwidth::Bandwidth, corrupt::Corrupt, latency::Latency, limit_data::LimitData, slicer::Slicer,
    slow_close::SlowClose, stall::Stall,
};

/// Something read from a connection.
#[derive(Debug)]
pub struct Chunk {
    /// When it came to the stage that takes it in.
    pub at: Instant,
    /// How many bytes of the direction came before it.
    pub position: u64,
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
    /// The connection is to be closed here; nothing follows.
    Cut,
}

impl Chunk {
    /// A chunk that has just come.
    pub fn now(position: u64, content: Content) -> Self {
        Self {
            at: Instant::now(),
            position,
            content,
        }
    }

    /// The same as it comes to the next stage now.
    pub fn go_on(self) -> Self {
        Self::now(self.position, self.content)
    }

    /// Splits the first `length` of its bytes off; the rest stays.
    pub(super) fn split_to(&mut self, length: usize) -> Self {
        let content = match &mut self.content {
            Content::Bytes(bytes) => Content::Bytes(bytes.split_to(length.min(bytes.len()))),
            _ => Content::Bytes(Bytes::new()),
        };
        let first = Self {
            at: self.at,
            position: self.position,
            content,
        };
        self.position += first.len() as u64;
        first
    }

    /// How many bytes it carries.
    pub fn len(&self) -> usize {
        match &self.content {
            Content::Bytes(bytes) => bytes.len(),
            Content::End | Content::Reset | Content::Cut => 0,
        }
    }

    /// True when it carries no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when another can follow it.
    pub fn has_more(&self) -> bool {
        matches!(self.content, Content::Bytes(_))
    }
}

/// Whether there is more to come when a stage has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It was interrupted; what it held went on.
    More,
    /// Nothing follows what it let out, or nobody takes it.
    Over,
}

/// What one effect does to one direction of a connection, until it is interrupted.
#[derive(Debug)]
pub enum Stage {
    /// Lets each chunk out later.
    Latency(Latency),
    /// Lets bytes out no faster than a rate.
    Bandwidth(Bandwidth),
    /// Lets nothing out.
    Stall(Stall),
    /// Lets the end out later.
    SlowClose(SlowClose),
    /// Lets bytes out in small pieces.
    Slicer(Slicer),
    /// Closes the connection after a number of bytes.
    LimitData(LimitData),
    /// Flips bits.
    Corrupt(Corrupt),
}

impl Stage {
    /// `previous stage --Chunk--> this stage --Chunk--> next stage`, until there is nothing more to come, or until
    /// `interrupt`: then all that it holds goes on at once, in order.
    pub async fn run(
        self,
        chunk_rx: &mut Receiver<Chunk>,
        chunk_tx: &Sender<Chunk>,
        interrupt: &CancellationToken,
    ) -> Next {
        match self {
            Self::Latency(latency) => latency.run(chunk_rx, chunk_tx, interrupt).await,
            Self::Bandwidth(bandwidth) => bandwidth.run(chunk_rx, chunk_tx, interrupt).await,
            Self::Stall(stall) => stall.run(chunk_tx, interrupt).await,
            Self::SlowClose(close) => close.run(chunk_rx, chunk_tx, interrupt).await,
            Self::Slicer(slicer) => slicer.run(chunk_rx, chunk_tx, interrupt).await,
            Self::LimitData(limit) => limit.run(chunk_rx, chunk_tx, interrupt).await,
            Self::Corrupt(corrupt) => corrupt.run(chunk_rx, chunk_tx, interrupt).await,
        }
    }
}

/// The next chunk; none when there is none or on `interrupt`, and which of the two.
pub(super) async fn receive(
    chunk_rx: &mut Receiver<Chunk>,
    interrupt: &CancellationToken,
) -> Result<Chunk, Next> {
    tokio::select! {
        biased;
        () = interrupt.cancelled() => Err(Next::More),
        chunk = chunk_rx.recv() => chunk.ok_or(Next::Over),
    }
}

/// Passes on all that comes, until `interrupt`.
pub(super) async fn forward(
    chunk_rx: &mut Receiver<Chunk>,
    chunk_tx: &Sender<Chunk>,
    interrupt: &CancellationToken,
) -> Next {
    loop {
        match receive(chunk_rx, interrupt).await {
            Ok(chunk) => {
                if chunk_tx.send(chunk.go_on()).await.is_err() {
                    return Next::Over;
                }
            }
            Err(next) => return next,
        }
    }
}
