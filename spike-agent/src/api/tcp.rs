//! The loopback door: for browsers and programs of this host, behind checks of host, origin and token.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{guard::tcp_guard, token::Token};

pub(super) struct TcpDoor {
    listener: TcpListener,
    token: Token,
}

impl TcpDoor {
    /// Binds `address`, which is a loopback one, and writes the token to `state_dir`.
    pub(super) async fn bind(address: SocketAddr, state_dir: &Path) -> Result<Self> {
        let hint = || format!("listen on {address}: choose another address with --listen, or --listen off");
        let listener = TcpListener::bind(address).await.with_context(hint)?;
        Ok(Self {
            listener,
            token: Token::create(state_dir)?,
        })
    }

    pub(super) async fn serve(self, routes: Router, stop: CancellationToken) -> Result<()> {
        let app = guarded(routes, self.token);
        let serving = axum::serve(self.listener, app).with_graceful_shutdown(stop.cancelled_owned());
        serving.await.context("serve the API on TCP")
    }
}

/// The routes behind the guard.
pub(super) fn guarded(routes: Router, token: Token) -> Router {
    routes.layer(middleware::from_fn_with_state(token, tcp_guard))
}
