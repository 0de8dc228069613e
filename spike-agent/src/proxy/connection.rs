//! One redirected connection, from its acceptance to its end.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Proxy, UpstreamSockets, held::Prepared, pump, upstream};
use crate::fault::{pipeline::End, timer};

/// How long a stalled connection outlives its caller's last word: the kernel forgets a closed socket that waits for
/// our end after this time (`net.ipv4.tcp_fin_timeout`) and tells nobody, so that it would be kept for nothing.
const CLOSED_WAIT: Duration = Duration::from_secs(60);

/// Carries an accepted connection, whose two addresses are given, to where it was meant to go.
pub(super) async fn carry(
    proxy: Arc<Proxy>,
    client: TcpStream,
    addresses: Addresses,
    upstream: Arc<dyn UpstreamSockets>,
) {
    let opened = Instant::now();
    let (plan, prepared, destination) = match proxy.held.take(&addresses) {
        Some(Prepared { plan, server, .. }) => (plan, server, None),
        None => {
            let Addresses {
                netns_cookie,
                client: peer,
                listener,
            } = addresses;
            let Some(mut original) = proxy.originals.take(netns_cookie, peer, listener) else {
                proxy.counts.unknown.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, "no original destination is known; connection reset");
                return reset([&client]);
            };
            let plan = proxy.plan(&mut original, &*upstream, peer, opened);
            (plan, None, Some(original.destination.address))
        }
    };
    if plan.resets_at_once {
        return reset([&client]);
    }
    let mut ends = std::pin::pin!(End::first(plan.ends));
    let server = match (prepared, destination) {
        (Some(server), _) => server,
        (None, None) => return reset([&client]),
        // Its SYN was not held: the caller believes that it is connected.
        (None, Some(destination)) => {
            let (silences, connects) = (plan.silences, plan.connects);
            let connecting = async {
                for removed in &silences {
                    removed.cancelled().await;
                }
                End::all(connects).await;
                upstream::connect(&*upstream, destination, addresses.client).await
            };
            let connected = tokio::select! {
                () = &mut ends => return reset([&client]),
                () = pump::breaks(&client) => return reset([&client]),
                connected = connecting => connected,
            };
            match connected {
                Ok(server) => server,
                Err(error) => {
                    proxy.counts.unreached.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, "caller's connection reset");
                    return reset([&client]);
                }
            }
        }
    };
    for stream in [&client, &server] {
        // Each end decides by itself when to send; waiting here once more would only add delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
    }
    let stages = [plan.request, plan.response];
    let is_complete = tokio::select! {
        () = ends => false,
        () = is_given_up(&client, plan.stalls) => false,
        result = pump::both_ways(&client, &server, stages, &proxy.buffers) => result.is_ok(),
    };
    if !is_complete {
        reset([&client, &server]);
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

/// Waits until the caller has gone away while nothing is read from it; for ever once no fault holds it still.
async fn is_given_up(client: &TcpStream, stalls: Vec<CancellationToken>) {
    let closed_for_long = async {
        pump::closes(client).await;
        timer::until(Instant::now() + CLOSED_WAIT).await;
    };
    let all_removed = async {
        for removed in &stalls {
            removed.cancelled().await;
        }
    };
    tokio::select! {
        biased;
        () = all_removed => future::pending().await,
        () = pump::breaks(client) => {}
        () = closed_for_long => {}
    }
}
