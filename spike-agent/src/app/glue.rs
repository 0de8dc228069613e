//! Joins the planes: what one asks for by a trait, another has.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use spike_common::config::DatagramPorts;
use spike_common::edge::{TCP, UDP};
use spike_common::socket::{Flow, FlowKey};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::captures::Captures;
use super::known::Known;
use crate::kernel::Kernel;
use crate::proxy::namespaces::{ListenerTable, Serve};
use crate::proxy::{Original, Originals, Proxy, UpstreamSockets};

/// Where redirected connections were meant to go, from the connect hook's notes.
pub(super) struct KernelOriginals {
    pub(super) kernel: Arc<Kernel>,
    pub(super) known: Arc<Known>,
    pub(super) captures: Arc<Captures>,
}

impl KernelOriginals {
    fn original(&self, netns_cookie: u64, flow: &Flow, client: SocketAddr, transport: u32) -> Original {
        let address = flow.original.socket_addr();
        let mut caller = self.known.process(&flow.task);
        caller.source = Some(client);
        Original {
            destination: self
                .known
                .destination(netns_cookie, &flow.task, address, transport),
            caller,
        }
    }
}

impl Originals for KernelOriginals {
    fn take(&self, netns_cookie: u64, client: SocketAddr, listener: SocketAddr) -> Option<Original> {
        let flow = self
            .kernel
            .take_redirect(&FlowKey::new(netns_cookie, client.into(), listener.into()))?;
        Some(self.original(netns_cookie, &flow, client, TCP))
    }

    fn datagrams(
        &self,
        netns_cookie: u64,
        client: SocketAddr,
        listener: SocketAddr,
    ) -> Option<(u64, SocketAddr)> {
        let key = FlowKey::new(netns_cookie, client.into(), listener.into());
        let flow = self.kernel.datagram_flow(&key)?;
        Some((flow.cookie, flow.original.socket_addr()))
    }

    fn datagram_original(
        &self,
        netns_cookie: u64,
        client: SocketAddr,
        listener: SocketAddr,
    ) -> Option<Original> {
        let key = FlowKey::new(netns_cookie, client.into(), listener.into());
        let flow = self.kernel.datagram_flow(&key)?;
        Some(self.original(netns_cookie, &flow, client, UDP))
    }

    fn hosts(&self, ip: IpAddr) -> Vec<Arc<str>> {
        self.known.names_of(ip)
    }

    fn pass(&self, cookie: u64) {
        self.kernel.pass_syn(cookie);
    }

    fn time_out(&self, cookie: u64, after: Duration) {
        let milliseconds = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        self.kernel.time_out_syn(cookie, milliseconds);
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
        self.0.remove_datagram_ports(netns_cookie);
    }

    fn set_datagrams(&self, netns_cookie: u64, ports4: [u16; 8], ports6: [u16; 8]) -> Result<()> {
        self.0
            .set_datagram_ports(netns_cookie, DatagramPorts { ports4, ports6 })
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

    fn serve_datagrams(
        &self,
        socket: UdpSocket,
        netns_cookie: u64,
        sockets: Arc<dyn UpstreamSockets>,
        stop: CancellationToken,
    ) {
        tokio::spawn(Arc::clone(&self.0).serve_datagrams(socket, netns_cookie, sockets, stop));
    }
}
