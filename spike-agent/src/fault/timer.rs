//! Waits more exactly than an async runtime's wheel of 1 ms, so that a delay of 2 ms is not one of 3 ms.
//!
//! One thread sleeps until the nearest deadline, with the least timer slack that the kernel grants, and wakes tasks.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    pin::Pin,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::Instant,
};

/// Waits until `deadline`. Dropping it before ends the wait and leaves nothing behind.
pub async fn until(deadline: Instant) {
    match timer() {
        Some(timer) => {
            Wait {
                timer,
                deadline,
                key: None,
            }
            .await;
        }
        // Coarser by up to 1 ms, but a fault that never lets go would be worse.
        None => tokio::time::sleep_until(deadline.into()).await,
    }
}

/// Deadlines, and numbers that tell equal ones apart.
type Key = (Instant, u64);

#[derive(Default)]
struct Timer {
    waiting: Mutex<Waiting>,
    /// Said when a deadline comes before all others.
    sooner: Condvar,
}

#[derive(Default)]
struct Waiting {
    wakers: BTreeMap<Key, Waker>,
    last_number: u64,
}

/// The process's one timer, `None` when its thread could not be started.
fn timer() -> Option<&'static Timer> {
    static TIMER: OnceLock<Option<&'static Timer>> = OnceLock::new();
    *TIMER.get_or_init(|| {
        let timer: &'static Timer = Box::leak(Box::default());
        thread::Builder::new()
            .name("spike-timer".to_owned())
            .spawn(|| timer.run())
            .inspect_err(
                |error| tracing::warn!(%error, "start the timer thread; delays are exact to 1 ms only"),
            )
            .ok()
            .map(|_| timer)
    })
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
            tracing::debug!(%error, "set the timer thread's slack");
        }
        let mut due = Vec::new();
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            while let Some(first) = waiting.wakers.first_entry()
                && first.key().0 <= now
            {
                due.push(first.remove());
            }
            if !due.is_empty() {
                drop(waiting);
                due.drain(..).for_each(Waker::wake);
                waiting = self.lock();
                continue;
            }
            let first = waiting
                .wakers
                .first_key_value()
                .map(|(&(deadline, _), _)| deadline);
            waiting = match first {
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let woken = self.sooner.wait_timeout(waiting, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.sooner.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

struct Wait {
    timer: &'static Timer,
    deadline: Instant,
    key: Option<Key>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let mut waiting = self.timer.lock();
        let key = self.key.unwrap_or_else(|| {
            waiting.last_number += 1;
            (self.deadline, waiting.last_number)
        });
        let is_first = waiting
            .wakers
            .first_key_value()
            .is_none_or(|(first, _)| key < *first);
        waiting.wakers.insert(key, context.waker().clone());
        drop(waiting);
        self.key = Some(key);
        if is_first {
            self.timer.sooner.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timer.lock().wakers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn waits_are_never_short_and_mostly_exact() {
        let mut lateness = Vec::new();
        for step in 1..=40_u32 {
            let deadline = Instant::now() + step * Duration::from_micros(137);
            until(deadline).await;
            let now = Instant::now();
            assert!(now >= deadline);
            lateness.push(now - deadline);
        }
        lateness.sort();
        // The median: a busy machine may hold single wake-ups back.
        assert!(lateness[20] < Duration::from_millis(1), "{lateness:?}");
    }

    #[tokio::test]
    async fn a_dropped_wait_leaves_nothing_behind() {
        let deadline = Instant::now() + Duration::from_secs(3600);
        let given_up = tokio::time::timeout(Duration::from_millis(5), until(deadline));
        assert!(given_up.await.is_err());
        let waiting = timer().unwrap().lock();
        assert!(waiting.wakers.keys().all(|key| key.0 != deadline));
    }

    #[tokio::test]
    async fn a_sooner_deadline_overtakes_a_later_one() {
        let start = Instant::now();
        let later = tokio::spawn(until(start + Duration::from_secs(3600)));
        tokio::task::yield_now().await;
        until(start + Duration::from_millis(5)).await;
        assert!(start.elapsed() < Duration::from_secs(5));
        later.abort();
    }
}
