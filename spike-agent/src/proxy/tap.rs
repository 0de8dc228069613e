//! Shows what a connection carries to whoever records it, as its caller saw it: what it sent, and what reached it.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;

use crate::model::{Caller, Destination, Direction};

/// Those who record connections.
pub trait Recorders: Send + Sync + 'static {
    /// Asks about a connection that was taken in; a recorder for each recording that wants it.
    fn open(&self, opened: &Opened<'_>) -> Vec<Arc<dyn Recorder>>;
}

/// A connection that was taken in, or the datagrams between a socket and a destination.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// They are datagrams.
    pub is_datagrams: bool,
    /// Who called.
    pub caller: &'a Arc<Caller>,
    /// Where it wanted to go.
    pub destination: &'a Destination,
    /// The network namespace that it came from.
    pub netns_cookie: u64,
    /// The accepted socket's peer and local address.
    pub client: (SocketAddr, SocketAddr),
    /// When.
    pub at: Instant,
}

/// Records one connection. It must not block.
pub trait Recorder: Send + Sync + 'static {
    /// Bytes that went `way`, which is not both. Where the application is to wait until there is room for them, what to
    /// wait for.
    fn bytes(&self, way: Direction, at: Instant, bytes: &[u8]) -> Option<BoxFuture<'static, ()>>;

    /// It is over, properly or by a reset.
    fn ended(&self, at: Instant, is_reset: bool);
}

/// The recorders of a connection, most often none. It is told to be reset when this is dropped without
/// [`close`](Self::close).
#[derive(Default)]
pub(super) struct Taps {
    recorders: Vec<Arc<dyn Recorder>>,
    is_closed: bool,
}

impl Taps {
    pub(super) fn new(recorders: Vec<Arc<dyn Recorder>>) -> Self {
        Self {
            recorders,
            is_closed: false,
        }
    }

    /// The same for datagrams, which have no end that could be improper.
    pub(super) fn of_datagrams(recorders: Vec<Arc<dyn Recorder>>) -> Self {
        Self {
            recorders,
            is_closed: true,
        }
    }

    /// What sees the bytes of one direction.
    pub(super) fn way(&self, way: Direction) -> Tap<'_> {
        Tap { taps: self, way }
    }

    /// Both sides have closed it.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        if self.recorders.is_empty() {
            return;
        }
        let now = Instant::now();
        for recorder in &self.recorders {
            recorder.ended(now, !self.is_closed);
        }
    }
}

/// Sees the bytes of one direction.
#[derive(Clone, Copy)]
pub(super) struct Tap<'a> {
    taps: &'a Taps,
    way: Direction,
}

impl Tap<'_> {
    /// Whether nobody looks at the bytes.
    pub(super) fn is_blind(self) -> bool {
        self.taps.recorders.is_empty()
    }

    /// A request is seen as it leaves the caller.
    pub(super) async fn sent(self, bytes: &[u8]) {
        if self.way == Direction::Request {
            self.see(bytes).await;
        }
    }

    /// A response is seen as it reaches the caller.
    pub(super) async fn arrived(self, bytes: &[u8]) {
        if self.way == Direction::Response {
            self.see(bytes).await;
        }
    }

    async fn see(self, bytes: &[u8]) {
        if self.is_blind() {
            return;
        }
        let now = Instant::now();
        for recorder in &self.taps.recorders {
            if let Some(room) = recorder.bytes(self.way, now, bytes) {
                room.await;
            }
        }
    }
}
