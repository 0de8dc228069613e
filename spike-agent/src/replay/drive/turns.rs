//! Lets requests go out in their recorded order: tasks that wake up at nearly the same time would overtake each other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::fault::timer;

/// How long a request waits, past its time, for one before it: that one may be waiting for its connection.
const PATIENCE: Duration = Duration::from_millis(20);

/// Which request is next.
#[derive(Debug)]
pub(super) struct Turns(watch::Sender<usize>);

/// When one request may go out; it is over, at the latest, when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// None where the order is nobody's matter.
    turns: Option<Arc<Turns>>,
    number: usize,
    due: Instant,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(0)))
    }

    /// The turn of the request of this number, which is due then.
    pub(super) fn of(self: &Arc<Self>, number: usize, due: Instant) -> Turn {
        Turn {
            turns: Some(self.clone()),
            number,
            due,
        }
    }
}

impl Turn {
    /// At once.
    pub(super) fn now() -> Self {
        Self {
            turns: None,
            number: 0,
            due: Instant::now(),
        }
    }

    /// When it is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Waits until it is due and those before have gone out.
    pub(super) async fn comes(&self) {
        timer::until(self.due).await;
        if let Some(turns) = &self.turns {
            let mut next_rx = turns.0.subscribe();
            tokio::select! {
                _ = next_rx.wait_for(|next| *next >= self.number) => {}
                () = timer::until(self.due + PATIENCE) => {}
            }
        }
    }

    /// It has gone out.
    pub(super) fn is_over(&self) {
        if let Some(turns) = &self.turns {
            let next = self.number + 1;
            turns.0.send_if_modified(|known| {
                let is_later = next > *known;
                *known = next.max(*known);
                is_later
            });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.is_over();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_order_is_kept_and_who_does_not_come_holds_nobody_up_for_long() {
        let (turns, due) = (Turns::new(), Instant::now() + Duration::from_millis(5));
        let gone = Arc::new(Mutex::new(Vec::new()));
        // The second never goes out.
        let missing = turns.of(1, due);
        let tasks: Vec<_> = [3, 2, 0, 4]
            .map(|number| {
                let (turn, gone) = (turns.of(number, due), gone.clone());
                tokio::spawn(async move {
                    turn.comes().await;
                    gone.lock().unwrap().push((number, Instant::now()));
                    turn.is_over();
                })
            })
            .into();
        for task in tasks {
            task.await.unwrap();
        }
        drop(missing);
        // All before have gone out, or never will.
        let late = turns.of(5, due);
        late.comes().await;
        let gone = gone.lock().unwrap();
        let first = gone[0];
        assert_eq!((gone.len(), first.0), (4, 0));
        assert!(gone[1..].iter().all(|(_, at)| *at >= due + PATIENCE), "{gone:?}");
    }
}
