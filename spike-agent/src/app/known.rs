//! What selectors name, as it is on this host now: the kernel's notes joined with who and where that is.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spike_common::address::{Address, Endpoint};
use spike_common::edge::UDP;
use spike_common::name::NameKey;
use spike_common::socket::ServiceKey;
use spike_common::task::{Task, comm};

use super::hosts::Hosts;
use crate::identity::{Cgroups, Ends, Names};
use crate::kernel::Kernel;
use crate::lock::lock;
use crate::model::rule::{CgroupIds, Identities};
use crate::model::{Caller, Destination, EndSelector, NamePattern, Netns, Selector};

/// How long the list of bound addresses, and of resolved ones, is believed for one connection.
const FRESH: Duration = Duration::from_millis(200);
/// How long to wait for a name whose answer passed just now: the agent reads them in its own time.
const NAME_WAIT: Duration = Duration::from_millis(100);

/// What the armed selectors ask of an end, so that nothing is looked up in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs(u8);

impl Needs {
    const HOSTS: u8 = 1;
    const CALLED: u8 = 2;
    const GLOBS: u8 = 4;

    /// Of all these selectors.
    pub(super) fn of<'a>(selectors: impl Iterator<Item = &'a Selector>) -> Self {
        let needs = selectors.map(|selector| Self::of_end(&selector.to).0);
        Self(needs.fold(0, |all, needs| all | needs))
    }

    fn of_end(to: &EndSelector) -> Self {
        let mut needs = 0;
        if to.names_process() {
            needs |= Self::CALLED;
        }
        if let Some(host) = &to.host {
            needs |= Self::HOSTS;
            if host.exact().is_none() {
                needs |= Self::GLOBS;
            }
        }
        Self(needs)
    }

    /// Do rules depend on who listens where?
    pub(super) fn called(self) -> bool {
        self.0 & Self::CALLED != 0
    }
}

/// The names of each address, and when they were read.
type Resolved = Option<(Instant, Arc<HashMap<IpAddr, Vec<Arc<str>>>>)>;

/// Answers what selectors ask.
pub(super) struct Known {
    kernel: Arc<Kernel>,
    cgroups: Arc<Cgroups>,
    ends: Ends,
    names: Arc<Names>,
    pub(super) hosts: Hosts,
    needs: AtomicU8,
    /// By inode number.
    cookies: Mutex<HashMap<u64, u64>>,
    bound: Mutex<Option<(Instant, Arc<Vec<Bound>>)>>,
    resolved: Mutex<Resolved>,
}

/// An address that a process has bound.
#[derive(Clone, Copy, Debug)]
struct Bound {
    endpoint: Endpoint,
    transport: u32,
    task: Task,
}

impl Known {
    pub(super) fn new(kernel: Arc<Kernel>, cgroups: Arc<Cgroups>, ends: Ends, names: Arc<Names>) -> Self {
        Self {
            kernel,
            cgroups,
            ends,
            names,
            hosts: Hosts::default(),
            needs: AtomicU8::new(0),
            cookies: Mutex::default(),
            bound: Mutex::default(),
            resolved: Mutex::default(),
        }
    }

    /// Says what the armed selectors ask.
    pub(super) fn set_needs(&self, needs: Needs) {
        self.needs.store(needs.0, Ordering::Relaxed);
    }

    /// Is there a user of this name?
    pub(super) fn has_user(&self, name: &str) -> bool {
        self.ends.users().uid(name).is_some()
    }

    /// All that selectors can ask of a process.
    pub(super) fn process(&self, task: &Task) -> Caller {
        self.ends.process(task)
    }

    /// What the armed selectors ask of a destination of a process in a namespace.
    pub(super) fn destination(
        &self,
        netns: u64,
        task: &Task,
        address: SocketAddr,
        transport: u32,
    ) -> Destination {
        let needs = Needs(self.needs.load(Ordering::Relaxed));
        self.look(needs, netns, task, address, transport)
    }

