//! Gives decoded calls to whoever follows them; without a follower it costs nothing.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::protocol::Call;

/// Calls that wait for a slow follower; it then misses the oldest, and is told how many.
const WAITING: usize = 16_384;

/// A call and the edge it belongs to.
#[derive(Clone, Debug)]
pub struct EdgeCall {
    /// The kernel side's number of the edge.
    pub edge: u64,
    /// What was decoded.
    pub call: Call,
}

/// Where followers get the calls from.
#[derive(Clone, Debug)]
pub struct Feed(broadcast::Sender<Arc<EdgeCall>>);

/// What a follower gets.
#[derive(Clone, Debug)]
pub enum Followed {
    /// The next call.
    Call(Arc<EdgeCall>),
    /// So many were missed: the follower is too slow.
    Missed(u64),
}

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

impl Feed {
    /// Follows the calls from now on, until the stream is dropped or the agent ends.
    pub fn follow(&self) -> impl futures_util::Stream<Item = Followed> + Send + use<> {
        futures_util::stream::unfold(self.0.subscribe(), |mut calls| async move {
            match calls.recv().await {
                Ok(call) => Some((Followed::Call(call), calls)),
                Err(broadcast::error::RecvError::Lagged(count)) => Some((Followed::Missed(count), calls)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
    }

    /// Gives calls to the followers of now.
    pub fn give(&self, calls: &mut Vec<EdgeCall>) {
        if self.0.receiver_count() == 0 {
            calls.clear();
            return;
        }
        for call in calls.drain(..) {
            // Without a receiver by now it is dropped, as above.
            let _ = self.0.send(Arc::new(call));
        }
    }
}
