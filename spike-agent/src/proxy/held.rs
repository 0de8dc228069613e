//! Attempts to connect whose SYN is held: the server is asked first, and the caller is told what came of it.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpStream as StdTcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use spike_common::held::HeldSyn;

use super::{
    Original, Planned, Proxy, UpstreamSockets,
    connection::Addresses,
    inject,
    upstream::{self, UpstreamError},
};
use crate::fault::pipeline::ConnectFailure;
use crate::lock::lock;

/// How long a caller may take to come after its SYN went on: it may have given up meanwhile, and tells nobody.
const COMES_WITHIN: Duration = Duration::from_secs(30);
/// How often, and with which pause, the task that serves a namespace is waited for.
const PLACE_TRIES: u32 = 40;
const PLACE_PAUSE: Duration = Duration::from_millis(5);
/// How long TCP tries, at least with usual settings (`tcp_syn_retries`).
const TRIES_FOR: Duration = Duration::from_secs(130);

/// What is ready for a caller whose SYN went on.
pub(super) struct Prepared {
    pub(super) planned: Planned,
    /// None where the connection is reset before the server is asked.
    pub(super) server: Option<StdTcpStream>,
    since: Instant,
}

/// A network namespace that the proxy listens in.
struct Place {
    sockets: Arc<dyn UpstreamSockets>,
    /// For IPv4 and IPv6; opened when first needed.
    raw: [OnceLock<OwnedFd>; 2],
    /// The listeners that serve it.
    listeners: usize,
}

/// Held attempts on their way.
#[derive(Default)]
pub(super) struct Held {
    prepared: Mutex<HashMap<Addresses, Prepared>>,
    places: Mutex<HashMap<u64, Arc<Place>>>,
}

impl Held {
    /// A listener serves a namespace.
    pub(super) fn enter(&self, netns_cookie: u64, sockets: Arc<dyn UpstreamSockets>) {
        let mut places = lock(&self.places);
        let listeners = places.get(&netns_cookie).map_or(0, |place| place.listeners);
        let place = Place {
            sockets,
            raw: Default::default(),
            listeners: listeners + 1,
        };
        places.insert(netns_cookie, Arc::new(place));
    }

    /// It does not any more; what it has open there, which keeps the namespace alive, goes with the last.
    pub(super) fn leave(&self, netns_cookie: u64) {
        let mut places = lock(&self.places);
        let Some(place) = places.get(&netns_cookie) else {
            return;
        };
        if place.listeners <= 1 {
            places.remove(&netns_cookie);
            return;
        }
        let left = Place {
            sockets: Arc::clone(&place.sockets),
            raw: Default::default(),
            listeners: place.listeners - 1,
        };
        places.insert(netns_cookie, Arc::new(left));
    }

    /// What was prepared for an accepted connection.
    pub(super) fn take(&self, addresses: &Addresses) -> Option<Prepared> {
        lock(&self.prepared).remove(addresses)
    }

    fn put(&self, addresses: Addresses, planned: Planned, server: Option<StdTcpStream>) {
        let mut prepared = lock(&self.prepared);
        prepared.retain(|_, prepared| prepared.since.elapsed() < COMES_WITHIN);
        let since = Instant::now();
        let ready = Prepared {
            planned,
            server,
            since,
        };
        prepared.insert(addresses, ready);
    }

    /// A namespace that is served; the kernel may know of its listener a moment before the task that serves it runs.
    async fn place_soon(&self, netns_cookie: u64) -> Option<Arc<Place>> {
        for _ in 0..PLACE_TRIES {
            let place = lock(&self.places).get(&netns_cookie).cloned();
            if place.is_some() {
                return place;
            }
            tokio::time::sleep(PLACE_PAUSE).await;
        }
        None
    }
}

impl Place {
    fn send(&self, packet: Option<Vec<u8>>) -> io::Result<()> {
        let packet = packet.ok_or_else(|| io::Error::other("a SYN that cannot be read"))?;
        let to = inject::destination(&packet).ok_or_else(|| io::Error::other("a packet to nowhere"))?;
        let raw = &self.raw[usize::from(to.is_ipv6())];
        let socket = match raw.get() {
            Some(socket) => socket,
            None => {
                let opened = self.sockets.raw(to.is_ipv6())?;
                raw.get_or_init(|| opened)
            }
        };
        rustix::net::sendto(socket, &packet, rustix::net::SendFlags::empty(), &to)?;
        Ok(())
    }
}

