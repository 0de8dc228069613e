//! Makes interception work for callers in any network namespace: `127.0.0.1` is another one in each of them, so the
//! agent listens in every namespace that has a process, and makes its sockets towards the servers there, too.
//!
//! Nothing here may keep a namespace alive that everybody else has left: sockets and descriptors inside one pin it,
//! so each look at the host also lets go of those that no process and no mount refers to any more.

mod discover;
mod door;
mod entry;
mod follower;
mod inside;
mod mounts;
#[cfg(test)]
mod tests;
mod upstream;

use std::{
    collections::BTreeMap,
    io,
    net::UdpSocket,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

pub(super) use self::upstream::raw;
use self::{
    entry::Known,
    follower::{Command, Follower},
};
use crate::lock::lock;
use crate::{model::view::NamespaceView, proxy::UpstreamSockets};

/// Requests of the kernel's that may wait; more are dropped, since the next look at the host finds the same.
const COMMANDS: usize = 256;

/// What the kernel side must know of a namespace.
pub trait ListenerTable: Send + Sync + 'static {
    /// The kernel's cookie for the namespace that a socket of the agent is in; older kernels want it bound.
    fn cookie(&self, socket: BorrowedFd<'_>) -> io::Result<u64>;

    /// The agent listens at these ports of the namespace's `127.0.0.1` and `::1`; port 0: not there. With both at 0
    /// the namespace is known but its connections go straight.
    fn set(&self, netns_cookie: u64, port4: u16, port6: u16) -> Result<()>;

    /// The agent takes datagrams at these ports of the namespace's `127.0.0.1` and `::1`.
    fn set_datagrams(
        &self,
        _netns_cookie: u64,
        _ports4: [u16; DATAGRAM_PORTS],
        _ports6: [u16; DATAGRAM_PORTS],
    ) -> Result<()> {
        Ok(())
    }

    /// The agent does not listen there any more.
    fn remove(&self, netns_cookie: u64);
}

/// Serves what arrives at a listener.
pub trait Serve: Send + Sync + 'static {
    /// Starts a task that accepts from `listener` until `stop`; connections that it accepted before go on after it.
    /// `sockets` makes sockets in the listener's namespace, and is to be let go with the last connection.
    fn serve(
        &self,
        listener: TcpListener,
        netns_cookie: u64,
        sockets: Arc<dyn UpstreamSockets>,
        stop: CancellationToken,
    );

    /// The same for a port that takes datagrams.
    fn serve_datagrams(
        &self,
        _socket: UdpSocket,
        _netns_cookie: u64,
        _sockets: Arc<dyn UpstreamSockets>,
        _stop: CancellationToken,
    ) {
    }
}

/// The agent's ports for datagrams in each namespace, as many as the kernel side knows.
pub use spike_common::config::DATAGRAM_PORTS;

/// The network namespaces of the host, and the agent's listeners in them.
pub struct Namespaces {
    known: Arc<Known>,
    /// Namespaces --Command--> Follower, which alone opens and closes.
    commands: mpsc::Sender<Command>,
    /// Ports for datagrams are wanted, too.
    datagrams: Arc<AtomicBool>,
}

impl Namespaces {
    /// Starts with no listener; follows the host's namespaces, while armed, until `stop` or until this is dropped.
    ///
    /// Must be called within a tokio runtime.
    pub fn new(table: Arc<dyn ListenerTable>, serve: Arc<dyn Serve>, stop: CancellationToken) -> Arc<Self> {
        let known = Arc::new(Known::new(BTreeMap::new()));
        let (commands, commands_rx) = mpsc::channel(COMMANDS);
        let datagrams = Arc::<AtomicBool>::default();
        let follower = Follower::new(known.clone(), table, serve, datagrams.clone());
        tokio::spawn(follower.run(commands_rx, stop));
        Arc::new(Self {
            known,
            commands,
            datagrams,
        })
    }

    /// Whether ports for datagrams are to be opened, too, from the next [`Self::set_armed`] on.
    pub fn want_datagrams(&self, wanted: bool) {
        self.datagrams.store(wanted, Ordering::Relaxed);
    }

    /// Interception is wanted, or not: opens listeners in all namespaces and keeps following them, or closes them to
    /// new connections (those that are open go on).
    ///
    /// Returns when the host was looked at and the kernel knows. An error is one of the agent's own namespace; what is
    /// wrong in others shows in [`Self::view`].
    pub async fn set_armed(&self, armed: bool) -> Result<()> {
        let (done, done_rx) = oneshot::channel();
        let sent = self.commands.send(Command::Arm { armed, done }).await;
        let answer = match sent {
            Ok(()) => done_rx.await.ok(),
            Err(_) => None,
        };
        match answer {
            Some(answer) => answer,
            // The follower closes everything before it goes.
            None if !armed => Ok(()),
            None => None.context("open listeners in network namespaces: the agent is stopping"),
        }
    }

    /// A process in a namespace that the kernel does not know made a connection of interest: looks at it now.
    pub fn wanted(&self, tgid: u32) {
        let _ = self.commands.try_send(Command::Wanted { tgid });
    }

    /// The namespaces in which connections can be intercepted, or why they cannot; none while not armed.
    pub fn view(&self) -> Vec<NamespaceView> {
        let known = lock(&self.known);
        known.iter().map(|(inode, known)| known.view(*inode)).collect()
    }
}
