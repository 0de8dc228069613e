//! The listener of one proxy: each connection that comes is led to the upstream through the proxy's toxics.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{fault::book::ArmedFault, proxy::Proxy};

/// Pause after a failed accept, most often for want of descriptors, which a retry at once would not bring.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A listener that takes connections for as long as this lives; they end with it.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where it listens; port 0 has become a real one.
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    /// Has the listener.
    serving: JoinHandle<()>,
    /// `proxies --CancellationToken--> connections`: cancelled to close those that are open; a new one for the next.
    close_tx: watch::Sender<CancellationToken>,
}

impl Relay {
    /// Listens at `listen`, a name or address and a port; without either name or address on all addresses.
    pub(super) async fn start(
        listen: &str,
        upstream: String,
        proxy: Arc<Proxy>,
        armed: watch::Receiver<Arc<ArmedFault>>,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let listener = bind(listen).await?;
        let address = listener.local_addr()?;
        let close_tx = watch::Sender::new(stop.child_token());
        let serving = tokio::spawn(serve(
            listener,
            upstream,
            proxy,
            armed,
            stop.clone(),
            close_tx.subscribe(),
        ));
        Ok(Self {
            address,
            stop,
            serving,
            close_tx,
        })
    }

    /// Ends it; the address is free when this returns. The connections end by themselves.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        let _ = (&mut self.serving).await;
    }

    /// Closes the connections that are open; new ones are taken.
    pub(super) fn close_all(&self) {
        self.close_tx.send_replace(self.stop.child_token()).cancel();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn bind(listen: &str) -> io::Result<TcpListener> {
    if let Some(port) = listen.strip_prefix(':') {
        return match TcpListener::bind(format!("[::]:{port}")).await {
            // Without IPv6.
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
            bound => bound,
        };
    }
    let mut addresses: Vec<SocketAddr> = lookup_host(listen).await?.collect();
    // As Toxiproxy does for `localhost`.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    TcpListener::bind(&addresses[..]).await
}

async fn serve(
    listener: TcpListener,
    upstream: String,
    proxy: Arc<Proxy>,
    armed: watch::Receiver<Arc<ArmedFault>>,
    stop: CancellationToken,
    close: watch::Receiver<CancellationToken>,
) {
    let upstream: Arc<str> = upstream.into();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                let (proxy, upstream) = (proxy.clone(), upstream.clone());
                let (armed, close) = (armed.borrow().clone(), close.borrow().clone());
                tokio::spawn(carry(client, upstream, proxy, armed, close));
            }
            Err(error) => {
                tracing::debug!(%error, "accept a connection of a Toxiproxy proxy");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn carry(
    client: TcpStream,
    upstream: Arc<str>,
    proxy: Arc<Proxy>,
    armed: Arc<ArmedFault>,
    close: CancellationToken,
) {
    tokio::select! {
        // Before anything that a change lets go.
        biased;
        () = close.cancelled() => {}
        () = proxy.relay(client, &armed, &upstream) => {}
    }
}
