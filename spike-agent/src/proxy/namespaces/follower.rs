//! Keeps the known namespaces in step with the host while interception is wanted; it alone opens and closes.

use std::{
    collections::BTreeMap,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    ListenerTable, Serve,
    discover::{self, Place},
    door::Door,
    entry::{Entry, Kind, Known, Open},
    inside::{self, Failure, Opened},
    mounts::MountEvents,
    upstream::Inside,
};
use crate::lock::lock;

/// Between two looks at the host.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between a file under `/run/netns` and the mount on it.
const SETTLE: Duration = Duration::from_millis(20);

/// Connections that the kernel redirected before it knew better still arrive.
const GRACE: Duration = Duration::from_millis(100);

/// One look may miss a namespace while its only process forks and ends.
const MISSES: u32 = 2;

/// What the follower is asked for.
pub(super) enum Command {
    Arm {
        armed: bool,
        done: oneshot::Sender<Result<()>>,
    },
    Wanted {
        tgid: u32,
    },
}

/// The task.
pub(super) struct Follower {
    known: Arc<Known>,
    table: Arc<dyn ListenerTable>,
    serve: Arc<dyn Serve>,
    door: Arc<Door>,
    armed: bool,
    datagrams: Arc<AtomicBool>,
}

impl Follower {
    pub(super) fn new(
        known: Arc<Known>,
        table: Arc<dyn ListenerTable>,
        serve: Arc<dyn Serve>,
        datagrams: Arc<AtomicBool>,
    ) -> Self {
        Self {
            datagrams,
            known,
            table,
            serve,
            door: Arc::default(),
            armed: false,
        }
    }

