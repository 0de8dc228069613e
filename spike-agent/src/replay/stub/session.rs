//! One connection that a stub answers: which answer is next, when it goes out, and what is said of a miss.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{Dial, Lifetime, Nearest, OnMiss, Stub, book::Cursor, place::Place};
use crate::{
    fault::timer,
    replay::{
        exchange::{Answer, Exchange},
        flow::Piece,
        parts::Parts,
    },
};

/// Longest request, in bytes.
pub(super) const REQUEST_LIMIT: usize = 256 << 20;

/// One connection that a stub answers.
pub(super) struct Session {
    stub: Arc<Stub>,
    place: usize,
    /// Where each connection begins anew.
    own: Option<Cursor>,
    dial: Dial,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// This was recorded.
    Answer(Arc<Exchange>),
    /// Nothing was, and the caller gets an error with this text.
    Fail(String),
    /// Nothing was, and the real server is to be asked.
    Pass(String),
}

impl Session {
    pub(super) fn new(stub: Arc<Stub>, place: usize, dial: Dial) -> Self {
        let own = (stub.settings.lifetime == Lifetime::Connection).then(Cursor::default);
        Self {
            stub,
            place,
            own,
            dial,
        }
    }

    /// The server that is stood in for.
    pub(super) fn place(&self) -> &Place {
        &self.stub.places[self.place]
    }

    /// Whether the real server may be asked.
    pub(super) fn passes(&self) -> bool {
        self.stub.settings.on_miss != OnMiss::Fail
    }

    /// Connects to the real server.
    pub(super) async fn dial(&self) -> io::Result<tokio::net::TcpStream> {
        (self.dial)().await
    }

    /// The same for whoever connects later.
    pub(super) fn dialer(&self) -> Dial {
        self.dial.clone()
    }

    /// Finds what to answer to a request.
    pub(super) fn ask(&mut self, label: &str, kind: &str, request: &Parts) -> Outcome {
        let place = &self.stub.places[self.place];
        match place.find(kind, request, self.own.as_mut()) {
            Ok(exchange) => {
                self.stub.counts.answered.fetch_add(1, Ordering::Relaxed);
                Outcome::Answer(exchange)
            }
            Err(nearest) => self.miss(label, nearest, None),
        }
    }

    /// The same without a miss: for what a server would answer anyway.
    pub(super) fn ask_quietly(&mut self, kind: &str, request: &Parts) -> Option<Arc<Exchange>> {
        let place = &self.stub.places[self.place];
        let found = place.find(kind, request, self.own.as_mut()).ok()?;
        self.stub.counts.answered.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// Counts an answer that was not found by its parts.
    pub(super) fn count_answer(&self) {
        self.stub.counts.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a request that cannot be answered.
    pub(super) fn miss(&self, label: &str, nearest: Option<Nearest>, note: Option<String>) -> Outcome {
        let text = self.stub.note_miss(&self.place().server, label, nearest, note);
        if self.passes() {
            Outcome::Pass(text)
        } else {
            Outcome::Fail(text)
        }
    }

    /// Notes that the real server has answered, and keeps its answer where that is wanted.
    pub(super) fn passed(&self, exchange: impl FnOnce() -> Exchange) {
        self.stub.counts.passed.fetch_add(1, Ordering::Relaxed);
        if self.stub.settings.on_miss == OnMiss::Record {
            self.stub.learn(self.place(), false, exchange());
        }
    }

    /// A recorded wait as it is kept here.
    pub(super) fn paced(&self, wait: Duration) -> Duration {
        wait.mul_f64(self.stub.settings.pace)
    }

    /// Waits until a recorded time after `since`, the end of the request, has come.
    pub(super) async fn wait(&self, since: Instant, after: Duration) {
        let wait = self.paced(after);
        if !wait.is_zero() {
            timer::until(since + wait).await;
        }
    }

    /// Writes pieces, each in its time after `since`.
    pub(super) async fn give(&self, io: &mut UnixStream, since: Instant, pieces: &[Piece]) -> io::Result<()> {
        for piece in pieces {
            self.wait(since, piece.after).await;
            io.write_all(&piece.bytes).await?;
        }
        Ok(())
    }

    /// Writes a recorded answer; true when the connection ends with it.
    pub(super) async fn give_all(
        &self,
        io: &mut UnixStream,
        since: Instant,
        answer: &Answer,
    ) -> io::Result<bool> {
        let (Answer::Raw { pieces, .. } | Answer::Stream { pieces, .. }) = answer;
        self.give(io, since, pieces).await?;
        Ok(matches!(answer, Answer::Raw { closes: true, .. }))
    }
}

/// What a caller has sent and nobody has read.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    /// When the last of them came.
    pub(super) at: Option<Instant>,
}

impl Input {
    /// Reads more; false at the end.
    ///
    /// # Errors
    /// When the connection broke, or the caller sends more than a request may have.
    pub(super) async fn more(&mut self, io: &mut UnixStream) -> io::Result<bool> {
        if self.bytes.len() > REQUEST_LIMIT {
            return Err(io::Error::other("the request is too long for a stub"));
        }
        let read = io.read_buf(&mut self.bytes).await?;
        self.at = Some(Instant::now());
        Ok(read > 0)
    }

    /// Goes past bytes that were read; tells when they had come.
    pub(super) fn take(&mut self, count: usize) -> Instant {
        self.bytes.drain(..count.min(self.bytes.len()));
        self.at.unwrap_or_else(Instant::now)
    }
}
