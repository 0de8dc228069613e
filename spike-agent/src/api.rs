//! The HTTP API: one set of routes behind two doors, a Unix socket and a loopback port.

mod body;
mod guard;
mod operator;
mod problem;
mod routes;
mod tcp;
mod token;
mod unix;

use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use self::{tcp::TcpDoor, unix::UnixDoor};
use crate::{
    config::{AgentConfig, Listen},
    control::Control,
};

pub use routes::openapi;

/// How long open requests may take to finish when the agent stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// The bound doors. Dropping them removes the socket and the token.
pub struct Doors {
    unix: UnixDoor,
    tcp: Option<TcpDoor>,
}

impl Doors {
    /// Binds both doors, so that whatever is in the way is told before the agent does anything.
    pub async fn bind(config: &AgentConfig) -> Result<Self> {
        let unix = UnixDoor::bind(&config.socket)?;
        let tcp = match config.listen {
            Listen::Off => None,
            Listen::At(address) => Some(TcpDoor::bind(address, &config.state_dir).await?),
        };
        Ok(Self { unix, tcp })
    }

    /// Answers requests until `stop` is cancelled, then for a short while those that are open.
    pub async fn serve(self, control: Control, stop: CancellationToken) -> Result<()> {
        let Self { unix, tcp } = self;
        let routes = routes::router(control.clone());
        let serve_unix = unix.serve(routes.clone(), stop.clone());
        let serve_tcp = async {
            match tcp {
                Some(door) => door.serve(routes, stop.clone()).await,
                None => Ok(()),
            }
        };
        let serve_both = async { tokio::try_join!(serve_unix, serve_tcp) };
        let patience_ends = async {
            stop.cancelled().await;
            // A stream would outlast any patience, and its reader wants a file with a proper end.
            control.capture_stop_all();
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            served = serve_both => served.map(drop),
            () = patience_ends => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