    /// Until `stop`, or until nobody is there to ask.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let mounts = MountEvents::new();
        let mut interval = time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    None => break,
                    Some(Command::Wanted { tgid }) => self.look_at(tgid).await,
                    Some(Command::Arm { armed, done }) => {
                        mounts.watch();
                        interval.reset();
                        let result = self.arm(armed).await;
                        let _ = done.send(result);
                    }
                },
                _ = interval.tick(), if self.armed => {
                    mounts.watch();
                    self.look_again().await;
                }
                () = mounts.changed(), if self.armed => {
                    time::sleep(SETTLE).await;
                    self.look_again().await;
                }
            }
        }
        self.close();
    }

    async fn arm(&mut self, armed: bool) -> Result<()> {
        self.armed = armed;
        if armed {
            self.look().await
        } else {
            self.close();
            Ok(())
        }
    }

    /// Takes all entries from the kernel, then ends the listeners; open connections go on.
    fn close(&self) {
        let known = mem::take(&mut *lock(&self.known));
        let mut listening = Vec::new();
        for entry in known.into_values() {
            self.unlist(&entry);
            if let Kind::Open(open) = entry.kind {
                listening.push(open);
            }
        }
        tokio::spawn(async move {
            time::sleep(GRACE).await;
            for open in listening {
                open.stop();
            }
        });
    }

    fn unlist(&self, entry: &Entry) {
        match &entry.kind {
            Kind::Open(open) => open.close(),
            Kind::Failed { cookie: 0, .. } => {}
            Kind::Failed { cookie, .. } => self.table.remove(*cookie),
        }
    }

    async fn look_again(&self) {
        if let Err(error) = self.look().await {
            tracing::debug!(
                error = format!("{error:#}"),
                "look at the host's network namespaces"
            );
        }
    }

    /// Looks at the host: drops what is gone, opens what is new. The result is that of the agent's own namespace.
    async fn look(&self) -> Result<()> {
        let askers: Vec<u32> = lock(&self.known)
            .values()
            .filter_map(|entry| entry.asker)
            .collect();
        let places = spawn_blocking(move || -> io::Result<_> {
            Ok((discover::own()?, discover::everything(&askers)?))
        });
        let (own, places) = places.await?.context("look for network namespaces in /proc")?;
        self.drop_gone(&places);
        let mut result = Ok(());
        for (inode, place) in places {
            let done = self.keep(own, inode, place, None).await;
            if inode == own {
                result = done.context("listen in the agent's own network namespace");
            }
        }
        result
    }

    /// Looks at one process that the kernel saw in a namespace that it does not know.
    async fn look_at(&self, tgid: u32) {
        if !self.armed {
            return;
        }
        let places =
            spawn_blocking(move || -> io::Result<_> { Ok((discover::own()?, discover::of_process(tgid))) });
        let Ok(Ok((own, places))) = places.await else {
            return;
        };
        for (inode, place) in places {
            // Those that are known are looked at in their turn.
            if !lock(&self.known).contains_key(&inode) {
                let _ = self.keep(own, inode, place, Some(tgid)).await;
            }
        }
    }

    fn drop_gone(&self, places: &BTreeMap<u64, Place>) {
        lock(&self.known).retain(|inode, entry| {
            if let Some(place) = places.get(inode) {
                entry.missed = 0;
                entry.name.clone_from(&place.name);
                return true;
            }
            entry.missed += 1;
            if entry.missed < MISSES {
                return true;
            }
            self.unlist(entry);
            if let Kind::Open(open) = &entry.kind {
                open.forget();
            }
            tracing::debug!(inode, "a network namespace is gone");
            false
        });
    }

    /// Sees to it that the agent listens in a namespace and that the kernel knows.
    async fn keep(&self, own: u64, inode: u64, place: Place, asker: Option<u32>) -> Result<()> {
        let (known, asker) = match lock(&self.known).get(&inode) {
            None => (None, asker),
            Some(entry) => match &entry.kind {
                Kind::Open(open) => (Some(open.clone()), entry.asker),
                Kind::Failed { .. } => (None, entry.asker),
            },
        };
        if let Some(open) = known {
            self.keep_datagrams(&open).await?;
            return open.refresh();
        }
        let name = place.name.clone();
        let (door, table) = (self.door.clone(), self.table.clone());
        let opened = spawn_blocking(move || open(own, inode, &place, &door, &table)).await?;
        let opened = match opened {
            Ok(None) => return Ok(()),
            Ok(Some((opened, inside))) => {
                let cookie = opened.cookie;
                Open::start(opened, inside, self.table.clone(), &*self.serve)
                    .map_err(|error| Failure { cookie, error })
            }
            Err(failure) => Err(failure),
        };
        let (kind, result) = match opened {
            Ok(open) => {
                let result = self.keep_datagrams(&open).await.and_then(|()| open.refresh());
                (Kind::Open(open), result)
            }
            Err(failure) => {
                let (kind, error) = self.failed(inode, failure);
                (kind, Err(error))
            }
        };
        let entry = Entry {
            name,
            asker,
            missed: 0,
            kind,
        };
        lock(&self.known).insert(inode, entry);
        result
    }

    /// Sees to it that the agent takes datagrams in a namespace, when that is wanted.
    async fn keep_datagrams(&self, open: &Arc<Open>) -> Result<()> {
        if !self.datagrams.load(Ordering::Relaxed) || open.has_datagrams() {
            return Ok(());
        }
        let inside = open.clone();
        let opened = spawn_blocking(move || inside.open_datagrams()).await?;
        open.serve_datagrams(opened.context("open ports for datagrams")?, &*self.serve)
    }

    /// Says so once, and lets the kernel know the namespace, so that it does not ask for it at each connection.
    fn failed(&self, inode: u64, failure: Failure) -> (Kind, anyhow::Error) {
        let Failure { cookie, error } = failure;
        let detail = format!("{error:#}");
        let before = match lock(&self.known).get(&inode).map(|entry| &entry.kind) {
            Some(Kind::Failed { detail, .. }) => Some(detail.clone()),
            _ => None,
        };
        if before.as_ref() != Some(&detail) {
            tracing::warn!(
                inode,
                error = detail,
                "connections of a network namespace are left alone"
            );
        }
        if cookie != 0 {
            let _ = self.table.set(cookie, 0, 0);
        }
        (Kind::Failed { cookie, detail }, error)
    }
}

type Found = Option<(Opened, Option<Arc<Inside>>)>;

/// Opens the sockets in a namespace; none when it went away meanwhile.
fn open(
    own: u64,
    inode: u64,
    place: &Place,
    door: &Arc<Door>,
    table: &Arc<dyn ListenerTable>,
) -> Result<Found, Failure> {
    if inode == own {
        return Ok(Some((inside::open(&**table)?, None)));
    }
    let namespace = place.open(inode).context("open the namespace's file");
    let Some(namespace) = namespace.map_err(Failure::outside)? else {
        return Ok(None);
    };
    let namespace = Arc::new(namespace);
    let table = table.clone();
    let opened = door.inside(namespace.clone(), move || inside::open(&*table));
    let opened = opened.map_err(|error| {
        Failure::outside(anyhow!(error).context("enter the namespace; needs CAP_SYS_ADMIN"))
    })?;
    Ok(Some((
        opened?,
        Some(Arc::new(Inside::new(door.clone(), namespace))),
    )))
}
