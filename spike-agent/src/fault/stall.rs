//! Holds a direction still: nothing is taken in, so that the sender's bytes wait where they are and none is lost.

use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::stage::{Chunk, forward};

/// Holds a direction still until its fault is removed.
#[derive(Debug)]
pub struct Stall {
    /// The fault's end.
    pub removed: CancellationToken,
}

impl Stall {
    pub(super) async fn run(self, chunk_rx: Receiver<Chunk>, chunk_tx: Sender<Chunk>) {
        self.removed.cancelled().await;
        forward(chunk_rx, chunk_tx).await;
    }
}
