//! One redirected connection, from its acceptance to its end.

use std::{
    net::{SocketAddr, TcpStream as StdTcpStream},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use super::{
    Planned, Proxy, UpstreamSockets,
    held::Prepared,
    pump::{self, Broken},
    tap::{Opened, Taps},
    upstream::{self, UpstreamError},
};
use crate::{
    fault::{book::ArmedFault, pipeline::Plan, timer},
    model::Direction,
};

/// How long a stalled connection outlives its caller's last word: the kernel forgets a closed socket that waits for
/// our end after this time (`net.ipv4.tcp_fin_timeout`) and tells nobody, so that it would be kept for nothing.
const CLOSED_WAIT: Duration = Duration::from_secs(60);

/// Carries an accepted connection, whose two addresses are given, to where it was meant to go.
pub(super) async fn carry(
    proxy: Arc<Proxy>,
    client: StdTcpStream,
    addresses: Addresses,
    upstream: Arc<dyn UpstreamSockets>,
) {
    let opened = Instant::now();
    let client = match TcpStream::from_std(client) {
        Ok(client) => client,
        Err(error) => return tracing::warn!(%error, "wait for a redirected connection; it is closed"),
    };
    let Addresses {
        netns_cookie,
        client: peer,
        listener,
    } = addresses;
    let (planned, prepared) = match proxy.held.take(&addresses) {
        Some(Prepared { planned, server, .. }) => (planned, server),
        None => {
            let Some(original) = proxy.originals.take(netns_cookie, peer, listener) else {
                proxy.counts.unknown.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, "no original destination is known; connection reset");
                return reset([&client]);
            };
            (proxy.plan(original, &*upstream, peer, opened), None)
        }
    };
    let Planned {
        plan,
        caller,
        destination,
    } = planned;
    let address = destination.address;
    let taps = Taps::new(proxy.recorders.get().map_or_else(Vec::new, |recorders| {
        recorders.open(&Opened {
            is_datagrams: false,
            caller: &caller,
            destination: &destination,
            netns_cookie,
            client: (peer, listener),
            at: opened,
        })
    }));
    let may_connect = plan.may_connect();
    let unheld = prepared.is_none().then(|| (caller.clone(), destination.clone()));
    let connecting = async {
        if let Some((caller, destination)) = unheld {
            // Its SYN was not held: the caller believes that it is connected.
            may_connect.await;
            if let Some(stood_in) = proxy.stood_in(&caller, &destination, &upstream, peer) {
                return stood_in.map_err(UpstreamError::Socket);
            }
        }
        let server = match prepared {
            Some(server) => TcpStream::from_std(server).map_err(UpstreamError::Socket)?,
            None => upstream::connect(&*upstream, address, peer).await?,
        };
        if let (Ok(local), Ok(remote)) = (server.local_addr(), server.peer_addr()) {
            let (came_in, went_on) = ((peer, listener), (local, remote));
            proxy.originals.carried(netns_cookie, came_in, went_on);
        }
        Ok(server)
    };
    let entry = proxy.open.enter(caller, destination, &plan);
    tokio::select! {
        () = join(&proxy, &client, plan, taps, connecting) => {}
        () = entry.is_closed() => reset([&client]),
    }
}

/// Carries a connection that came to the listener of a relay on to `upstream`, a host or address with a port.
pub(super) async fn relay(proxy: &Proxy, client: TcpStream, armed: &ArmedFault, upstream: &str) {
    let plan = Plan::of_relay(armed, Instant::now());
    let connecting = async {
        let connected = TcpStream::connect(upstream).await;
        connected.map_err(|error| UpstreamError::Name(upstream.to_owned(), error))
    };
    join(proxy, &client, plan, Taps::default(), connecting).await;
}

/// Joins a caller with its server, through what the faults of the plan do, until the end of both.
async fn join(
    proxy: &Proxy,
    client: &TcpStream,
    plan: Plan,
    mut taps: Taps,
    connecting: impl Future<Output = Result<TcpStream, UpstreamError>>,
) {
    if plan.resets_at_once {
        return reset([client]);
    }
    let mut ends = std::pin::pin!(plan.ends());
    let connected = tokio::select! {
        () = &mut ends => return reset([client]),
        () = pump::breaks(client) => return reset([client]),
        connected = connecting => connected,
    };
    let server = match connected {
        Ok(server) => server,
        Err(error) => {
            proxy.counts.unreached.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "caller's connection reset");
            return reset([client]);
        }
    };
    for stream in [client, &server] {
        // Each end decides by itself when to send; waiting here once more would only add delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
    }
    let lanes = [Direction::Request, Direction::Response].map(|way| plan.lanes(way));
    let result = tokio::select! {
        () = ends => Err(Broken::Reset),
        () = is_given_up(client, plan) => Err(Broken::Reset),
        result = pump::both_ways(client, &server, lanes, &proxy.pools, &taps) => result,
    };
    if result == Err(Broken::Reset) {
        reset([client, &server]);
    } else {
        taps.close();
    }
}

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Addresses {
    /// The listener's network namespace.
    pub(super) netns_cookie: u64,
    /// The accepted socket's peer.
    pub(super) client: SocketAddr,
    /// The accepted socket's own address.
    pub(super) listener: SocketAddr,
}

/// Makes the close of `streams` a TCP reset.
fn reset<const N: usize>(streams: [&TcpStream; N]) {
    for stream in streams {
        if let Err(error) = stream.set_zero_linger() {
            tracing::debug!(%error, "set SO_LINGER; the connection is closed instead of reset");
        }
    }
}

/// Waits until the caller has gone away while a fault holds the connection still.
async fn is_given_up(client: &TcpStream, mut plan: Plan) {
    let closed_for_long = async {
        pump::closes(client).await;
        timer::until(Instant::now() + CLOSED_WAIT).await;
    };
    let mut closed_for_long = std::pin::pin!(closed_for_long);
    loop {
        plan.is_held().await;
        tokio::select! {
            biased;
            () = plan.is_released() => {}
            () = pump::breaks(client) => return,
            () = &mut closed_for_long => return,
        }
    }
}
