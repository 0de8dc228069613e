//! Joins the planes: what one asks for by a trait, another has.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use anyhow::Result;
use spike_common::socket::FlowKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::captures::Captures;
use crate::identity::Processes;
use crate::kernel::Kernel;
use crate::proxy::namespaces::{ListenerTable, Serve};
use crate::proxy::{Original, Originals, Proxy, UpstreamSockets};

/// Where redirected connections were meant to go, from the connect hook's notes.
pub(super) struct KernelOriginals {
    pub(super) kernel: Arc<Kernel>,
    pub(super) processes: Arc<Processes>,
    pub(super) captures: Arc<Captures>,
}

impl Originals for KernelOriginals {
    fn take(&self, netns_cookie: u64, client: SocketAddr, listener: SocketAddr) -> Option<Original> {
        let flow = self
            .kernel
            .take_redirect(&FlowKey::new(netns_cookie, client.into(), listener.into()))?;
        let task = &flow.task;
        Some(Original {
            destination: flow.original.socket_addr(),
            caller: self.processes.caller(task.tgid, task.cgroup, task.name()),
        })
    }

    fn carried(
        &self,
        netns_cookie: u64,
        client: (SocketAddr, SocketAddr),
        upstream: (SocketAddr, SocketAddr),
    ) {
        self.captures.carried(netns_cookie, client, upstream);
    }
}

/// Tells the connect hook of the listeners.
pub(super) struct KernelListeners(pub(super) Arc<Kernel>);

impl ListenerTable for KernelListeners {
    fn cookie(&self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        self.0.netns_cookie(&socket)
    }

    fn set(&self, netns_cookie: u64, port4: u16, port6: u16) -> Result<()> {
        self.0.set_listener(netns_cookie, port4, port6)
    }

    fn remove(&self, netns_cookie: u64) {
        self.0.remove_listener(netns_cookie);
    }
}

/// Gives each listener to the proxy.
pub(super) struct ServeByProxy(pub(super) Arc<Proxy>);

impl Serve for ServeByProxy {
    fn serve(
        &self,
        listener: TcpListener,
        netns_cookie: u64,
        sockets: Arc<dyn UpstreamSockets>,
        stop: CancellationToken,
    ) {
        tokio::spawn(Arc::clone(&self.0).serve(listener, netns_cookie, sockets, stop));
    }
}
