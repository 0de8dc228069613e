//! Records connections as they run: whoever carries their bytes hands them over and goes on, a thread writes them.
//!
//! `carrier --Event--> thread --> file`. What is under way to the thread is bounded; what does not fit is not recorded, and
//! counted, unless the carrier was told to wait.

pub(super) mod connection;
mod decoder;
mod thread;

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Semaphore, watch};

use super::{About, NameRow, NewConnection, RecordingError, Writer, redact::Redaction};
use crate::protocol::Side;
use thread::Thread;

/// Most bytes that are under way to the thread: more than a disk that stalls for some tenths of a second takes.
const ROOM: usize = 64 << 20;
/// What a piece costs beside its bytes.
const PIECE: usize = 192;

/// How a recording is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What is said of it in the file; start, end, version, rules and limit are filled in.
    pub about: About,
    /// What is a secret.
    pub redaction: Redaction,
    /// Bytes of what one side says in one go after which no more of it is kept.
    pub body_limit: Option<u64>,
    /// Connections wait when the file is behind; else what does not fit is not recorded.
    pub backpressure: bool,
}

/// A recording that runs.
#[derive(Debug)]
pub struct Live {
    shared: Arc<Shared>,
    path: PathBuf,
    stopping: AtomicBool,
    /// True once the file is whole.
    ended_rx: watch::Receiver<bool>,
}

/// What was recorded so far, and what was not.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections.
    pub connections: AtomicU64,
    /// Calls that ended.
    pub calls: AtomicU64,
    /// Bytes of both directions.
    pub bytes: AtomicU64,
    /// Pieces that were not recorded.
    pub lost: AtomicU64,
    /// Bytes that were not recorded, but those beyond the body limit.
    pub lost_bytes: AtomicU64,
    /// Bytes beyond the body limit.
    pub cut_bytes: AtomicU64,
    /// Why it cannot go on.
    pub failure: OnceLock<String>,
}

#[derive(Debug)]
struct Shared {
    /// `carrier --Event--> thread`; bounded by `room`.
    events_tx: mpsc::Sender<Event>,
    room: Arc<Semaphore>,
    started: Instant,
    /// Time of the recording at that moment.
    offset_ns: u64,
    backpressure: bool,
    counts: Counts,
    next: AtomicU64,
}

/// What the thread is told.
#[derive(Debug)]
enum Event {
    Opened(u64, Box<NewConnection>),
    Bytes {
        connection: u64,
        from: Side,
        at_ns: u64,
        /// Bytes of this side that did not fit before these.
        missing: u64,
        bytes: Box<[u8]>,
    },
    Ended {
        connection: u64,
        at_ns: u64,
        is_reset: bool,
        /// Bytes of each side that did not fit.
        missing: [u64; 2],
    },
    Name(NameRow),
    Stop,
}

impl Live {
    /// Makes the file and starts the thread that fills it.
    ///
    /// # Errors
    /// When the file exists or cannot be made, or the thread cannot be started.
    pub fn start(path: &Path, options: Options) -> Result<Self, RecordingError> {
        let about = About {
            started_unix_ns: unix_ns(),
            ended_unix_ns: None,
            spike: env!("CARGO_PKG_VERSION").to_owned(),
            redaction: options.redaction.to_words(),
            body_limit: options.body_limit,
            ..options.about
        };
        Self::fill(
            path,
            Writer::create(path, &about)?,
            options.redaction,
            options.backpressure,
            0,
        )
    }

