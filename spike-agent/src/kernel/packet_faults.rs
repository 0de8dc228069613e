//! Hangs the packet faults' programs on interfaces, with a queue that keeps packets where need be; fills their maps.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use aya::maps::{HashMap, MapData, PerCpuHashMap, PerCpuValues};
use aya::programs::links::FdLink;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, TcAttachType};
use spike_common::packet_fault::{
    LINK_LOOPBACK, LinkKey, PacketCgroup, PacketCounts, PacketFault, PacketLink, PacketState,
};

use super::attach::classifier;
use super::{Kernel, Maps, clsact, route};
use crate::lock::lock;
use crate::model::packet_effect::InterfaceName;
use crate::model::{FieldError, PacketEffect, Selector};
use crate::safety::netns::{find, inside};
use crate::safety::tc::{Root, Tc};
use crate::safety::{Direction, Entry, EntryId, Journal, current_netns};

/// The programs that hit packets.
const INGRESS: &str = "spike_packets_in";
const EGRESS: &str = "spike_packets_out";
/// `ARPHRD_ETHER`, `ARPHRD_LOOPBACK`: interfaces whose packets start with an Ethernet header.
const ETHERNET_KINDS: [u16; 2] = [1, 772];
const LOOPBACK_KIND: u16 = 772;
/// Where namespaces have names.
const NAMES: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The maps of the packet faults.
pub(super) struct PacketTable {
    links: HashMap<MapData, LinkKey, PacketLink>,
    faults: HashMap<MapData, u32, PacketFault>,
    cgroups: HashMap<MapData, PacketCgroup, u32>,
    cgroups_now: BTreeSet<(u32, u64)>,
    counts: PerCpuHashMap<MapData, u32, PacketCounts>,
    states: HashMap<MapData, u32, PacketState>,
}

impl PacketTable {
    pub(super) fn take(maps: &mut Maps<'_>) -> Result<Self> {
        Ok(Self {
            links: maps.map("PACKET_LINKS", HashMap::try_from)?,
            faults: maps.map("PACKET_FAULTS", HashMap::try_from)?,
            cgroups: maps.map("PACKET_CGROUPS", HashMap::try_from)?,
            cgroups_now: BTreeSet::new(),
            counts: maps.map("PACKET_COUNTS", PerCpuHashMap::try_from)?,
            states: maps.map("PACKET_STATES", HashMap::try_from)?,
        })
    }
}

/// An interface in some network namespace; two are equal that mean the same one, whatever the namespace was called.
#[derive(Clone, Debug)]
pub struct Site {
    /// The number of the namespace.
    netns: u64,
    /// Its cookie.
    cookie: u64,
    name: String,
    index: u32,
    ethernet: bool,
    loopback: bool,
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        (self.netns, self.index) == (other.netns, other.index)
    }
}

impl Eq for Site {}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.netns, self.index).hash(state);
    }
}

impl Site {
    /// The interface for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Finds the interfaces that an effect names, or by which what it selects is reached.
    ///
    /// # Errors
    /// A [`FieldError`] when there is no such interface or namespace, or neither is named.
    pub fn all(kernel: &Kernel, effect: &PacketEffect, selector: &Selector) -> Result<Vec<Self>> {
        if !effect.interfaces.is_empty() {
            let each = |(index, name): (usize, &InterfaceName)| {
                let field = format!("effect.interfaces[{index}]");
                Self::named(kernel, name)
                    .map_err(|error| FieldError::new(field, format_args!("{error:#}")).into())
            };
            return effect.interfaces.iter().enumerate().map(each).collect();
        }
        let Some(network) = selector.to.cidr else {
            let message = "name the interface (--interface eth0, or eth0@NETNS), or the destination by `to.cidr`, whose route tells it";
            return Err(FieldError::new("effect.interfaces", message).into());
        };
        // A process's own namespace has its routes.
        let netns = selector.from.pid.map(|pid| pid.to_string());
        let space = Namespace::open(kernel, netns.as_deref())?;
        let index = space
            .run(|| route::interface_to(network.addr()))?
            .map_err(|error| {
                let message = format_args!("no route to {network} tells the interface: {error}; name it");
                FieldError::new("effect.interfaces", message)
            })?;
        let name = space.run(|| name_of(index))??;
        Ok(vec![space.site(&name)?])
    }

