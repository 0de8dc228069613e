//! What is known of an end of a call, when selectors are held against it.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{NamePattern, end::User};

/// A process at an end of a call, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Process id in the agent's pid namespace.
    pub pid: u32,
    /// Full path of the executable, or its bare name when the path is unknown.
    pub exe: String,
    /// The name that the executable was invoked by, where that is another name of the same file.
    pub invoked: Option<String>,
    /// Absolute path within the cgroup2 hierarchy.
    pub cgroup: String,
    /// User id in the initial user namespace.
    pub uid: Option<u32>,
    /// The user's name on this host.
    pub user: Option<String>,
    /// Its service.
    pub service: Option<String>,
    /// Names and id of its container; none outside of one.
    pub containers: Vec<String>,
    /// Full name of its systemd unit.
    pub unit: Option<String>,
    /// Its network namespace.
    pub netns: Option<NetnsName>,
    /// Of a caller: where it calls from.
    pub source: Option<SocketAddr>,
    /// Names that `source` has.
    pub hosts: Vec<Arc<str>>,
}

impl Caller {
    pub(super) fn is_user(&self, user: &User) -> bool {
        match user {
            User::Id(id) => self.uid == Some(*id),
            User::Name(name) => self.user.as_ref() == Some(name),
        }
    }

    pub(super) fn has_host(&self, pattern: &NamePattern) -> bool {
        self.hosts.iter().any(|host| pattern.matches(host))
    }
}

/// Where a call goes, as selectors see it.
pub trait Called {
    /// The address that the caller asked for.
    fn address(&self) -> SocketAddr;

    /// Is the destination known by such a name?
    fn has_host(&self, _pattern: &NamePattern) -> bool {
        false
    }

    /// The process on this host that listens there.
    fn process(&self) -> Option<&Caller> {
        None
    }
}

impl Called for SocketAddr {
    fn address(&self) -> SocketAddr {
        *self
    }
}

/// Where a call goes, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address that the caller asked for.
    pub address: SocketAddr,
    /// The name that led the caller there; where that is not known, all that are known to have the address.
    pub hosts: Vec<Arc<str>>,
    /// The process on this host that listens there.
    pub process: Option<Caller>,
}

impl From<SocketAddr> for Destination {
    /// Nothing but the address is known.
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            hosts: Vec::new(),
            process: None,
        }
    }
}

impl<C: Called> Called for &C {
    fn address(&self) -> SocketAddr {
        (**self).address()
    }

    fn has_host(&self, pattern: &NamePattern) -> bool {
        (**self).has_host(pattern)
    }

    fn process(&self) -> Option<&Caller> {
        (**self).process()
    }
}

impl Called for Destination {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn has_host(&self, pattern: &NamePattern) -> bool {
        self.hosts.iter().any(|host| pattern.matches(host))
    }

    fn process(&self) -> Option<&Caller> {
        self.process.as_ref()
    }
}

/// A network namespace that a process is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetnsName {
    /// Inode number, as in `/proc/PID/ns/net`.
    pub inode: u64,
    /// Its name under `/run/netns`.
    pub name: Option<String>,
    /// Whether it is the agent's own.
    pub is_host: bool,
}

/// A network namespace as a selector names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netns {
    /// The agent's own.
    Host,
    /// By its inode number.
    Inode(u64),
    /// By its name under `/run/netns`.
    Name(String),
}

impl Netns {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
        if let Ok(inode) = number.unwrap_or(text).parse() {
            return Ok(Self::Inode(inode));
        }
        match text {
            "host" => Ok(Self::Host),
            "" | "." | ".." => Err("must be a name such as that of ip netns, a number, or host".to_owned()),
            path if path.contains('/') => Err(format!(
                "`{path}` is a path: write the name that is under /run/netns, the number that readlink shows, or host"
            )),
            name => Ok(Self::Name(name.to_owned())),
        }
    }

    /// Is this namespace meant?
    pub fn matches(&self, netns: &NetnsName) -> bool {
        match self {
            Self::Host => netns.is_host,
            Self::Inode(inode) => netns.inode == *inode,
            Self::Name(name) => netns.name.as_ref() == Some(name),
        }
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Inode(inode) => write!(f, "{inode}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}