impl Proxy {
    /// Sees to an attempt to connect whose SYN is held.
    pub async fn held(self: Arc<Self>, syn: HeldSyn) {
        let opened = Instant::now();
        let packet = &syn.bytes[..(syn.length as usize).min(syn.bytes.len())];
        let addresses = Addresses {
            netns_cookie: syn.netns,
            client: syn.client.socket_addr(),
            listener: syn.listener.socket_addr(),
        };
        let Some(place) = self.held.place_soon(syn.netns).await else {
            // It comes as if it had not been held.
            return self.originals.pass(syn.cookie);
        };
        let original = self
            .originals
            .take(syn.netns, addresses.client, addresses.listener);
        let Some(original) = original else {
            // It comes, and is reset.
            return self.originals.pass(syn.cookie);
        };
        let answer = |packet: Option<Vec<u8>>| {
            if let Err(error) = place.send(packet) {
                tracing::warn!(%error, "answer a held SYN by a raw socket; it goes on when TCP sends it again");
                self.originals.pass(syn.cookie);
            }
        };
        let prepared = self
            .prepare(original, &place.sockets, &addresses, opened, syn.cookie)
            .await;
        match prepared {
            Ok((planned, server)) => {
                // Before the SYN goes on: the accept may be faster than we are.
                self.held.put(addresses, planned, server);
                // What is injected may be lost, as any packet.
                self.originals.pass(syn.cookie);
                answer(inject::whole(packet));
            }
            Err(Outcome::Refused) => answer(inject::refusal(packet)),
            Err(Outcome::Unreachable) => answer(inject::unreachable(packet)),
            Err(Outcome::Silence) => {}
        }
    }

    /// Asks the server, unless a fault says what comes of it.
    async fn prepare(
        &self,
        original: Original,
        sockets: &Arc<dyn UpstreamSockets>,
        addresses: &Addresses,
        opened: Instant,
        cookie: u64,
    ) -> Result<(Planned, Option<StdTcpStream>), Outcome> {
        let planned = self.plan(original, &**sockets, addresses.client, opened);
        let plan = &planned.plan;
        match plan.fails {
            Some(ConnectFailure::Refused) => return Err(Outcome::Refused),
            Some(ConnectFailure::Unreachable) => return Err(Outcome::Unreachable),
            Some(ConnectFailure::TimedOut { after }) => {
                if let Some(after) = after {
                    self.originals.time_out(cookie, after);
                }
                let given_up = tokio::time::sleep(after.unwrap_or(TRIES_FOR) + Duration::from_secs(1));
                tokio::select! {
                    () = given_up => return Err(Outcome::Silence),
                    () = plan.is_unsilenced() => {}
                }
            }
            None => {}
        }
        if plan.resets_at_once {
            return Ok((planned, None));
        }
        plan.may_connect().await;
        let stood_in = self.stood_in(&planned.caller, &planned.destination, sockets, addresses.client);
        let connected = match stood_in {
            Some(stood_in) => stood_in.map_err(UpstreamError::Socket),
            None => upstream::connect(&**sockets, planned.destination.address, addresses.client).await,
        };
        // It is carried by another thread.
        let connected = connected.and_then(|server| server.into_std().map_err(UpstreamError::Socket));
        match connected {
            Ok(server) => Ok((planned, Some(server))),
            Err(error) => {
                self.counts
                    .unreached
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tracing::debug!(%error, "the caller is told");
                let outcome = Outcome::of(&error);
                if outcome == Outcome::Silence {
                    self.originals.time_out(cookie, Duration::from_millis(1));
                }
                Err(outcome)
            }
        }
    }
}

/// What a caller sees of an attempt that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Unreachable,
    /// Nothing, until its own kernel gives up.
    Silence,
}

impl Outcome {
    fn of(error: &UpstreamError) -> Self {
        let (UpstreamError::Socket(error)
        | UpstreamError::Bind(_, error)
        | UpstreamError::Connect(_, error)
        | UpstreamError::Name(_, error)) = error;
        match error.raw_os_error() {
            Some(libc::ETIMEDOUT) => Self::Silence,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => {
                Self::Unreachable
            }
            _ => Self::Refused,
        }
    }
}

/// Where a caller calls from, had it not been sent here: by its own routes.
pub(super) fn source(
    sockets: &dyn UpstreamSockets,
    destination: SocketAddr,
    client: SocketAddr,
) -> SocketAddr {
    if let Some(bound) = upstream::source(client, destination) {
        return SocketAddr::new(bound.ip(), client.port());
    }
    let ip = sockets.udp(destination.is_ipv6()).and_then(|socket| {
        rustix::net::connect(&socket, &destination)?;
        let local = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        Ok(local.ip())
    });
    SocketAddr::new(ip.unwrap_or(client.ip()), client.port())
}