    fn named(kernel: &Kernel, name: &InterfaceName) -> Result<Self> {
        Namespace::open(kernel, name.netns.as_deref())?.site(&name.name)
    }

    fn key(&self, kernel: &Kernel) -> LinkKey {
        let netns = if kernel.features.packet_netns.is_some() {
            self.netns as u32
        } else {
            0
        };
        LinkKey {
            netns,
            ifindex: self.index,
        }
    }

    /// Runs work in its namespace; none when that is gone.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Option<T> {
        // Not kept open: it would keep a namespace alive that is to go.
        inside(&find(self.netns)?, work).ok()
    }
}

/// A network namespace while interfaces are looked for in it.
struct Namespace {
    file: File,
    number: u64,
    cookie: u64,
    shown: String,
}

impl Namespace {
    /// By its name or by the id of a process in it; none means the agent's own.
    fn open(kernel: &Kernel, name: Option<&str>) -> Result<Self> {
        let own = File::open("/proc/self/ns/net").context("open the agent's network namespace")?;
        let own_number = own.metadata()?.ino();
        let file = match name {
            None => own,
            Some(name) => open_netns(name)?,
        };
        let number = file.metadata()?.ino();
        let is_own = number == own_number;
        if !is_own && kernel.features.packet_netns.is_none() {
            return Err(anyhow!(
                "this kernel does not tell the packet hooks in which network namespace a packet is (no BTF): only interfaces of the agent's own can be named"
            ));
        }
        let cookie = if is_own {
            kernel.own_netns
        } else {
            kernel.cookie_of(&file)
        };
        let shown = name.map_or_else(String::new, |name| format!("@{name}"));
        Ok(Self {
            file,
            number,
            cookie,
            shown,
        })
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        inside(&self.file, work).context("enter the network namespace; needs CAP_SYS_ADMIN")
    }

    fn site(&self, name: &str) -> Result<Site> {
        let found = self.run(|| look_up(name))?;
        let (index, kind) = found.map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => anyhow!("there is no interface {name:?} there; `ip link` lists them"),
            _ => anyhow!("look at interface {name:?}: {error}"),
        })?;
        Ok(Site {
            netns: self.number,
            cookie: self.cookie,
            name: format!("{name}{}", self.shown),
            index,
            ethernet: ETHERNET_KINDS.contains(&kind),
            loopback: kind == LOOPBACK_KIND,
        })
    }
}

fn open_netns(name: &str) -> Result<File> {
    let named = NAMES.iter().map(|dir| Path::new(dir).join(name));
    let of_process = name
        .parse::<u32>()
        .ok()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    named
        .chain(of_process)
        .find_map(|path| File::open(path).ok())
        .with_context(|| {
            format!("there is no network namespace {name:?}: neither a name below /run/netns (`ip netns` lists them) nor the id of a process")
        })
}

/// Index and kind of an interface of the calling thread's namespace; sysfs may show another one's.
fn look_up(name: &str) -> io::Result<(u32, u16)> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let index = rustix::net::netdevice::name_to_index(&socket, name)?;
    // SAFETY: all zeroes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the request lives through the call, which fills in its address.
    let kind = unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_hwaddr.sa_family
    };
    Ok((index, kind))
}

fn name_of(index: u32) -> Result<String> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    rustix::net::netdevice::index_to_name(&socket, index).context("name the interface of the route")
}