    /// What one end asks of a destination.
    pub(super) fn describe(
        &self,
        to: &EndSelector,
        netns: u64,
        task: &Task,
        address: SocketAddr,
        transport: u32,
    ) -> Destination {
        self.look(Needs::of_end(to), netns, task, address, transport)
    }

    fn look(
        &self,
        needs: Needs,
        netns: u64,
        task: &Task,
        address: SocketAddr,
        transport: u32,
    ) -> Destination {
        let mut destination = Destination::from(address);
        if needs.0 & Needs::HOSTS != 0 {
            destination.hosts = self.hosts(task.cgroup, address.ip(), needs.0 & Needs::GLOBS != 0);
        }
        if needs.called() {
            let listener = self.listener(netns, address, transport);
            destination.process = listener.map(|task| self.ends.process(&task));
        }
        destination
    }

    /// The name that led a cgroup to an address; where that is not known, all that have it.
    fn hosts(&self, cgroup: u64, ip: IpAddr, globs: bool) -> Vec<Arc<str>> {
        let address = Address::from(ip);
        let number = self.kernel.resolved(&NameKey { cgroup, address });
        if number == 0 {
            return self.names_of(ip);
        }
        if let Some(name) = self.names.get(number).or_else(|| self.hosts.by_number(number)) {
            return vec![name];
        }
        let start = Instant::now();
        while globs && start.elapsed() < NAME_WAIT {
            std::thread::sleep(Duration::from_millis(2));
            if let Some(name) = self.names.get(number) {
                return vec![name];
            }
        }
        Vec::new()
    }

    /// All names that are known to have an address.
    pub(super) fn names_of(&self, ip: IpAddr) -> Vec<Arc<str>> {
        let ip = ip.to_canonical();
        let mut names = self.hosts.with_address(ip);
        if let Some(resolved) = self.resolved().get(&ip) {
            names.extend(resolved.iter().cloned());
        }
        names
    }

    fn resolved(&self) -> Arc<HashMap<IpAddr, Vec<Arc<str>>>> {
        let mut resolved = lock(&self.resolved);
        if let Some((at, found)) = &*resolved
            && at.elapsed() < FRESH
        {
            return Arc::clone(found);
        }
        let mut found = HashMap::<IpAddr, Vec<Arc<str>>>::new();
        for (key, number) in self.kernel.all_resolved() {
            if let Some(name) = self.names.get(number) {
                let names = found.entry(key.address.ip()).or_default();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let found = Arc::new(found);
        *resolved = Some((Instant::now(), Arc::clone(&found)));
        found
    }

    /// Who listens at an address, seen from a namespace.
    fn listener(&self, netns: u64, address: SocketAddr, transport: u32) -> Option<Task> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let key = |ip: IpAddr| ServiceKey {
            netns,
            endpoint: Endpoint::new(Address::from(ip), address.port()),
            transport: if transport == UDP { UDP } else { 0 },
        };
        let ip = address.ip();
        if let Some(binder) = self.kernel.binder(&key(ip)) {
            return Some(binder.task);
        }
        let is_tcp = transport != UDP;
        let accepted = is_tcp.then(|| self.kernel.service(&ServiceKey::new(netns, address.into())));
        if let Some(task) = accepted.flatten() {
            return Some(task);
        }
        if ip.is_loopback() {
            let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
            let binder = all
                .into_iter()
                .find_map(|all: IpAddr| self.kernel.binder(&key(all)));
            return binder.map(|binder| binder.task);
        }
        let wanted = key(ip);
        let bound = self.bound();
        let at_port =
            |bound: &&Bound| bound.endpoint.port == address.port() && bound.transport == wanted.transport;
        let exact = bound
            .iter()
            .filter(at_port)
            .find(|bound| bound.endpoint == wanted.endpoint);
        let all = || {
            let mut all = bound
                .iter()
                .filter(at_port)
                .filter(|bound| bound.endpoint.address.is_unspecified());
            all.find(|bound| self.ends.namespaces().has_address(bound.task.tgid, ip))
        };
        exact.or_else(all).map(|bound| bound.task)
    }

    fn bound(&self) -> Arc<Vec<Bound>> {
        let mut bound = lock(&self.bound);
        if let Some((at, found)) = &*bound
            && at.elapsed() < FRESH
        {
            return Arc::clone(found);
        }
        let found = Arc::new(self.read_bound());
        *bound = Some((Instant::now(), Arc::clone(&found)));
        found
    }

    fn read_bound(&self) -> Vec<Bound> {
        let binders = self.kernel.binders().into_iter().map(|(key, binder)| Bound {
            endpoint: key.endpoint,
            transport: key.transport,
            task: binder.task,
        });
        let services = self.kernel.services().into_iter().map(|(key, task)| Bound {
            endpoint: key.endpoint,
            transport: 0,
            task,
        });
        binders.chain(services).collect()
    }

    fn cookie(&self, inode: u64, file: &std::path::Path) -> Option<u64> {
        if let Some(cookie) = lock(&self.cookies).get(&inode) {
            return Some(*cookie);
        }
        let cookie = self.kernel.cookie_of(&fs::File::open(file).ok()?);
        if cookie != 0 {
            lock(&self.cookies).insert(inode, cookie);
        }
        Some(cookie).filter(|cookie| *cookie != 0)
    }
}

impl CgroupIds for Known {
    fn id_and_depth(&self, path: &str) -> Option<(u64, Option<u32>)> {
        self.cgroups.id_and_depth(path)
    }
}

impl Identities for Known {
    fn uid(&self, name: &str) -> Option<u32> {
        self.ends.users().uid(name)
    }

