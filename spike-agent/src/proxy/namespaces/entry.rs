//! A network namespace that is known: what the agent has open there, and what the kernel was told of it.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use netlink_sys::Socket as Netlink;
use tokio::{io::unix::AsyncFd, net::TcpListener};
use tokio_util::sync::CancellationToken;

use super::{
    ListenerTable, Serve,
    inside::{self, Datagrams, Loopback, Opened},
    upstream::{Here, Inside},
};
use crate::lock::lock;
use crate::{
    model::view::{NamespaceState, NamespaceView},
    proxy::UpstreamSockets,
};

/// The known namespaces, by inode.
pub(super) type Known = Mutex<BTreeMap<u64, Entry>>;

/// A known namespace.
pub(super) struct Entry {
    pub(super) name: Option<String>,
    /// The process that the kernel saw there: it may be a thread of it alone that is inside.
    pub(super) asker: Option<u32>,
    /// Looks at the host, one after the other, that did not find it.
    pub(super) missed: u32,
    pub(super) kind: Kind,
}

/// How it stands with a namespace.
pub(super) enum Kind {
    /// The agent listens.
    Open(Arc<Open>),
    /// It could not, and tries again.
    Failed {
        /// 0 when not even this is known.
        cookie: u64,
        detail: String,
    },
}

impl Entry {
    pub(super) fn view(&self, inode: u64) -> NamespaceView {
        let (cookie, state, detail) = match &self.kind {
            Kind::Open(open) => {
                let told = lock(&open.told);
                (open.cookie, told.state, told.detail.clone())
            }
            Kind::Failed { cookie, detail } => (*cookie, NamespaceState::Unreachable, Some(detail.clone())),
        };
        NamespaceView {
            inode,
            cookie,
            name: self.name.clone(),
            state,
            detail,
        }
    }
}

/// A namespace that the agent listens in.
pub(super) struct Open {
    cookie: u64,
    port4: u16,
    port6: u16,
    table: Arc<dyn ListenerTable>,
    told: Mutex<Told>,
    /// None for the agent's own namespace.
    inside: Option<Arc<Inside>>,
    /// Ends the listeners, and what follows the loopback interface.
    stop: CancellationToken,
    has_datagrams: AtomicBool,
}

/// What the kernel was told; changed under one lock, so that nothing is said of a namespace after its removal.
struct Told {
    loopback: Loopback,
    ports: Option<(u16, u16)>,
    state: NamespaceState,
    detail: Option<String>,
    closed: bool,
}

impl Open {
    /// Hands the listeners to `serve` and follows the loopback interface; [`Self::refresh`] then tells the kernel.
    pub(super) fn start(
        opened: Opened,
        inside: Option<Arc<Inside>>,
        table: Arc<dyn ListenerTable>,
        serve: &dyn Serve,
    ) -> Result<Arc<Self>> {
        let stop = CancellationToken::new();
        let listener4 = TcpListener::from_std(opened.listener4).context("poll the listener")?;
        let listener6 = opened.listener6.map(TcpListener::from_std).transpose();
        let listener6 = listener6.context("poll the IPv6 listener")?;
        // SAFETY: the socket keeps its one descriptor until it is dropped.
        let changes = unsafe { AsyncFd::register(opened.changes) }.context("poll the netlink socket")?;
        for listener in [Some(listener4), listener6].into_iter().flatten() {
            let sockets: Arc<dyn UpstreamSockets> = match &inside {
                Some(inside) => inside.clone(),
                None => Arc::new(Here),
            };
            serve.serve(listener, opened.cookie, sockets, stop.clone());
        }
        let open = Arc::new(Self {
            cookie: opened.cookie,
            port4: opened.port4,
            port6: opened.port6,
            table,
            told: Mutex::new(Told {
                loopback: opened.loopback,
                ports: None,
                state: NamespaceState::LoDown,
                detail: None,
                closed: false,
            }),
            inside,
            stop,
            has_datagrams: AtomicBool::new(false),
        });
        tokio::spawn(open.clone().follow(changes));
        Ok(open)
    }

    /// Are its ports for datagrams open?
    pub(super) fn has_datagrams(&self) -> bool {
        self.has_datagrams.load(Ordering::Relaxed)
    }

    /// Opens its ports for datagrams; blocks.
    pub(super) fn open_datagrams(&self) -> io::Result<Datagrams> {
        match &self.inside {
            Some(inside) => inside.open_datagrams(),
            None => inside::open_datagrams(),
        }
    }

    /// Hands the ports to `serve` and tells the kernel.
    pub(super) fn serve_datagrams(&self, opened: Datagrams, serve: &dyn Serve) -> Result<()> {
        for socket in opened.sockets {
            let sockets: Arc<dyn UpstreamSockets> = match &self.inside {
                Some(inside) => inside.clone(),
                None => Arc::new(Here),
            };
            serve.serve_datagrams(socket, self.cookie, sockets, self.stop.clone());
        }
        self.has_datagrams.store(true, Ordering::Relaxed);
        let told = lock(&self.told);
        if told.closed {
            return Ok(());
        }
        self.table
            .set_datagrams(self.cookie, opened.ports4, opened.ports6)
    }

    /// Looks at the loopback interface and tells the kernel what changed.
    pub(super) fn refresh(&self) -> Result<()> {
        let mut told = lock(&self.told);
        if told.closed {
            return Ok(());
        }
        let result = self.tell(&mut told);
        if let Err(error) = &result {
            told.state = NamespaceState::Unreachable;
            told.detail = Some(format!("{error:#}"));
        }
        result
    }

    fn tell(&self, told: &mut Told) -> Result<()> {
        let up = told.loopback.is_up();
        let up = up.context("ask for the state of the loopback interface (SIOCGIFFLAGS)")?;
        let ports = match (up, up && told.loopback.has_ipv6()) {
            (false, _) => (0, 0),
            (true, false) => (self.port4, 0),
            (true, true) => (self.port4, self.port6),
        };
        if told.ports != Some(ports) {
            let set = self.table.set(self.cookie, ports.0, ports.1);
            set.context("tell the kernel of the namespace's listener")?;
            told.ports = Some(ports);
        }
        (told.state, told.detail) = if up {
            (NamespaceState::Ready, None)
        } else {
            let advice = "its loopback interface is down: ip link set lo up";
            (NamespaceState::LoDown, Some(advice.to_owned()))
        };
        Ok(())
    }

    async fn follow(self: Arc<Self>, changes: AsyncFd<Netlink>) {
        loop {
            let ready = tokio::select! {
                () = self.stop.cancelled() => return,
                ready = changes.readable() => ready,
            };
            let Ok(mut ready) = ready else { return };
            // What the message says does not matter, nor whether some were lost.
            let mut buffer = Vec::with_capacity(8192);
            let received = ready.try_io(|changes| {
                buffer.clear();
                changes.get_ref().recv(&mut buffer, 0)
            });
            if received.is_ok() && self.refresh().is_err() {
                tracing::debug!(
                    cookie = self.cookie,
                    "loopback interface changed; tell the kernel later"
                );
            }
        }
    }

    /// From now on no connection is sent here.
    pub(super) fn close(&self) {
        let mut told = lock(&self.told);
        told.closed = true;
        self.table.remove(self.cookie);
    }

    /// Ends the listeners, after [`Self::close`].
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Lets go of a namespace that nobody is in any more, after [`Self::close`].
    pub(super) fn forget(&self) {
        self.stop();
        if let Some(inside) = &self.inside {
            inside.forget();
        }
    }
}
