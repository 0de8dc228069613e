//! The thread that writes a recording.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{Event, PIECE, Shared, connection::Carried, unix_ns};
use crate::recording::{Loss, RecordingError, Writer, redact::Redaction};

/// What was taken is safe from the agent's death after this time, and what the disk adds.
const COMMIT: Duration = Duration::from_millis(250);
/// How often connections whose protocol is not known are looked at.
const LOOK: Duration = Duration::from_millis(250);

pub(super) struct Thread {
    /// None once it failed.
    writer: Option<Writer>,
    rules: Redaction,
    body_limit: Option<u64>,
    shared: Arc<Shared>,
    connections: HashMap<u64, Carried>,
}

impl Thread {
    pub(super) fn new(
        writer: Writer,
        rules: Redaction,
        body_limit: Option<u64>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            writer: Some(writer),
            rules,
            body_limit,
            shared,
            connections: HashMap::new(),
        }
    }

    /// Writes until it is told to stop.
    pub(super) fn run(mut self, events_rx: &Receiver<Event>) {
        let (mut committed, mut looked) = (Instant::now(), Instant::now());
        loop {
            let event = events_rx.recv_timeout(LOOK.min(COMMIT));
            let now = Instant::now();
            match event {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if now.duration_since(looked) >= LOOK {
                looked = now;
                self.look();
            }
            if now.duration_since(committed) >= COMMIT {
                committed = now;
                self.attempt(Writer::commit);
            }
        }
        self.finish();
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Opened(id, new) => {
                let added = self.attempt(|writer| writer.add_connection(&new));
                if let Some(row) = added {
                    let carried = Carried::new(row, &new, self.rules.clone(), self.body_limit);
                    self.connections.insert(id, carried);
                }
            }
            Event::Bytes {
                connection,
                from,
                at_ns,
                missing,
                bytes,
            } => {
                let shared = self.shared.clone();
                self.of(connection, |carried, writer| {
                    carried.missing(from, at_ns, missing, writer)?;
                    carried.bytes(from, at_ns, &bytes, writer, &shared.counts)
                });
                self.shared.room.add_permits(bytes.len() + PIECE);
            }
            Event::Ended {
                connection,
                at_ns,
                is_reset,
                missing,
            } => {
                let shared = self.shared.clone();
                self.of(connection, |carried, writer| {
                    for (from, missing) in [crate::protocol::Side::Client, crate::protocol::Side::Server]
                        .into_iter()
                        .zip(missing)
                    {
                        carried.missing(from, at_ns, missing, writer)?;
                    }
                    carried.end(Some(at_ns), is_reset, writer, &shared.counts)
                });
                self.connections.remove(&connection);
            }
            Event::Name(name) => {
                self.attempt(|writer| writer.add_name(&name));
            }
            Event::Stop => {}
        }
    }

    /// Those whose protocol is not known in time are no longer waited for.
    fn look(&mut self) {
        let now_ns = self.shared.since_start(Instant::now());
        let shared = self.shared.clone();
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, carried)| carried.waits_too_long(now_ns))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.of(id, |carried, writer| {
                carried.give_up_waiting(writer, &shared.counts)
            });
        }
    }

    fn finish(&mut self) {
        let now_ns = self.shared.since_start(Instant::now());
        let shared = self.shared.clone();
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.of(id, |carried, writer| {
                carried.end(None, false, writer, &shared.counts)
            });
        }
        let counts = &shared.counts;
        let loss = Loss {
            at_ns: now_ns,
            connection: None,
            why: "the writer was behind".to_owned(),
            count: counts.lost.load(Ordering::Relaxed),
            bytes: counts.lost_bytes.load(Ordering::Relaxed),
        };
        if loss.count > 0 {
            self.attempt(|writer| writer.add_loss(&loss));
        }
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.finish(unix_ns())
        {
            self.fail(&error);
        }
        // Nobody waits for room that never comes.
        self.shared.room.close();
    }

    fn of(&mut self, id: u64, work: impl FnOnce(&mut Carried, &mut Writer) -> Result<(), RecordingError>) {
        let (Some(carried), Some(writer)) = (self.connections.get_mut(&id), self.writer.as_mut()) else {
            return;
        };
        if let Err(error) = work(carried, writer) {
            self.fail(&error);
        }
    }

    fn attempt<T>(&mut self, work: impl FnOnce(&mut Writer) -> Result<T, RecordingError>) -> Option<T> {
        match work(self.writer.as_mut()?) {
            Ok(done) => Some(done),
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// It cannot go on, most often for want of space. What was committed stays.
    fn fail(&mut self, error: &RecordingError) {
        tracing::warn!("{error}; the recording ends");
        let _ = self.shared.counts.failure.set(error.to_string());
        self.writer = None;
        self.connections.clear();
    }
}
