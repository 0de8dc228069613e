//! Tells which service a process is of, and remembers it beyond the process's end.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lru::LruCache;
use spike_common::{
    socket::ServiceKey,
    task::{EXECUTABLE_LEN, Task},
};

use super::{
    Cgroups,
    engine::Engine,
    look::Look,
    place::{Container, Place},
    service::Service,
};
use crate::lock::lock;
use crate::model::{ServiceKind, ServiceRule};

/// Bounds the memory for processes; those asked for longest ago are forgotten.
const MAX_SEEN: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Bounds the memory for processes that listen, and for the ports of one.
const MAX_LISTENING: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const MAX_PORTS: usize = 64;
/// How long a process id is believed to be the same process's.
const FRESH: Duration = Duration::from_secs(1);

/// The services of this host.
#[derive(Debug)]
pub struct Services {
    cgroups: Arc<Cgroups>,
    rules: Vec<ServiceRule>,
    engine: Arc<Engine>,
    seen: Mutex<LruCache<SeenKey, Seen>>,
    /// By process id: what it runs and which ports it listens on. Filled only for rules that ask for ports.
    listening: Mutex<LruCache<u32, Listening>>,
    /// Counts new ports.
    learned: AtomicU64,
}

/// A process as the kernel tells of it, which may be more than one over time.
type SeenKey = (u32, u64, [u8; EXECUTABLE_LEN]);
type Listening = ([u8; EXECUTABLE_LEN], Vec<u16>);

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    /// `None` when it was gone at first sight.
    look: Option<Arc<Look>>,
    /// As of which epoch `service` is true.
    epoch: u64,
    service: Arc<Service>,
}

impl Services {
    /// Services of processes in the tree `cgroups`; the first of `rules` that matches one names it.
    pub fn new(cgroups: Arc<Cgroups>, rules: Vec<ServiceRule>, engine: Arc<Engine>) -> Self {
        Self {
            cgroups,
            rules,
            engine,
            seen: Mutex::new(LruCache::new(MAX_SEEN)),
            listening: Mutex::new(LruCache::new(MAX_LISTENING)),
            learned: AtomicU64::new(0),
        }
    }

    /// The service of a process that the kernel saw; it may have ended since.
    ///
    /// A container's name comes from its engine, which is never waited for: until it has answered, and at a later call,
    /// the container goes by its id.
    pub fn of(&self, task: &Task) -> Arc<Service> {
        let key = (task.tgid, task.cgroup, task.executable);
        let epoch = self.epoch();
        let seen = lock(&self.seen).get(&key).cloned();
        let is_same = |look: &Option<Arc<Look>>| look.as_ref().is_none_or(|look| look.holds(task.tgid));
        let look = match seen {
            Some(seen) if seen.at.elapsed() < FRESH || is_same(&seen.look) => {
                // What the engine was not asked for, as its queue was full, is asked for now.
                if seen.epoch == epoch && !self.is_waiting(&seen.service) {
                    return seen.service;
                }
                seen.look
            }
            _ if task.tgid == 0 => None,
            _ => Look::at(task.tgid, task.name()).map(Arc::new),
        };
        let service = Arc::new(self.name(task, look.as_deref()));
        let seen = Seen {
            at: Instant::now(),
            look,
            epoch,
            service: Arc::clone(&service),
        };
        lock(&self.seen).put(key, seen);
        service
    }

    /// Learns who listens where, for rules that choose by port.
    pub fn learn_listeners(&self, listeners: &[(ServiceKey, Task)]) {
        if !self.rules.iter().any(ServiceRule::needs_ports) {
            return;
        }
        let mut listening = lock(&self.listening);
        for (key, task) in listeners.iter().filter(|(_, task)| task.tgid != 0) {
            let (executable, ports) =
                listening.get_or_insert_mut(task.tgid, || (task.executable, Vec::new()));
            if *executable != task.executable {
                (*executable, *ports) = (task.executable, Vec::new());
            }
            let port = key.endpoint.port;
            if !ports.contains(&port) && ports.len() < MAX_PORTS {
                ports.push(port);
                self.learned.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Is its name only an id, for want of an answer?
    fn is_waiting(&self, service: &Service) -> bool {
        service.container_id.is_some() && service.container.is_none()
    }

    /// Grows with all that can change a name.
    fn epoch(&self) -> u64 {
        self.engine.answers() + self.learned.load(Ordering::Acquire)
    }

    fn name(&self, task: &Task, look: Option<&Look>) -> Service {
        let cgroup = self.cgroups.path(task.cgroup).unwrap_or_default();
        let place = Place::of(&cgroup);
        let info = match &place.container {
            Some(Container::Id(id)) => self.engine.container(id, place.user),
            _ => None,
        };
        let mut service = Service::of(task.name(), &place, look, info.as_deref());
        if self.rules.is_empty() {
            return service;
        }
        let ports = self.ports(task, look);
        let traits = service.traits(&cgroup, &ports);
        if let Some(rule) = self.rules.iter().find(|rule| rule.matches(&traits)) {
            service.name.clone_from(&rule.name);
            service.kind = ServiceKind::Rule;
        }
        service
    }

    /// The ports that a process, or the one of the same program that made it, listens on: workers share their parent's.
    fn ports(&self, task: &Task, look: Option<&Look>) -> Vec<u16> {
        let listening = lock(&self.listening);
        let of = |pid: u32| {
            let (executable, ports) = listening.peek(&pid)?;
            (*executable == task.executable).then_some(ports.as_slice())
        };
        let own = of(task.tgid).unwrap_or_default();
        let parents = look.and_then(|look| of(look.parent)).unwrap_or_default();
        [own, parents].concat()
    }
}

#[cfg(test)]
mod tests;
