//! Stands between callers and servers for the connections that a fault selects, and for no others.

mod buffers;
mod connection;
mod held;
mod inject;
pub mod namespaces;
mod open;
mod pipes;
mod pump;
mod stand_in;
mod tap;
#[cfg(test)]
mod tests;
mod threads;
mod udp;
mod upstream;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream as StdTcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    fault::{
        book::{ArmedFault, Faults},
        pipeline::Plan,
    },
    model::{Caller, Destination, Selector},
};
use buffers::Buffers;
use connection::Addresses;
use held::Held;
use open::Open;
use pipes::Pipes;
pub use stand_in::{DatagramAnswers, Dial, Reply, StandIns};
pub use tap::{Opened, Recorder, Recorders};
use threads::Threads;

/// Pause after a failed accept, most often for want of descriptors, which a retry at once would not bring.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What the kernel noted of a redirected connection.
#[derive(Clone, Debug)]
pub struct Original {
    /// Where the caller wanted to go.
    pub destination: Destination,
    /// Who called.
    pub caller: Caller,
}

/// What is done to a connection, and whose it is.
struct Planned {
    plan: Plan,
    caller: Arc<Caller>,
    destination: Destination,
}

/// The kernel's notes of redirected connections.
pub trait Originals: Send + Sync + 'static {
    /// Finds and forgets it. `client` and `listener` are the accepted socket's peer and local address.
    fn take(&self, netns_cookie: u64, client: SocketAddr, listener: SocketAddr) -> Option<Original>;

    /// The socket's cookie and where it wanted to send the datagrams that come from `client` to the agent's port.
    fn datagrams(
        &self,
        _netns_cookie: u64,
        _client: SocketAddr,
        _listener: SocketAddr,
    ) -> Option<(u64, SocketAddr)> {
        None
    }

    /// The same with all that selectors ask.
    fn datagram_original(
        &self,
        _netns_cookie: u64,
        _client: SocketAddr,
        _listener: SocketAddr,
    ) -> Option<Original> {
        None
    }

    /// The names that are known to have an address.
    fn hosts(&self, _ip: IpAddr) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// Lets a held SYN go on when TCP sends it again. `cookie` is of the caller's socket.
    fn pass(&self, _cookie: u64) {}

    /// Lets the attempt of a held SYN time out so long after it began.
    fn time_out(&self, _cookie: u64, _after: Duration) {}

    /// Told of each connection that is carried on: `client` is the accepted socket's peer and local address, `upstream` the
    /// new socket's local address and peer.
    fn carried(
        &self,
        netns_cookie: u64,
        client: (SocketAddr, SocketAddr),
        upstream: (SocketAddr, SocketAddr),
    ) {
        let _ = (netns_cookie, client, upstream);
    }
}

/// Makes sockets inside the caller's network namespace.
pub trait UpstreamSockets: Send + Sync + 'static {
    /// A TCP socket that does not block and is closed on exec.
    fn tcp(&self, ipv6: bool) -> io::Result<OwnedFd>;

    /// A UDP socket that does not block and is closed on exec.
    fn udp(&self, _ipv6: bool) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A raw socket that sends packets with their IP header.
    fn raw(&self, _ipv6: bool) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Can answers to held SYNs be sent? The error says why not.
pub fn can_answer() -> io::Result<()> {
    namespaces::raw(false).map(drop)
}

/// Carries redirected connections, through what the armed faults do to them.
pub struct Proxy {
    originals: Arc<dyn Originals>,
    /// `book --Faults--> proxy`: read once a connection.
    faults_rx: watch::Receiver<Faults>,
    threads: Threads,
    pools: Pools,
    open: Open,
    /// Set once, when the agent starts; none in tests.
    recorders: OnceLock<Arc<dyn Recorders>>,
    /// Set once, when the agent starts; none in tests.
    stand_ins: OnceLock<Arc<dyn StandIns>>,
    counts: Counts,
    held: Held,
}

/// What connections borrow while bytes are on their way.
#[derive(Debug, Default)]
struct Pools {
    buffers: Buffers,
    pipes: Pipes,
}

