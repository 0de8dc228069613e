//! Finds the network namespaces of the host and the interfaces in them, for captures to name.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

use super::Kernel;
use crate::model::capture::{InterfaceName, Namespace};
use crate::safety::netns::inside;

/// `ARPHRD_ETHER`, `ARPHRD_LOOPBACK`: interfaces whose packets start with an Ethernet header.
const ETHERNET: u16 = 1;
const LOOPBACK: u16 = 772;
/// Where `ip netns` and docker keep namespaces by name.
const MOUNTS: [&str; 2] = ["/run/netns", "/var/run/docker/netns"];

/// Another network namespace than the agent's own.
#[derive(Debug)]
pub struct Place {
    /// As people know it: the name of its mount, else a process in it.
    pub name: String,
    /// Its inode.
    pub inode: u64,
    /// Its cookie; 0 when it cannot be learned.
    pub cookie: u64,
    /// The way into it.
    pub file: File,
}

/// An interface.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index in its namespace.
    pub index: u32,
    /// Whether its packets start with an Ethernet header; else with the IP header.
    pub ethernet: bool,
    /// Whether it is the loopback device, which shows each packet leaving and arriving.
    pub loopback: bool,
    /// Where it is; none for the agent's own namespace.
    pub place: Option<Arc<Place>>,
    is_up: bool,
}

impl Link {
    /// `eth0`, or `eth0@blue` in another namespace.
    pub fn shown(&self) -> String {
        match &self.place {
            Some(place) => format!("{}@{}", self.name, place.name),
            None => self.name.clone(),
        }
    }
}

impl Kernel {
    /// Finds interfaces by what an operator calls them; without names all of the agent's namespace that are up.
    ///
    /// # Errors
    /// Names what is not there.
    pub fn links(&self, names: &[InterfaceName]) -> Result<Vec<Link>> {
        let default = [InterfaceName {
            name: None,
            namespace: Namespace::Host,
        }];
        let names = if names.is_empty() { &default[..] } else { names };
        let mut found: BTreeMap<(u64, u32), Link> = BTreeMap::new();
        let mut known: BTreeMap<u64, Arc<Place>> = BTreeMap::new();
        for wanted in names {
            let mut places = Vec::new();
            match &wanted.namespace {
                Namespace::Host => places.push(None),
                Namespace::All => {
                    places.push(None);
                    places.extend(everywhere()?.into_iter().map(Some));
                }
                Namespace::Named(name) => places.push(Some(named(name)?)),
                Namespace::Of(pid) => {
                    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
                    let file = File::open(&path).with_context(|| format!("find process {pid}"))?;
                    places.push(Some((name_of(&file, *pid), file)));
                }
            }
            let before = found.len();
            for place in places {
                let place = match place {
                    Some((name, file)) => self.place(name, file, &mut known)?,
                    None => None,
                };
                for link in list(place.as_ref())? {
                    let is_wanted = match &wanted.name {
                        Some(name) => link.name == *name,
                        None => link.is_up,
                    };
                    if is_wanted {
                        let inode = place.as_ref().map_or(0, |place| place.inode);
                        found.entry((inode, link.index)).or_insert(link);
                    }
                }
            }
            if found.len() == before && wanted.name.is_some() {
                bail!("there is no interface {wanted}; `ip link`, there, lists them");
            }
        }
        Ok(found.into_values().collect())
    }

    /// The namespace behind a file; none when it is the agent's own.
    fn place(
        &self,
        name: String,
        file: File,
        known: &mut BTreeMap<u64, Arc<Place>>,
    ) -> Result<Option<Arc<Place>>> {
        let inode = file.metadata().context("look at a network namespace")?.ino();
        if inode == crate::safety::current_netns()? {
            return Ok(None);
        }
        if let Some(place) = known.get(&inode) {
            return Ok(Some(Arc::clone(place)));
        }
        let place = Arc::new(Place {
            name,
            inode,
            cookie: self.cookie_of(&file),
            file,
        });
        known.insert(inode, Arc::clone(&place));
        Ok(Some(place))
    }
}