/// The programs on one interface; dropping it takes them off and restores the interface.
pub struct Hook {
    kernel: Arc<Kernel>,
    journal: Arc<Journal>,
    site: Site,
    /// Detached by the drop.
    tcx: Vec<FdLink>,
    /// Filters of a clsact qdisc, noted in the journal.
    filters: Vec<(SchedClassifierLink, EntryId)>,
    /// The queue that was put there for this.
    queue: Option<EntryId>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook")
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl Hook {
    /// Puts the programs on an interface. They do nothing until it has faults.
    ///
    /// # Errors
    /// Names the interface and the step; nothing stays attached.
    pub fn attach(kernel: &Arc<Kernel>, site: &Site, journal: &Arc<Journal>) -> Result<Self> {
        let mut hook = Self {
            kernel: Arc::clone(kernel),
            journal: Arc::clone(journal),
            site: site.clone(),
            tcx: Vec::new(),
            filters: Vec::new(),
            queue: None,
        };
        let attached = site.inside(|| hook.attach_here());
        attached
            .unwrap_or_else(|| Err(anyhow!("its network namespace is gone")))
            .with_context(|| format!("put packet faults on {}", site.name))?;
        Ok(hook)
    }

    fn attach_here(&mut self) -> Result<()> {
        let name = bare(&self.site.name);
        let tcx = self.kernel.features.tcx && std::env::var_os("SPIKE_NO_TCX").is_none();
        if !tcx {
            clsact::ensure(name, self.site.index, &self.journal)?;
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            let (program_name, attach_type) = match direction {
                Direction::Ingress => (INGRESS, TcAttachType::Ingress),
                Direction::Egress => (EGRESS, TcAttachType::Egress),
            };
            let mut programs = lock(&self.kernel.programs);
            let program = classifier(&mut programs, program_name)?;
            if tcx {
                let order = TcAttachOptions::TcxOrder(LinkOrder::default());
                let id = program.attach_with_options(name, attach_type, order)?;
                self.tcx.push(FdLink::try_from(program.take_link(id)?)?);
                continue;
            }
            let entry = self.journal.record(Entry::TcFilter {
                netns: current_netns()?,
                ifindex: self.site.index,
                ifname: name.to_owned(),
                direction,
                name: program_name.to_owned(),
                handle: 0,
                priority: 0,
            })?;
            let options = TcAttachOptions::Netlink(NlOptions::default());
            let id = program.attach_with_options(name, attach_type, options)?;
            self.filters.push((program.take_link(id)?, entry));
        }
        Ok(())
    }

    /// Makes sure that the interface's queue keeps packets until their time: that its root is fq, or several of them.
    ///
    /// # Errors
    /// A [`FieldError`] when it cannot be had; the queue is then as it was.
    pub fn keep_packets(&mut self, effect: &PacketEffect) -> Result<()> {
        if self.queue.is_some() {
            return Ok(());
        }
        let site = self.site.clone();
        let journal = Arc::clone(&self.journal);
        let put = site.inside(|| put_queue(&site, &journal));
        let put = put.unwrap_or_else(|| Err("its network namespace is gone".to_owned()));
        self.queue = put.map_err(|reason| {
            let instead = effect.instead().unwrap_or("latency");
            let message = format_args!(
                "{} cannot be done on {}: {reason}; use the stream fault `{instead}` instead, which needs none",
                effect.kind(),
                self.site.name
            );
            FieldError::new("effect.type", message)
        })?;
        Ok(())
    }

    /// Puts the interface's own queue back.
    pub fn restore_queue(&mut self) {
        let Some(entry) = self.queue.take() else { return };
        let index = self.site.index;
        let restored = self.site.inside(|| Tc::open()?.delete_fq(index));
        // Gone with its namespace, or taken away by someone else.
        let is_gone = |error: &io::Error| {
            matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)
            )
        };
        if restored.is_none_or(|result| result.as_ref().err().is_none_or(is_gone)) {
            _ = self.journal.done(entry);
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.restore_queue();
        self.tcx.clear();
        if self.kernel.features.tcx && std::env::var_os("SPIKE_NO_TCX").is_none() {
            return;
        }
        let filters = std::mem::take(&mut self.filters);
        let (index, journal) = (self.site.index, Arc::clone(&self.journal));
        let entries: Vec<EntryId> = filters.iter().map(|(_, entry)| *entry).collect();
        self.site.inside(move || {
            // A link's drop speaks with the kernel in the thread's namespace.
            drop(filters);
            clsact::release(index, &journal);
        });
        for entry in entries {
            _ = self.journal.done(entry);
        }
    }
}

/// Makes fq the root of an interface of this namespace, unless it is; or says why not.
fn put_queue(site: &Site, journal: &Journal) -> Result<Option<EntryId>, String> {
    let tc = Tc::open().map_err(|error| format!("netlink: {error}"))?;
    match tc
        .root(site.index)
        .map_err(|error| format!("list the qdiscs: {error}"))?
    {
        Root::Fq => return Ok(None),
        Root::Default => {}
        Root::Configured(kind) => {
            return Err(format!(
                "its root qdisc is {kind}, which someone has configured and Spike leaves alone, and it has no fq"
            ));
        }
    }
    let entry = Entry::FqQdisc {
        netns: site.netns,
        ifindex: site.index,
        ifname: bare(&site.name).to_owned(),
    };
    let entry = journal.record(entry).map_err(|error| error.to_string())?;
    match tc.add_fq(site.index) {
        Ok(()) => Ok(Some(entry)),
        Err(error) => {
            _ = journal.done(entry);
            Err(match error.raw_os_error() {
                Some(libc::ENOENT) => "this kernel has no fq qdisc (`spike doctor`)".to_owned(),
                _ => format!("add an fq qdisc: {error}"),
            })
        }
    }
}

