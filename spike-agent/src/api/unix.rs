//! The Unix socket: for root, the agent's own user and the socket's group, known by their credentials.

mod peer;
mod socket;

use std::path::Path;

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{ConnectInfo, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use tokio_util::sync::CancellationToken;

pub(super) use peer::Peer;

use self::socket::Socket;
use super::problem::ApiError;

pub(super) struct UnixDoor {
    socket: Socket,
}

impl UnixDoor {
    /// Binds the socket at `path`; a dead agent's is replaced, a living one's is an error.
    pub(super) fn bind(path: &Path) -> Result<Self> {
        Ok(Self {
            socket: Socket::bind(path)?,
        })
    }

    pub(super) async fn serve(self, routes: Router, stop: CancellationToken) -> Result<()> {
        let app = guarded(routes).into_make_service_with_connect_info::<Peer>();
        let serving = axum::serve(self.socket, app).with_graceful_shutdown(stop.cancelled_owned());
        serving.await.context("serve the API on the Unix socket")
    }
}

/// The routes behind the check of the peer.
pub(super) fn guarded(routes: Router) -> Router {
    routes.layer(middleware::from_fn(unix_guard))
}

async fn unix_guard(ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request, next: Next) -> Response {
    if !peer.is_allowed() {
        let detail = "only root, the agent's user and the socket's group may use this socket";
        return ApiError::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    request.extensions_mut().insert(peer);
    next.run(request).await
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, Socket>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        *stream.remote_addr()
    }
}