    fn netns_cookies(&self, netns: &Netns) -> Vec<u64> {
        if *netns == Netns::Host {
            return vec![self.kernel.own_netns()];
        }
        let named = self.ends.namespaces().named();
        let file = named.into_iter().find(|(name, _)| netns.matches(name));
        let found = match (file, netns) {
            (Some((name, file)), _) => self.cookie(name.inode, &file),
            (None, Netns::Inode(inode)) => pids().find_map(|pid| {
                let is_inside = self
                    .ends
                    .namespaces()
                    .of(pid)
                    .is_some_and(|found| found.inode == *inode);
                is_inside
                    .then(|| self.cookie(*inode, format!("/proc/{pid}/ns/net").as_ref()))
                    .flatten()
            }),
            (None, _) => None,
        };
        found.into_iter().collect()
    }

    fn listeners(&self, to: &EndSelector) -> Vec<(Option<IpAddr>, u16)> {
        let mut matches = HashMap::<(u32, [u8; 32]), bool>::new();
        let mut found = Vec::new();
        for bound in self.read_bound() {
            let task = &bound.task;
            let is_meant = *matches
                .entry((task.tgid, task.executable))
                .or_insert_with(|| to.matches_process(&self.ends.process(task)));
            let ip = (!bound.endpoint.address.is_unspecified()).then(|| bound.endpoint.address.ip());
            let listener = (ip, bound.endpoint.port);
            if is_meant && listener.1 != 0 && !found.contains(&listener) {
                found.push(listener);
            }
        }
        found
    }

    fn addresses(&self, host: &NamePattern) -> Vec<IpAddr> {
        let mut found = self.hosts.addresses(host);
        for (ip, names) in self.resolved().iter() {
            if names.iter().any(|name| host.matches(name)) && !found.contains(ip) {
                found.push(*ip);
            }
        }
        found.sort();
        found
    }

    fn executables_invoked_as(&self, name: &str) -> Vec<String> {
        let wanted = comm(name);
        let mut found = Vec::new();
        for pid in pids() {
            let called = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm(called.trim_end()) != wanted {
                continue;
            }
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let file = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file != name && !file.is_empty() && !found.contains(&file) {
                found.push(file);
            }
        }
        found.sort();
        found
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
