//! Lets others answer connections in the place of their servers.

use std::{io, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::{Proxy, UpstreamSockets, upstream};
use crate::model::{Caller, Destination};

/// Connects to where a caller wanted to go, as the caller would have.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

/// Answers connections in the place of their servers.
pub trait StandIns: Send + Sync + 'static {
    /// The server's end of a connection, when it is one that is stood in for. `dial` reaches the real server.
    fn answer(&self, caller: &Caller, destination: &Destination, dial: Dial)
    -> Option<io::Result<TcpStream>>;
}

impl Proxy {
    /// Has these asked from now on who answers a connection.
    pub fn stand_in_by(&self, stand_ins: Arc<dyn StandIns>) {
        // A second time there is none.
        let _ = self.stand_ins.set(stand_ins);
    }

    /// The server's end of a connection of the caller at `client`, when someone stands in for the server: at once, and
    /// without a connection to it.
    pub(super) fn stood_in(
        &self,
        caller: &Caller,
        destination: &Destination,
        sockets: &Arc<dyn UpstreamSockets>,
        client: SocketAddr,
    ) -> Option<io::Result<TcpStream>> {
        let (sockets, address) = (sockets.clone(), destination.address);
        let dial: Dial = Arc::new(move || {
            let sockets = sockets.clone();
            Box::pin(async move {
                let connected = upstream::connect(&*sockets, address, client).await;
                connected.map_err(io::Error::other)
            })
        });
        self.stand_ins.get()?.answer(caller, destination, dial)
    }
}
