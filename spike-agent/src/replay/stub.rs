//! Stands in for servers: answers callers from a recording, with the real servers down or absent.

mod armed;
mod book;
mod conversation;
mod dns;
mod http1;
pub(in crate::replay) mod http2;
mod misses;
mod mysql;
mod pass;
mod place;
mod postgres;
mod raw;
mod redis;
mod session;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use tokio::net::{TcpStream, UnixStream};

pub use armed::{ArmedStub, Stubs};
pub use book::Nearest;
pub use misses::Miss;
use misses::Misses;
use place::{Place, places};
pub use session::Outcome;

use super::{exchange::Talk, noise::Matcher};
pub use crate::model::{Lifetime, OnMiss};

/// Connects to the real server, as the caller would have.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, std::io::Result<TcpStream>> + Send + Sync>;

/// How a stub answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Recorded waits are multiplied with this; 0 answers at once.
    pub pace: f64,
    /// What becomes of a request that was not recorded.
    pub on_miss: OnMiss,
    /// How long it is remembered which answers were given.
    pub lifetime: Lifetime,
    /// Which parts of requests count.
    pub matcher: Matcher,
}

/// A recording that answers.
#[derive(Debug)]
pub struct Stub {
    settings: Settings,
    places: Vec<Place>,
    counts: Counts,
    misses: Misses,
}

/// What a stub has done.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Requests answered from the recording.
    pub answered: AtomicU64,
    /// Requests that were not recorded.
    pub missed: AtomicU64,
    /// Of them, those that the real server answered.
    pub passed: AtomicU64,
}

impl Stub {
    /// One that answers with what was said in `talks`.
    pub fn new(talks: &[Talk], settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            places: places(talks, &settings.matcher),
            settings,
            counts: Counts::default(),
            misses: Misses::default(),
        })
    }

    /// The servers that it stands in for, each with the name that callers found it by and the number of its requests.
    pub fn servers(&self) -> impl Iterator<Item = (&str, Option<&str>, usize)> {
        self.places.iter().map(|place| {
            let requests = place.requests();
            (place.server.as_str(), place.host.as_deref(), requests)
        })
    }

    /// What it has done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Requests that were not recorded, the oldest first.
    pub fn misses(&self) -> Vec<Miss> {
        self.misses.list()
    }

    /// Begins again with the first answers.
    pub fn restart(&self) {
        self.places.iter().for_each(Place::restart);
    }

    /// The server's end of a connection to `destination`, which this stub answers; none when it knows no such server.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn answer(
        self: &Arc<Self>,
        destination: SocketAddr,
        dial: Dial,
    ) -> Option<std::io::Result<TcpStream>> {
        let place = self.place(destination)?;
        Some(pair().map(|(stream, own)| {
            self.counts.connections.fetch_add(1, Ordering::Relaxed);
            let session = session::Session::new(self.clone(), place, dial);
            tokio::spawn(conversation::run(session, own));
            stream
        }))
    }

    /// By address and port, else by the port alone, else the only one that there is.
    fn place(&self, destination: SocketAddr) -> Option<usize> {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        let exact = self
            .places
            .iter()
            .position(|place| place.address == Some(destination));
        let same_port = |place: &Place| place.address.is_some_and(|at| at.port() == destination.port());
        exact
            .or_else(|| self.places.iter().position(same_port))
            .or_else(|| (self.places.len() == 1).then_some(0))
    }
}

/// Two ends of a connection within the agent. One is dressed as a TCP stream, so that faults treat it as any server's:
/// what they do with a socket (read, write, wait, shut down) is the same for both.
fn pair() -> std::io::Result<(TcpStream, UnixStream)> {
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let near = std::net::TcpStream::from(OwnedFd::from(near));
    far.set_nonblocking(true)?;
    Ok((TcpStream::from_std(near)?, UnixStream::from_std(far)?))
}
