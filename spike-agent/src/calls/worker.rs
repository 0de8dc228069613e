//! The thread that decodes: it looks at the samples when it has the time, so that no application waits for it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::{Book, Budget, Connections, EdgeCall, Sample, Turn, Want};
use crate::lock::lock;

/// Between two looks at the samples.
const REST: Duration = Duration::from_millis(20);
/// Between two looks at what it costs.
const ADJUST: Duration = Duration::from_millis(200);
/// Samples between two looks at the clock.
const BATCH: u32 = 4096;

/// Where samples come from.
pub trait Source: Send + 'static {
    /// Gives at most `most` samples that wait to `each`, the oldest first. Returns how many.
    fn read(&mut self, most: u32, each: &mut dyn FnMut(&Sample<'_>)) -> u32;

    /// Chooses the connections that are sampled from now on.
    fn choose(&mut self, turn: Turn);

    /// Says how much of a connection's large segments is wanted from now on.
    fn want(&mut self, cookie: u64, want: Want);
}

/// The running thread; ends when dropped.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    book: Mutex<Book>,
    budget: Mutex<Budget>,
}

impl Worker {
    /// Starts to decode within a share of one processor, and has `give` take the calls out; what that takes counts, too.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(
        source: impl Source,
        budget: Budget,
        give: impl FnMut(&mut Vec<EdgeCall>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            book: Mutex::default(),
            budget: Mutex::new(budget),
        });
        let inner = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("spike-calls".to_owned())
            .spawn(move || run(source, give, &inner))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What was found out so far.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.shared.book)
    }

    /// What decoding takes now, as a share of one processor, and the share of connections that is sampled.
    pub fn use_now(&self) -> (f64, f64) {
        let budget = lock(&self.shared.budget);
        (budget.used(), budget.sampled())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut source: impl Source, mut give: impl FnMut(&mut Vec<EdgeCall>), shared: &Shared) {
    let mut connections = Connections::default();
    let mut calls: Vec<EdgeCall> = Vec::new();
    source.choose(lock(&shared.budget).turn());
    let (mut since, mut busy_since, mut samples) = (Instant::now(), own_time(), 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let read = {
            let mut book = lock(&shared.book);
            let read = source.read(BATCH, &mut |sample| {
                connections.take(sample, &mut book, &mut calls)
            });
            book.samples += u64::from(read);
            read
        };
        samples += read;
        for (cookie, want) in connections.take_wants() {
            source.want(cookie, want);
        }
        give(&mut calls);
        // A load that sets in is answered before it has taken more than its share.
        let busy = own_time();
        let used = busy.saturating_sub(busy_since);
        if since.elapsed() >= ADJUST || lock(&shared.budget).is_spent(ADJUST, used, samples) {
            let mut book = lock(&shared.book);
            connections.expire(monotonic_ns(), &mut book, &mut calls);
            drop(book);
            give(&mut calls);
            let mut budget = lock(&shared.budget);
            if budget.adjust(since.elapsed(), used, samples) {
                source.choose(budget.turn());
            }
            (since, busy_since, samples) = (Instant::now(), busy, 0);
        }
        if read < BATCH {
            thread::sleep(REST);
        }
    }
    source.choose(Turn { below: 0, seed: 0 });
}

/// Processor time of this thread.
fn own_time() -> Duration {
    of(ClockId::ThreadCPUTime)
}

fn monotonic_ns() -> u64 {
    u64::try_from(of(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX)
}

fn of(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
