//! Stands in for servers: answers callers from a recording, with the real servers down or absent.

mod armed;
mod book;
mod conversation;
mod datagrams;
mod dns;
mod http1;
pub(in crate::replay) mod http2;
mod kept;
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
    collections::HashMap,
    net::{IpAddr, SocketAddr},
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
pub use datagrams::{Datagrams, Reply};
pub use misses::Miss;
use misses::Misses;
use place::{Place, places};
pub use session::Outcome;

use super::{
    exchange::{Exchange, Talk},
    noise::Matcher,
};
pub use crate::model::{Lifetime, OnMiss};
use crate::recording::live::Live;

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
    /// The recording, where what the real server answered is kept.
    pub kept: Option<Arc<Live>>,
}

/// A recording that answers.
#[derive(Debug)]
pub struct Stub {
    settings: Settings,
    places: Vec<Place>,
    /// Addresses that names led to, in small letters.
    names: HashMap<String, Vec<IpAddr>>,
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
    /// One that answers with what was said in `talks`, and for names that were seen to lead to an address.
    pub fn new<'a>(
        talks: &[Talk],
        names: impl IntoIterator<Item = (&'a str, IpAddr)>,
        settings: Settings,
    ) -> Arc<Self> {
        let mut addresses = HashMap::<String, Vec<IpAddr>>::new();
        for (name, address) in names {
            addresses
                .entry(name.to_ascii_lowercase())
                .or_default()
                .push(address);
        }
        Arc::new(Self {
            places: places(talks, &settings.matcher),
            names: addresses,
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
        // A name server is found by its own address or port alone.
        let mut others = self
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| !place.is_dns());
        let only = others.next().filter(|_| others.next().is_none());
        exact
            .or_else(|| self.places.iter().position(same_port))
            .or(only.map(|(index, _)| index))
    }

    /// Keeps an answer of the real server for the next such request, and in the recording.
    fn learn(&self, place: &Place, is_udp: bool, exchange: Exchange) {
        if let Some(live) = &self.settings.kept {
            kept::keep(live, place, is_udp, &exchange);
        }
        place.learn(Arc::new(exchange));
    }

    /// Has what was kept written to its end.
    pub async fn finish(&self) {
        if let Some(live) = &self.settings.kept {
            live.stop();
            live.ended().await;
        }
    }

    /// Notes a request that cannot be answered; says why.
    fn note_miss(&self, place: &str, label: &str, nearest: Option<Nearest>, note: Option<String>) -> String {
        self.counts.missed.fetch_add(1, Ordering::Relaxed);
        let miss = Miss {
            server: place.to_owned(),
            label: label.to_owned(),
            nearest,
            note,
            count: 1,
        };
        let text = miss.explain();
        tracing::debug!(server = miss.server, "stub: {text}");
        self.misses.add(miss);
        text
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
