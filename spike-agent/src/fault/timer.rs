//! Waits more exactly than an async runtime's wheel of 1 ms, so that a delay of 2 ms is not one of 3 ms.
//!
//! A timer is a timerfd that rings at the nearest deadline, whose clock knows no slack (timerfd_create(2)). A thread that
//! carries connections has one in its own reactor ([`serve`]), so that the clock wakes the very thread that goes on; all
//! other threads share one that a thread waits for.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Waits until `deadline`. Dropping it before ends the wait and leaves nothing behind.
pub async fn until(deadline: Instant) {
    let here = HERE.with_borrow(Clone::clone);
    match here.or_else(|| elsewhere().cloned()) {
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

/// Keeps the time for all that this thread waits for, until dropped; for the one thread of a runtime.
pub async fn serve() -> io::Result<()> {
    /// Whoever waits after this is served by the process's timer.
    struct NoMore;
    impl Drop for NoMore {
        fn drop(&mut self) {
            HERE.take();
        }
    }
    let timer = Arc::new(Timer::new(TimerfdFlags::NONBLOCK)?);
    // SAFETY: `timer` keeps the descriptor open for as long as `clock` lives.
    let clock = unsafe { AsyncFd::register_with_interest(timer.clock.as_fd(), Interest::READABLE) }?;
    HERE.set(Some(Arc::clone(&timer)));
    let _no_more = NoMore;
    loop {
        clock.readable().await?.clear_ready();
        timer.ring();
    }
}

thread_local! {
    /// The timer in this thread's own reactor.
    static HERE: RefCell<Option<Arc<Timer>>> = const { RefCell::new(None) };
}

/// The process's timer, `None` when its thread could not be started.
fn elsewhere() -> Option<&'static Arc<Timer>> {
    static TIMER: OnceLock<Option<Arc<Timer>>> = OnceLock::new();
    let start = || {
        let timer = Arc::new(Timer::new(TimerfdFlags::empty())?);
        let served = Arc::clone(&timer);
        thread::Builder::new()
            .name("spike-timer".to_owned())
            .spawn(move || {
                loop {
                    served.ring();
                    served.sleep();
                }
            })
            .map(|_| timer)
    };
    TIMER
        .get_or_init(|| {
            start()
                .inspect_err(
                    |error: &io::Error| tracing::warn!(%error, "start the timer thread; delays are exact to 1 ms only"),
                )
                .ok()
        })
        .as_ref()
}

/// Deadlines, and numbers that tell equal ones apart.
type Key = (Instant, u64);

struct Timer {
    waiting: Mutex<Waiting>,
    clock: OwnedFd,
}

#[derive(Default)]
struct Waiting {
    wakers: BTreeMap<Key, Waker>,
    last_number: u64,
    /// When the clock is to ring, if that is before a deadline.
    rings_early: Option<Instant>,
    /// How much before.
    lead: Duration,
}

impl Timer {
    fn new(flags: TimerfdFlags) -> io::Result<Timer> {
        Ok(Timer {
            waiting: Mutex::default(),
            clock: timerfd_create(TimerfdClockId::Monotonic, flags | TimerfdFlags::CLOEXEC)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the clock to ring.
    fn sleep(&self) {
        // How often it has rung makes no difference, and what cannot be read is looked at again.
        let _ = rustix::io::read(&self.clock, &mut [0_u8; 8]);
    }

    /// Wakes all that are due, and sets the clock to the next.
    fn ring(&self) {
        loop {
            let mut waiting = self.lock();
            let near = waiting.rung(Instant::now());
            let later = waiting.wakers.split_off(&(Instant::now(), u64::MAX));
            let due = std::mem::replace(&mut waiting.wakers, later);
            if due.is_empty() && near.is_none() {
                self.set(&mut waiting);
                return;
            }
            drop(waiting);
            due.into_values().for_each(Waker::wake);
            while near.is_some_and(|deadline| Instant::now() < deadline) {
                std::hint::spin_loop();
            }
        }
    }

    /// Sets the clock to the first that waits; unset when nobody does.
    fn set(&self, waiting: &mut Waiting) {
        let rings = waiting.next_ring(Instant::now()).map(|left| {
            Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            })
        });
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let rings = Itimerspec {
            it_interval: never,
            it_value: rings.unwrap_or(never),
        };
        // Fails on bad arguments alone (timerfd_settime(2)).
        if let Err(error) = timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &rings) {
            tracing::warn!(%error, "set a timer");
        }
    }
}

/// A processor that has slept is late: by 30 us after 1 ms on a virtual machine, by 130 us after 10 ms. So the clock is
/// set earlier by what it was late before, and the rest is waited for awake.
const MOST_LEAD: Duration = Duration::from_micros(200);
/// Nearer deadlines are not worth it: the processor does not sleep soundly, and would be kept awake for too much of it.
const LEAST_SLEEP: Duration = Duration::from_micros(1000);

impl Waiting {
    /// How long from `now` until the clock is to ring, never 0; none when nobody waits.
    fn next_ring(&mut self, now: Instant) -> Option<Duration> {
        let (&(deadline, _), _) = self.wakers.first_key_value()?;
        let mut left = deadline.saturating_duration_since(now);
        self.rings_early = None;
        if left >= LEAST_SLEEP {
            left -= self.lead;
            self.rings_early = Some(now + left);
        }
        // 0 would unset it.
        Some(left.max(Duration::from_nanos(1)))
    }

    /// Learns from how late the clock rang; the first deadline when it is so near that it is to be waited for awake.
    fn rung(&mut self, now: Instant) -> Option<Instant> {
        let late = now.saturating_duration_since(self.rings_early.take()?);
        self.lead = (self.lead * 7 + late.min(MOST_LEAD)) / 8;
        let (&(deadline, _), _) = self.wakers.first_key_value()?;
        (now < deadline && deadline <= now + MOST_LEAD).then_some(deadline)
    }
}

struct Wait {
    timer: Arc<Timer>,
    deadline: Instant,
    key: Option<Key>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let timer = Arc::clone(&self.timer);
        let mut waiting = timer.lock();
        let key = self.key.unwrap_or_else(|| {
            waiting.last_number += 1;
            (self.deadline, waiting.last_number)
        });
        waiting.wakers.insert(key, context.waker().clone());
        if waiting
            .wakers
            .first_key_value()
            .is_some_and(|(first, _)| *first == key)
        {
            timer.set(&mut waiting);
        }
        drop(waiting);
        self.key = Some(key);
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
        let waiting = elsewhere().unwrap().lock();
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
