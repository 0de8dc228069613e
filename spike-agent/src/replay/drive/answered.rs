//! Keeps what depends on an answer from being sent before it: a statement that was sent when another connection's had been
//! answered may need what that one did.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::plan::Lane;

/// Which requests have been answered, counted in the order of their recorded answers.
#[derive(Debug)]
pub(super) struct Answered {
    done: Mutex<Vec<bool>>,
    /// So many from the first on, without a gap.
    count_tx: watch::Sender<usize>,
}

impl Answered {
    /// None of the requests of these lanes.
    pub(super) fn none_of(lanes: &[Lane]) -> Self {
        let steps = lanes.iter().map(|lane| lane.steps.len()).sum();
        Self {
            done: Mutex::new(vec![false; steps]),
            count_tx: watch::Sender::new(0),
        }
    }

    /// The request with this place in the order has its answer, or never will.
    pub(super) fn note(&self, place: usize) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = done.get_mut(place) {
            *done = true;
        }
        self.count_tx.send_if_modified(|count| {
            let before = *count;
            *count += done[before..].iter().take_while(|done| **done).count();
            *count > before
        });
    }

    /// Waits until the first `count` have theirs.
    pub(super) async fn up_to(&self, count: usize) {
        // The sender is this one.
        let _ = self.count_tx.subscribe().wait_for(|known| *known >= count).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_gap_is_waited_for() {
        let answered = Answered {
            done: Mutex::new(vec![false; 3]),
            count_tx: watch::Sender::new(0),
        };
        answered.up_to(0).await;
        for (place, count) in [(1, 0), (0, 2), (2, 3)] {
            answered.note(place);
            answered.up_to(count).await;
            let more = timeout(Duration::from_millis(1), answered.up_to(count + 1));
            assert!(more.await.is_err(), "{count}");
        }
    }
}
