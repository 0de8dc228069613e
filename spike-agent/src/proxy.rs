//! Stands between callers and servers for the connections that a fault selects, and for no others.

mod buffers;
mod connection;
pub mod namespaces;
mod open;
mod pump;
mod stand_in;
mod tap;
#[cfg(test)]
mod tests;
mod upstream;

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    fault::book::{ArmedFault, Faults},
    model::{Caller, Selector},
};
use buffers::Buffers;
use connection::Addresses;
use open::Open;
pub use stand_in::{Dial, StandIns};
pub use tap::{Opened, Recorder, Recorders};

/// Pause after a failed accept, most often for want of descriptors, which a retry at once would not bring.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What the kernel noted of a redirected connection.
#[derive(Clone, Debug)]
pub struct Original {
    /// Where the caller wanted to go.
    pub destination: SocketAddr,
    /// Who called.
    pub caller: Caller,
}

/// The kernel's notes of redirected connections.
pub trait Originals: Send + Sync + 'static {
    /// Finds and forgets it. `client` and `listener` are the accepted socket's peer and local address.
    fn take(&self, netns_cookie: u64, client: SocketAddr, listener: SocketAddr) -> Option<Original>;

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
}

/// Carries redirected connections, through what the armed faults do to them.
pub struct Proxy {
    originals: Arc<dyn Originals>,
    /// `book --Faults--> proxy`: read once a connection.
    faults_rx: watch::Receiver<Faults>,
    buffers: Buffers,
    open: Open,
    /// Set once, when the agent starts; none in tests.
    recorders: OnceLock<Arc<dyn Recorders>>,
    /// Set once, when the agent starts; none in tests.
    stand_ins: OnceLock<Arc<dyn StandIns>>,
    counts: Counts,
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
            buffers: Buffers::default(),
            open: Open::default(),
            recorders: OnceLock::new(),
            stand_ins: OnceLock::new(),
            counts: Counts::default(),
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
                    tokio::spawn(connection::carry(
                        self.clone(),
                        stream,
                        addresses,
                        upstream.clone(),
                    ));
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
) -> io::Result<(TcpStream, SocketAddr, SocketAddr)> {
    let listener = stream.local_addr()?;
    Ok((stream, client, listener))
}
