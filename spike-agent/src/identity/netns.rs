//! Which network namespace a process is in, what that is called, and which addresses are its own.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::model::NetnsName;

/// Where `ip netns` and docker keep namespaces by name.
const MOUNTS: [&str; 2] = ["/run/netns", "/var/run/docker/netns"];
/// How long what was read is believed.
const FRESH: Duration = Duration::from_millis(500);

/// The network namespaces of this host.
#[derive(Debug)]
pub struct NetworkNamespaces {
    own: u64,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    /// When, and the names by inode.
    names: Option<(Instant, HashMap<u64, String>)>,
    /// By inode.
    addresses: HashMap<u64, (Instant, Vec<IpAddr>)>,
}

impl NetworkNamespaces {
    /// As the calling process sees them.
    pub fn new() -> Self {
        Self {
            own: inode(Path::new("/proc/self/ns/net")).unwrap_or(0),
            read: Mutex::default(),
        }
    }

    /// The namespace of process `pid`; `None` when it is gone.
    pub fn of(&self, pid: u32) -> Option<NetnsName> {
        let inode = inode(Path::new(&format!("/proc/{pid}/ns/net")))?;
        let mut read = self.lock();
        let is_fresh = read.names.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        if !is_fresh {
            read.names = Some((Instant::now(), names()));
        }
        let name = read
            .names
            .as_ref()
            .and_then(|(_, names)| names.get(&inode).cloned());
        Some(NetnsName {
            inode,
            name,
            is_host: inode == self.own,
        })
    }

    /// Is `ip` an address of the namespace that process `pid` is in?
    pub fn has_address(&self, pid: u32, ip: IpAddr) -> bool {
        let Some(inode) = inode(Path::new(&format!("/proc/{pid}/ns/net"))) else {
            return false;
        };
        let mut read = self.lock();
        let known = read.addresses.get(&inode).filter(|(at, _)| at.elapsed() < FRESH);
        if let Some((_, addresses)) = known {
            return addresses.contains(&ip);
        }
        let addresses = addresses(pid);
        let has = addresses.contains(&ip);
        read.addresses.retain(|_, (at, _)| at.elapsed() < FRESH);
        read.addresses.insert(inode, (Instant::now(), addresses));
        has
    }

    /// The namespaces that have a name, with the file that stands for each.
    pub fn named(&self) -> Vec<(NetnsName, std::path::PathBuf)> {
        let mut found = Vec::new();
        for directory in MOUNTS {
            for file in fs::read_dir(directory).into_iter().flatten().flatten() {
                if let Some(inode) = inode(&file.path()) {
                    let name = NetnsName {
                        inode,
                        name: Some(file.file_name().to_string_lossy().into_owned()),
                        is_host: inode == self.own,
                    };
                    found.push((name, file.path()));
                }
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for NetworkNamespaces {
    fn default() -> Self {
        Self::new()
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

fn names() -> HashMap<u64, String> {
    let mut names = HashMap::new();
    for directory in MOUNTS {
        for file in fs::read_dir(directory).into_iter().flatten().flatten() {
            if let Some(inode) = inode(&file.path()) {
                let name = file.file_name().to_string_lossy().into_owned();
                names.entry(inode).or_insert(name);
            }
        }
    }
    names
}

/// The addresses of the namespace that process `pid` is in, from its files in `/proc`: no namespace has to be entered.
fn addresses(pid: u32) -> Vec<IpAddr> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
    let mut addresses = ipv4_in(&read("fib_trie"));
    addresses.extend(read("if_inet6").lines().filter_map(ipv6_in));
    addresses
}

/// The local addresses in a routing table: `|-- 10.0.0.7` and below it `/32 host LOCAL`.
fn ipv4_in(table: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines().map(str::trim_start) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && !found.contains(&IpAddr::V4(address))
        {
            found.push(address.into());
        }
    }
    found
}

/// The address at the start of a line of `if_inet6`: 32 digits.
fn ipv6_in(line: &str) -> Option<IpAddr> {
    let number = u128::from_str_radix(line.get(..32)?, 16).ok()?;
    Some(Ipv6Addr::from(number).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_has_its_loopback_address() {
        let namespaces = NetworkNamespaces::new();
        let me = std::process::id();
        assert!(namespaces.of(me).unwrap().is_host);
        assert!(namespaces.has_address(me, Ipv4Addr::LOCALHOST.into()));
        assert!(!namespaces.has_address(me, "198.51.100.7".parse().unwrap()));
        assert_eq!(namespaces.of(u32::MAX), None);
    }

    #[test]
    fn addresses_are_read_from_proc() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        \
            /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\nLocal:\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(ipv4_in(table), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        let line = "fd000000000000000000000000000007 02 40 00 80     eth0";
        assert_eq!(ipv6_in(line), Some("fd00::7".parse().unwrap()));
        assert_eq!(ipv6_in("short"), None);
    }
}