/// What became of connections, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections taken in.
    pub accepted: AtomicU64,
    /// Of them, those reset because nothing was known of them.
    pub unknown: AtomicU64,
    /// Of them, those reset because their destination could not be reached.
    pub unreached: AtomicU64,
    /// Failed attempts to take a connection in.
    pub accept_failed: AtomicU64,
}

impl Proxy {
    /// A proxy that serves no listener yet.
    pub fn new(originals: Arc<dyn Originals>, faults: watch::Receiver<Faults>) -> Arc<Self> {
        Arc::new(Self {
            originals,
            faults_rx: faults,
            threads: Threads::default(),
            pools: Pools::default(),
            open: Open::default(),
            recorders: OnceLock::new(),
            stand_ins: OnceLock::new(),
            counts: Counts::default(),
            held: Held::default(),
        })
    }

    /// What became of connections.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Has connections from now on shown to these.
    pub fn record_by(&self, recorders: Arc<dyn Recorders>) {
        // A second time there is none.
        let _ = self.recorders.set(recorders);
    }

    /// Closes the open connections that `selector` chooses and that the fault `fault_id` does not have, so that their
    /// callers come back through it; tells how many.
    pub fn close(&self, selector: &Selector, fault_id: u64) -> u64 {
        self.open.close(selector, fault_id)
    }

    /// Carries a connection that came to the listener of a relay to `upstream`, a host or address with a port.
    pub async fn relay(&self, client: TcpStream, armed: &ArmedFault, upstream: &str) {
        connection::relay(self, client, armed, upstream).await;
    }

    /// Serves one listener until `stop`. Connections that were taken in go on.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        netns_cookie: u64,
        upstream: Arc<dyn UpstreamSockets>,
        stop: CancellationToken,
    ) {
        self.held.enter(netns_cookie, upstream.clone());
        self.accept_all(listener, netns_cookie, upstream, stop).await;
        self.held.leave(netns_cookie);
    }

    /// What the armed faults do to a connection, and whose it is.
    fn plan(
        &self,
        mut original: Original,
        sockets: &dyn UpstreamSockets,
        client: SocketAddr,
        opened: Instant,
    ) -> Planned {
        let faults = self.faults_rx.borrow().clone();
        self.find_source(&faults, &mut original, sockets, client);
        let caller = Arc::new(original.caller);
        let plan = Plan::new(&faults, &caller, &original.destination, opened);
        Planned {
            plan,
            caller,
            destination: original.destination,
        }
    }

    /// Finds out where the caller calls from, if a fault asks.
    fn find_source(
        &self,
        faults: &Faults,
        original: &mut Original,
        sockets: &dyn UpstreamSockets,
        client: SocketAddr,
    ) {
        let asks = |armed: &Arc<ArmedFault>| armed.fault.selector.from.names_address();
        if faults.iter().any(asks) {
            let source = held::source(sockets, original.destination.address, client);
            original.caller.source = Some(source);
            original.caller.hosts = self.originals.hosts(source.ip());
        }
    }

    async fn accept_all(
        self: &Arc<Self>,
        listener: TcpListener,
        netns_cookie: u64,
        upstream: Arc<dyn UpstreamSockets>,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted.and_then(with_local_address),
            };
            match accepted {
                Ok((stream, client, listener)) => {
                    self.counts.accepted.fetch_add(1, Ordering::Relaxed);
                    let addresses = Addresses {
                        netns_cookie,
                        client,
                        listener,
                    };
                    let carried = connection::carry(self.clone(), stream, addresses, upstream.clone());
                    self.threads.spawn(carried);
                }
                Err(error) => {
                    let failed = self.counts.accept_failed.fetch_add(1, Ordering::Relaxed);
                    if failed.is_power_of_two() || failed == 0 {
                        tracing::warn!(%error, failed = failed + 1, "accept a redirected connection");
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }
}

fn with_local_address(
    (stream, client): (TcpStream, SocketAddr),
) -> io::Result<(StdTcpStream, SocketAddr, SocketAddr)> {
    let listener = stream.local_addr()?;
    Ok((stream.into_std()?, client, listener))
}
