//! Holds a direction still: nothing is taken in, so that the sender's bytes wait where they are and none is lost.

use std::time::Instant;

use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::{
    stage::{Chunk, Content, Next},
    timer,
};

/// Holds a direction still until it is interrupted.
#[derive(Debug)]
pub struct Stall {
    /// When the connection is closed; none: never.
    pub cut_at: Option<Instant>,
}

impl Stall {
    pub(super) async fn run(self, chunk_tx: &Sender<Chunk>, interrupt: &CancellationToken) -> Next {
        let time_is_over = async {
            match self.cut_at {
                Some(cut_at) => timer::until(cut_at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = interrupt.cancelled() => Next::More,
            () = time_is_over => {
                let _ = chunk_tx.send(Chunk::now(0, Content::Cut)).await;
                Next::Over
            }
        }
    }
}
