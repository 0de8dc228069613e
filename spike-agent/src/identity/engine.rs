//! Asks container engines what a container is called, which only they know.
//!
//! services --id--> Engine --question--> asker --answer--> Engine: who looks a name up never waits for an engine; the
//! name is there at some later look. An engine that is absent, slow or broken costs names, nothing else.

mod bundle;
mod socket;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

/// Bounds the memory for what is known; who was asked for longest ago is forgotten.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Questions that wait; when they are more, those who ask come back.
const QUEUE: usize = 256;
/// How long one engine may take for one answer.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a container that nobody knows is not asked for again: its engine may start later.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// How long an engine that failed is left alone.
const REST: Duration = Duration::from_secs(30);
/// Bounds a label's value and how many are kept.
const MAX_LABEL: usize = 1024;
const MAX_LABELS: usize = 128;

/// What an engine tells of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerInfo {
    /// Its name; empty when it has none.
    pub(super) name: String,
    /// Its labels, annotations of its bundle among them.
    pub(super) labels: BTreeMap<String, String>,
}

impl ContainerInfo {
    fn new(name: &str, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let fits = |(key, value): &(String, String)| key.len() <= MAX_LABEL && value.len() <= MAX_LABEL;
        Self {
            name: name.chars().take(MAX_LABEL).collect(),
            labels: labels.into_iter().filter(fits).take(MAX_LABELS).collect(),
        }
    }
}

/// Where engines are to be found.
#[derive(Clone, Debug)]
pub struct EnginePlaces {
    /// Sockets that speak Docker's HTTP API: Docker's, and Podman's when it is enabled.
    pub sockets: Vec<PathBuf>,
    /// Directory of users' sockets, which speak for a user's own containers: `UID/podman/podman.sock` and
    /// `UID/docker.sock`.
    pub users: PathBuf,
    /// State directories of containerd, which has a directory for each container with what CRI wrote there.
    pub containerd: Vec<PathBuf>,
    /// Run directory of CRI-O's storage, which has the same.
    pub crio: PathBuf,
}

impl Default for EnginePlaces {
    fn default() -> Self {
        Self {
            sockets: vec!["/run/docker.sock".into(), "/run/podman/podman.sock".into()],
            users: "/run/user".into(),
            containerd: vec!["/run/containerd".into(), "/run/k3s/containerd".into()],
            crio: "/run/containers/storage".into(),
        }
    }
}

/// What engines told, and whom to ask.
#[derive(Debug)]
pub struct Engine {
    known: Mutex<LruCache<String, Known>>,
    question_tx: mpsc::Sender<Question>,
    answers: AtomicU64,
}

#[derive(Debug)]
enum Known {
    /// Asked for.
    Soon,
    Is(Arc<ContainerInfo>),
    /// Nobody knew it then.
    Nothing(Instant),
}

/// A container, and the user whose engine may know it.
#[derive(Debug)]
struct Question {
    id: String,
    user: Option<u32>,
}

impl Engine {
    /// Asks at `places`, by a task on the current runtime that ends with the last holder of what is returned.
    pub fn start(places: EnginePlaces) -> Arc<Self> {
        let (question_tx, question_rx) = mpsc::channel(QUEUE);
        let engine = Arc::new(Self::new(question_tx));
        tokio::spawn(ask(places, question_rx, Arc::downgrade(&engine)));
        engine
    }

    /// Knows and asks nothing.
    pub fn absent() -> Arc<Self> {
        Arc::new(Self::new(mpsc::channel(1).0))
    }

    fn new(question_tx: mpsc::Sender<Question>) -> Self {
        Self {
            known: Mutex::new(LruCache::new(MAX_KNOWN)),
            question_tx,
            answers: AtomicU64::new(0),
        }
    }

    /// What is known of a container by now; at the first call, engines are asked. `user` is whose container it is when
    /// it is not root's.
    pub(super) fn container(&self, id: &str, user: Option<u32>) -> Option<Arc<ContainerInfo>> {
        let mut known = self.lock();
        match known.get(id) {
            Some(Known::Is(info)) => return Some(Arc::clone(info)),
            Some(Known::Soon) => return None,
            Some(Known::Nothing(at)) if at.elapsed() < UNKNOWN_FOR => return None,
            _ => {}
        }
        let id = id.to_owned();
        if self
            .question_tx
            .try_send(Question { id: id.clone(), user })
            .is_ok()
        {
            known.put(id, Known::Soon);
        }
        None
    }

    /// How many answers came: while this stays the same, so does what is known.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Acquire)
    }

    fn answer(&self, id: String, info: Option<ContainerInfo>) {
        let is_new = info.is_some();
        let known = info.map_or_else(
            || Known::Nothing(Instant::now()),
            |info| Known::Is(Arc::new(info)),
        );
        self.lock().put(id, known);
        self.answers.fetch_add(u64::from(is_new), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers questions one by one until the engine is dropped.
async fn ask(
    places: EnginePlaces,
    mut question_rx: mpsc::Receiver<Question>,
    engine: std::sync::Weak<Engine>,
) {
    let mut resting = LruCache::new(MAX_KNOWN);
    while let Some(question) = question_rx.recv().await {
        let info = find(&places, &question, &mut resting).await;
        debug!(
            container = question.id,
            known = info.is_some(),
            "asked for a container"
        );
        let Some(engine) = engine.upgrade() else { return };
        engine.answer(question.id, info);
    }
}

/// The first answer of those who may know; an engine that failed a moment ago is passed over.
async fn find(
    places: &EnginePlaces,
    question: &Question,
    resting: &mut LruCache<PathBuf, Instant>,
) -> Option<ContainerInfo> {
    let id = question.id.as_str();
    let mut sockets = places.sockets.clone();
    if let Some(user) = question.user {
        // Another user's containers are none of theirs to name.
        let own = places.users.join(user.to_string());
        sockets.splice(.., [own.join("podman/podman.sock"), own.join("docker.sock")]);
    } else if let Some(info) = bundle::find(places, id).await {
        return Some(info);
    }
    for path in sockets {
        if resting.get(&path).is_some_and(|since| since.elapsed() < REST) {
            continue;
        }
        let answer = tokio::time::timeout(LIMIT, socket::inspect(&path, id)).await;
        match answer.unwrap_or(Err(socket::AskError::Slow)) {
            Ok(Some(info)) => return Some(info),
            Ok(None) => {}
            Err(error) => {
                debug!("ask {} for container {id}: {error}", path.display());
                resting.put(path, Instant::now());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
