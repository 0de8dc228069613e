//! A door that speaks Toxiproxy's HTTP API, for the client libraries that people already have.
//!
//! A proxy made here listens where it is asked to, leads to its upstream, and is a fault like any other: its toxics are
//! the fault's effects. Removing that fault (`spike fault remove`, `spike panic`, its time to live) takes the toxics
//! away and leaves the proxy, so that applications that go through it are not cut off.

mod error;
mod proxies;
mod relay;
mod routes;
#[cfg(test)]
mod tests;
mod toxic;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::proxies::Proxies;
use crate::{control::Control, model::view::Actor, proxy::Proxy};

/// The bound door.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
}

impl Door {
    /// Binds `address`, which is a loopback one: whoever reaches it can use it.
    ///
    /// # Errors
    /// Why it cannot be bound.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let hint =
            || format!("listen on {address} for Toxiproxy's API: choose another address with --toxiproxy");
        let listener = TcpListener::bind(address).await.with_context(hint)?;
        Ok(Self { listener })
    }

    /// Answers requests until `stop`; then all proxies end.
    pub async fn serve(self, control: &Control, proxy: Arc<Proxy>, stop: CancellationToken) -> Result<()> {
        let control = control.by(Actor::by("toxiproxy"));
        let proxies = Proxies::new(control, proxy, stop.child_token());
        let serving = axum::serve(self.listener, routes::router(proxies));
        let serving = serving.with_graceful_shutdown(stop.cancelled_owned());
        serving.await.context("serve Toxiproxy's API")
    }
}
