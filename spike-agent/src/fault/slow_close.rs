//! Lets the end of a direction arrive later, as a server does that lingers; bytes pass as they come.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{
    stage::{Chunk, Content, Next, receive},
    timer,
};

/// Delays the end of a direction.
#[derive(Debug)]
pub struct SlowClose {
    /// How much later it arrives.
    pub delay: Duration,
}

impl SlowClose {
    pub(super) async fn run(
        self,
        chunk_rx: &mut Receiver<Chunk>,
        chunk_tx: &Sender<Chunk>,
        interrupt: &CancellationToken,
    ) -> Next {
        loop {
            let chunk = match receive(chunk_rx, interrupt).await {
                Ok(chunk) => chunk,
                Err(next) => return next,
            };
            if matches!(chunk.content, Content::End) {
                tokio::select! {
                    () = timer::until(chunk.at + self.delay) => {}
                    () = interrupt.cancelled() => {}
                }
            }
            let has_more = chunk.has_more();
            if chunk_tx.send(chunk.go_on()).await.is_err() || !has_more {
                return Next::Over;
            }
        }
    }
}
