//! Lets others answer connections in the place of their servers.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

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

    /// What answers the datagrams of a caller's socket to a destination, when they are stood in for.
    fn datagrams(&self, _caller: &Caller, _destination: &Destination) -> Option<Arc<dyn DatagramAnswers>> {
        None
    }
}

/// Answers the datagrams between one socket and one destination.
pub trait DatagramAnswers: Send + Sync + 'static {
    /// What becomes of a datagram of the caller's.
    fn reply(&self, request: &[u8]) -> Reply;

    /// The real server answers one that was passed on.
    fn heard(&self, _response: &[u8]) {}
}

/// What becomes of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This is its answer, after a time.
    Answer(Vec<u8>, Duration),
    /// It goes on to the real server.
    Pass,
    /// Nothing.
    Silence,
}

impl Proxy {
    /// Has these asked from now on who answers a connection.
    pub fn stand_in_by(&self, stand_ins: Arc<dyn StandIns>) {
        // A second time there is none.
        let _ = self.stand_ins.set(stand_ins);
    }

    /// What answers the datagrams of a caller, when someone stands in for their server.
    pub(super) fn datagram_answers(
        &self,
        caller: &Caller,
        destination: &Destination,
    ) -> Option<Arc<dyn DatagramAnswers>> {
        self.stand_ins.get()?.datagrams(caller, destination)
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
