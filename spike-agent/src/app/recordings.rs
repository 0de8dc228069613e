//! Shows the connections that the proxy carries to the recordings that want them, with the names of their ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use spike_common::socket::{FlowKey, ServiceKey};

use super::calls::Calls;
use crate::identity::Services;
use crate::kernel::Kernel;
use crate::model::selector::DNS_PORT;
use crate::model::{Direction, FieldError, RecordingSpec, Selector};
use crate::protocol::Side;
use crate::proxy::{Opened, Recorder, Recorders};
use crate::recording::live::{Connection, Live, Options};
use crate::recording::{About, NewConnection, RecordingError, Redaction};

/// The recordings that run.
pub(super) struct Recordings {
    kernel: Arc<Kernel>,
    services: Arc<Services>,
    calls: Arc<Calls>,
    /// For files whose place nobody says.
    directory: PathBuf,
    running: RwLock<Vec<Running>>,
}

#[derive(Clone)]
struct Running {
    selector: Arc<Selector>,
    live: Arc<Live>,
}

impl Recordings {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        services: Arc<Services>,
        calls: Arc<Calls>,
        directory: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self {
            kernel,
            services,
            calls,
            directory,
            running: RwLock::default(),
        })
    }

    /// Begins a file; connections come to it once the kernel's rules follow.
    pub(super) fn start(&self, spec: RecordingSpec, redaction: Redaction) -> Result<Arc<Live>> {
        let path = match &spec.raw.output {
            Some(path) => PathBuf::from(path),
            None => self.own_path()?,
        };
        let options = Options {
            about: About {
                host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
                selector: serde_json::json!({
                    "from": spec.raw.from, "to": spec.raw.to, "everything": spec.raw.everything,
                }),
                ..About::default()
            },
            redaction,
            body_limit: spec.body_limit,
            backpressure: spec.raw.backpressure,
        };
        let live = Live::start(&path, options).map_err(|error| match error {
            RecordingError::File { .. } => anyhow::Error::new(FieldError::new("output", error)),
            error => error.into(),
        })?;
        let live = Arc::new(live);
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        running.push(Running {
            selector: Arc::new(spec.selector),
            live: Arc::clone(&live),
        });
        Ok(live)
    }

    /// Takes no new connections to it.
    pub(super) fn remove(&self, live: &Arc<Live>) {
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        running.retain(|other| !Arc::ptr_eq(&other.live, live));
    }

    /// What the kernel must send this way.
    pub(super) fn selectors(&self) -> Vec<Arc<Selector>> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running
            .iter()
            .map(|running| Arc::clone(&running.selector))
            .collect()
    }

    /// Ends all of them.
    pub(super) async fn finish(&self) {
        let all = std::mem::take(&mut *self.running.write().unwrap_or_else(PoisonError::into_inner));
        for running in &all {
            running.live.stop();
        }
        for running in &all {
            running.live.ended().await;
        }
    }

    fn own_path(&self) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let directory = &self.directory;
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.with_context(|| format!("make {}", directory.display()))?;
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Ok(directory.join(format!("{}.spike", now.replace(':', "-"))))
    }

    /// What is known of a connection's ends, and the name that led the caller to its address.
    fn describe(&self, opened: &Opened<'_>) -> NewConnection {
        let Opened {
            caller,
            destination,
            netns_cookie,
            client,
            ..
        } = *opened;
        let key = FlowKey::new(netns_cookie, client.0.into(), client.1.into());
        let flow = if opened.is_datagrams {
            self.kernel.datagram_flow(&key)
        } else {
            self.kernel.flow(&key)
        };
        let service = |task| self.services.of(&task).name.clone();
        let short = |exe: &str| exe.rsplit('/').next().unwrap_or(exe).to_owned();
        let host = flow.and_then(|flow| self.host(flow.edge));
        let callee = self
            .kernel
            .service(&ServiceKey::new(netns_cookie, destination.address.into()));
        let callee = callee.map(service).filter(|name| !name.is_empty());
        let named = flow
            .map(|flow| service(flow.task))
            .filter(|name| !name.is_empty());
        NewConnection {
            opened_ns: 0,
            transport: if opened.is_datagrams { "udp" } else { "tcp" }.to_owned(),
            caller: named.unwrap_or_else(|| short(&caller.exe)),
            caller_pid: caller.pid,
            caller_exe: caller.exe.clone(),
            caller_cgroup: caller.cgroup.clone(),
            callee: callee.unwrap_or_else(|| {
                host.clone()
                    .unwrap_or_else(|| destination.address.ip().to_canonical().to_string())
            }),
            client: canonical(client.0).to_string(),
            server: canonical(destination.address).to_string(),
            host,
        }
    }

    fn host(&self, edge: u64) -> Option<String> {
        let number = self.kernel.edge(edge)?.name;
        let name = (number != 0).then(|| self.calls.resolved_names().get(number));
        name.flatten().map(|name| name.to_string())
    }
}

impl Recorders for Recordings {
    fn open(&self, opened: &Opened<'_>) -> Vec<Arc<dyn Recorder>> {
        // Faults and stubs bring datagrams of all kinds.
        if opened.is_datagrams && opened.destination.address.port() != DNS_PORT {
            return Vec::new();
        }
        let chosen: Vec<Arc<Live>> = {
            let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
            let meant = running
                .iter()
                .filter(|running| running.selector.matches(opened.caller, opened.destination));
            meant.map(|running| Arc::clone(&running.live)).collect()
        };
        if chosen.is_empty() {
            return Vec::new();
        }
        let new = self.describe(opened);
        chosen
            .into_iter()
            .map(|live| {
                if let Some(host) = &new.host {
                    let address = opened.destination.address.ip().to_canonical();
                    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                    live.name(opened.at, host, kind, &address.to_string());
                }
                Arc::new(Tapped(live.open(opened.at, new.clone()))) as Arc<dyn Recorder>
            })
            .collect()
    }
}

/// A connection that is recorded.
struct Tapped(Connection);

impl Recorder for Tapped {
    fn bytes(&self, way: Direction, at: Instant, bytes: &[u8]) -> Option<BoxFuture<'static, ()>> {
        let from = if way == Direction::Request {
            Side::Client
        } else {
            Side::Server
        };
        self.0
            .bytes(from, at, bytes)
            .map(|wait| wait as BoxFuture<'static, ()>)
    }

    fn ended(&self, at: Instant, is_reset: bool) {
        self.0.ended(at, is_reset);
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