/// Without its namespace.
fn bare(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

impl Kernel {
    /// Loads the programs that hit packets, which takes the verifier most of a second the first time.
    ///
    /// # Errors
    /// Names the program and the verifier's reason.
    pub fn load_packet_faults(&self) -> Result<()> {
        let mut programs = lock(&self.programs);
        for name in [INGRESS, EGRESS] {
            classifier(&mut programs, name)?;
        }
        Ok(())
    }

    /// Arms a packet fault; it hits nothing until an interface has it.
    ///
    /// # Errors
    /// When a map is full.
    pub fn add_packet_fault(&self, id: u32, fault: PacketFault) -> Result<()> {
        let mut table = lock(&self.packets_table);
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeroes = PerCpuValues::try_from(vec![PacketCounts::default(); cpus])?;
        table
            .counts
            .insert(id, zeroes, 0)
            .context("count a packet fault")?;
        table
            .states
            .insert(id, PacketState::default(), 0)
            .context("keep the state of a packet fault")?;
        table
            .faults
            .insert(id, fault, 0)
            .context("write a packet fault; at most 8192 fit")
    }

    /// Disarms a packet fault; its counts go with it.
    pub fn remove_packet_fault(&self, id: u32) {
        let mut table = lock(&self.packets_table);
        _ = table.faults.remove(&id);
        _ = table.counts.remove(&id);
        _ = table.states.remove(&id);
        drop(table);
        _ = self.set_packet_cgroups(id, &[]);
    }

    /// Lists the cgroups that a fault's callers may be in.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_packet_cgroups(&self, id: u32, cgroups: &[u64]) -> Result<()> {
        let mut table = lock(&self.packets_table);
        let table = &mut *table;
        let key = |cgroup: u64| PacketCgroup {
            cgroup,
            fault: id,
            padding: 0,
        };
        for &cgroup in cgroups {
            if !table.cgroups_now.contains(&(id, cgroup)) {
                table
                    .cgroups
                    .insert(key(cgroup), 1, 0)
                    .context("list a packet fault's cgroup; at most 65536 fit")?;
                table.cgroups_now.insert((id, cgroup));
            }
        }
        let map = &mut table.cgroups;
        table.cgroups_now.retain(|&(fault, cgroup)| {
            fault != id || cgroups.contains(&cgroup) || map.remove(&key(cgroup)).is_err()
        });
        Ok(())
    }

    /// Says which faults an interface has, the oldest first; at most [`MAX_LINK_FAULTS`] are kept. None ends them.
    ///
    /// # Errors
    /// When the map is full.
    ///
    /// [`MAX_LINK_FAULTS`]: spike_common::packet_fault::MAX_LINK_FAULTS
    pub fn set_packet_link(&self, site: &Site, faults: &[u32], flags: u32) -> Result<()> {
        let links = &mut lock(&self.packets_table).links;
        let key = site.key(self);
        if faults.is_empty() {
            _ = links.remove(&key);
            return Ok(());
        }
        let mut link = PacketLink {
            cookie: site.cookie,
            header: if site.ethernet { 14 } else { 0 },
            flags: flags | if site.loopback { LINK_LOOPBACK } else { 0 },
            ..PacketLink::default()
        };
        for (slot, id) in link.faults.iter_mut().zip(faults) {
            *slot = *id;
            link.count += 1;
        }
        links
            .insert(key, link, 0)
            .context("note an interface with packet faults; at most 1024 fit")
    }

    /// Packets matched and affected by a packet fault.
    pub fn packet_counts(&self, id: u32) -> Option<(u64, u64)> {
        let counts = lock(&self.packets_table).counts.get(&id, 0).ok()?;
        let sum = |of: fn(&PacketCounts) -> u64| counts.iter().map(of).sum();
        Some((sum(|part| part.matched), sum(|part| part.affected)))
    }
}