    /// Starts a thread that adds to a recording that is there, by its own rules of redaction and limit.
    ///
    /// # Errors
    /// When the file is no recording, cannot be written, or has rules that this Spike does not know.
    pub fn append(path: &Path) -> Result<Self, RecordingError> {
        let writer = Writer::append(path)?;
        let rules = Redaction::of_recording(&writer.about().redaction);
        let rules = rules.map_err(|error| RecordingError::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        let since = unix_ns().saturating_sub(writer.about().started_unix_ns);
        Self::fill(path, writer, rules, false, since)
    }

    /// `offset_ns` is how long ago the recording began.
    fn fill(
        path: &Path,
        writer: Writer,
        rules: Redaction,
        backpressure: bool,
        offset_ns: u64,
    ) -> Result<Self, RecordingError> {
        let body_limit = writer.about().body_limit;
        let (events_tx, events_rx) = mpsc::channel();
        let (ended_tx, ended_rx) = watch::channel(false);
        let shared = Arc::new(Shared {
            events_tx,
            room: Arc::new(Semaphore::new(ROOM)),
            started: Instant::now(),
            offset_ns,
            backpressure,
            counts: Counts::default(),
            next: AtomicU64::new(0),
        });
        let thread = Thread::new(writer, rules, body_limit, shared.clone());
        let spawned = std::thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || {
                thread.run(&events_rx);
                let _ = ended_tx.send(true);
            });
        spawned.map_err(|source| RecordingError::File {
            doing: "start a thread for",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            shared,
            path: path.to_owned(),
            stopping: AtomicBool::new(false),
            ended_rx,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was recorded so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Begins a connection that was opened at `at`; the time in `new` is filled in.
    pub fn open(&self, at: Instant, new: NewConnection) -> Connection {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let new = NewConnection {
            opened_ns: self.shared.since_start(at),
            ..new
        };
        self.shared.send(Event::Opened(id, Box::new(new)));
        self.shared.counts.connections.fetch_add(1, Ordering::Relaxed);
        Connection {
            shared: self.shared.clone(),
            id,
            missing: Mutex::default(),
        }
    }

    /// Adds an answer of the DNS; its time is filled in.
    pub fn name(&self, at: Instant, name: &str, kind: &str, answer: &str) {
        self.shared.send(Event::Name(NameRow {
            name: name.to_owned(),
            kind: kind.to_owned(),
            answer: answer.to_owned(),
            at_ns: self.shared.since_start(at),
        }));
    }

    /// Takes no more; what was taken until now is still written. See [`ended`](Self::ended).
    pub fn stop(&self) {
        if !self.stopping.swap(true, Ordering::Relaxed) {
            self.shared.send(Event::Stop);
        }
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits until it was stopped and the file is whole.
    pub async fn ended(&self) {
        // The sender is dropped after the last word.
        let _ = self.ended_rx.clone().wait_for(|ended| *ended).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn since_start(&self, at: Instant) -> u64 {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.started) {
            Some(since) => self.offset_ns.saturating_add(nanoseconds(since)),
            None => self.offset_ns.saturating_sub(nanoseconds(self.started - at)),
        }
    }

    fn send(&self, event: Event) {
        // The thread ends after `Stop` alone, and nothing after that is wanted.
        let _ = self.events_tx.send(event);
    }
}

/// A connection that is recorded.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    id: u64,
    /// Bytes of each side that did not fit since the last that did.
    missing: Mutex<[u64; 2]>,
}

/// Waits for room.
pub type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Connection {
    /// Bytes that a side sent. With back-pressure, and when there is no room, what to wait for.
    pub fn bytes(&self, from: Side, at: Instant, bytes: &[u8]) -> Option<Wait> {
        if bytes.is_empty() {
            return None;
        }
        let cost = u32::try_from(bytes.len() + PIECE).unwrap_or(u32::MAX);
        match self.shared.room.try_acquire_many(cost) {
            Ok(room) => {
                // Given back by the thread.
                room.forget();
                self.send(from, at, bytes.into());
                None
            }
            Err(_) if self.shared.backpressure => {
                let (shared, id, missing) = (self.shared.clone(), self.id, self.take_missing(from));
                let bytes = bytes.into();
                Some(Box::pin(async move {
                    if let Ok(room) = shared.room.acquire_many(cost).await {
                        room.forget();
                    }
                    let at_ns = shared.since_start(at);
                    shared.send(Event::Bytes {
                        connection: id,
                        from,
                        at_ns,
                        missing,
                        bytes,
                    });
                }))
            }
            Err(_) => {
                self.lock()[from as usize] += bytes.len() as u64;
                let counts = &self.shared.counts;
                counts.lost.fetch_add(1, Ordering::Relaxed);
                counts.lost_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                None
            }
        }
    }

    /// It is over.
    pub fn ended(&self, at: Instant, is_reset: bool) {
        let missing = std::mem::take(&mut *self.lock());
        self.shared.send(Event::Ended {
            connection: self.id,
            at_ns: self.shared.since_start(at),
            is_reset,
            missing,
        });
    }

    fn send(&self, from: Side, at: Instant, bytes: Box<[u8]>) {
        self.shared.send(Event::Bytes {
            connection: self.id,
            from,
            at_ns: self.shared.since_start(at),
            missing: self.take_missing(from),
            bytes,
        });
    }

    fn take_missing(&self, from: Side) -> u64 {
        std::mem::take(&mut self.lock()[from as usize])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [u64; 2]> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds since 1970.
pub(super) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or(u64::MAX)
}