/// The interfaces of a namespace, loopback first.
fn list(place: Option<&Arc<Place>>) -> Result<Vec<Link>> {
    let listed = match place {
        Some(place) => inside(&place.file, here).and_then(|listed| listed),
        None => here(),
    };
    let mut links = listed.context("list the interfaces")?;
    links.sort_by_key(|link| link.index);
    for link in &mut links {
        link.place = place.cloned();
    }
    Ok(links)
}

/// The interfaces of the calling thread's namespace; `/sys` shows those of the namespace where it was mounted.
fn here() -> io::Result<Vec<Link>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: fills in the pointer, or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut links = Vec::new();
    let mut next = first;
    // SAFETY: a list that the C library made, freed once at its end; an address of the packet family is a sockaddr_ll.
    unsafe {
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            let Some(address) = entry.ifa_addr.as_ref() else {
                continue;
            };
            if i32::from(address.sa_family) != libc::AF_PACKET {
                continue;
            }
            let link = &*entry.ifa_addr.cast::<libc::sockaddr_ll>();
            links.push(Link {
                name: CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned(),
                index: link.sll_ifindex.cast_unsigned(),
                ethernet: matches!(link.sll_hatype, ETHERNET | LOOPBACK),
                loopback: link.sll_hatype == LOOPBACK,
                place: None,
                is_up: entry.ifa_flags & libc::IFF_UP.cast_unsigned() != 0,
            });
        }
        libc::freeifaddrs(first);
    }
    Ok(links)
}

/// The addresses of the calling thread's namespace.
pub fn own_addresses() -> Vec<IpAddr> {
    let mut first = std::ptr::null_mut();
    // SAFETY: fills in the pointer, or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Vec::new();
    }
    let mut addresses = Vec::new();
    let mut next = first;
    // SAFETY: as above; addresses of these families are of these types.
    unsafe {
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            match entry
                .ifa_addr
                .as_ref()
                .map(|address| i32::from(address.sa_family))
            {
                Some(libc::AF_INET) => {
                    let address = (*entry.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr;
                    addresses.push(IpAddr::from(address.s_addr.to_ne_bytes()));
                }
                Some(libc::AF_INET6) => {
                    let address = (*entry.ifa_addr.cast::<libc::sockaddr_in6>()).sin6_addr;
                    addresses.push(IpAddr::from(address.s6_addr));
                }
                _ => {}
            }
        }
        libc::freeifaddrs(first);
    }
    addresses
}

fn named(name: &str) -> Result<(String, File)> {
    let found = MOUNTS
        .iter()
        .find_map(|mount| File::open(Path::new(mount).join(name)).ok());
    let file = found.ok_or_else(|| {
        anyhow!(
            "there is no network namespace {name:?}; `ip netns` lists them, or name a process in it by its id"
        )
    })?;
    Ok((name.to_owned(), file))
}

/// The name that a mount gives a namespace, else that of a process in it.
fn name_of(file: &File, pid: u32) -> String {
    let inode = file.metadata().map_or(0, |metadata| metadata.ino());
    let mount = mounts().find(|(_, file)| file.metadata().is_ok_and(|found| found.ino() == inode));
    mount.map_or_else(|| process_name(pid), |(name, _)| name)
}

fn process_name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{}[{pid}]", name.trim_end())
}

fn mounts() -> impl Iterator<Item = (String, File)> {
    MOUNTS
        .iter()
        .filter_map(|mount| fs::read_dir(mount).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let file = File::open(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), file))
        })
}

/// Every namespace that has a name or a process in it.
fn everywhere() -> Result<Vec<(String, File)>> {
    let own = fs::metadata("/proc/self/ns/net").context("look at the own network namespace")?;
    let mut found: BTreeMap<u64, (String, File)> = BTreeMap::new();
    for (name, file) in mounts() {
        // A file that nothing is mounted on yet is not on the kernel's file system of namespaces.
        if let Ok(metadata) = file.metadata()
            && metadata.dev() == own.dev()
        {
            found.entry(metadata.ino()).or_insert((name, file));
        }
    }
    for process in fs::read_dir("/proc").context("list the processes")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that is gone meanwhile has no namespace.
        let Ok(file) = File::open(process.path().join("ns/net")) else {
            continue;
        };
        if let Ok(metadata) = file.metadata() {
            found
                .entry(metadata.ino())
                .or_insert_with(|| (process_name(pid), file));
        }
    }
    found.remove(&own.ino());
    Ok(found.into_values().collect())
}
