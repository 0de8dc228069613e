//! One end of a call: the keys that it may be chosen by, as written and as checked.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Called, Caller, NamePattern, PortRange, ProcessPattern, RawPort, party::Netns};
use crate::model::FieldError;

/// One end of a call, as written. All keys given must match.
///
/// Of a destination, all but `host`, `cidr` and `port` are those of the process on this host that listens there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "an object such as {\"process\": \"curl\"} or {\"port\": 80}"
)]
pub struct RawEnd {
    /// Name of the service, as on the map; `*`, `?`, `[a-z]` and `{a,b}` match as in a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "checkout")]
    pub service: Option<String>,
    /// Executable: a name (`curl`) or an absolute path (`/usr/bin/curl`); `*`, `?`, `[a-z]` and `{a,b}` match as
    /// in a shell, and none of them matches `/` but `**`. A name is also that by which it was invoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "curl")]
    pub process: Option<String>,
    /// Process id as the agent sees it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub pid: Option<u32>,
    /// Absolute path within the cgroup2 hierarchy; it and all cgroups below match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/system.slice/nginx.service")]
    pub cgroup: Option<String>,
    /// Name or id (12 digits or more) of the container; a name may have wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "web-1")]
    pub container: Option<String>,
    /// Systemd unit; `.service` may be left out; may have wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "nginx.service")]
    pub unit: Option<String>,
    /// User that the process runs as: a name or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<RawUser>,
    /// Host name: that by which the caller resolved the destination, else one that has its address now; may have
    /// wildcards. In `from` one that has the caller's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "db.example.org")]
    pub host: Option<String>,
    /// Address (`10.0.0.7`) or network (`10.0.0.0/8`, `fd00::/8`). In `from` the caller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10.0.0.0/8")]
    pub cidr: Option<String>,
    /// Port or range of ports. In `from` the caller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<RawPort>,
    /// Network namespace: its name (`ip netns`), its number (as in `/proc/PID/ns/net`), or `host` for the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "blue")]
    pub netns: Option<String>,
}

/// A user, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "expected a user's name or number")]
pub enum RawUser {
    /// The number.
    #[schema(example = 1000)]
    Id(u32),
    /// The name, or the number in text.
    #[schema(example = "www-data")]
    Name(String),
}

fn refuse(field: &str, is_set: bool, message: impl std::fmt::Display) -> Result<(), FieldError> {
    if is_set {
        Err(FieldError::new(field, message))
    } else {
        Ok(())
    }
}

/// A user, checked: a name is looked up when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// The number.
    Id(u32),
    /// The name.
    Name(String),
}

/// One end of a call, checked. All keys that are set must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndSelector {
    /// Name of the service.
    pub service: Option<NamePattern>,
    /// The executable.
    pub process: Option<ProcessPattern>,
    /// Process id in the agent's pid namespace, never 0.
    pub pid: Option<u32>,
    /// Absolute, without a slash at the end (but `/` itself); it and everything below is meant.
    pub cgroup: Option<String>,
    /// Name or id of the container.
    pub container: Option<NamePattern>,
    /// The systemd unit.
    pub unit: Option<NamePattern>,
    /// The user.
    pub user: Option<User>,
    /// Host name, in small letters.
    pub host: Option<NamePattern>,
    /// Network without host bits; never an IPv4-mapped IPv6 one.
    pub cidr: Option<IpNet>,
    /// Ports.
    pub port: Option<PortRange>,
    /// The network namespace.
    pub netns: Option<Netns>,
}

impl EndSelector {
    /// True when no key is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Is a key set that tells a process apart?
    pub fn names_process(&self) -> bool {
        *self
            != Self {
                host: self.host.clone(),
                cidr: self.cidr,
                port: self.port,
                ..Self::default()
            }
    }

    /// Is a key set that tells addresses apart?
    pub fn names_address(&self) -> bool {
        self.host.is_some() || self.cidr.is_some() || self.port.is_some()
    }

    /// Do all keys allow this caller?
    pub fn matches_caller(&self, caller: &Caller) -> bool {
        self.matches_process(caller)
            && (!self.names_address()
                || caller
                    .source
                    .is_some_and(|source| self.matches_address(source, |host| caller.has_host(host))))
    }

    /// Do all keys allow this destination?
    pub fn matches_destination(&self, destination: &impl Called) -> bool {
        self.matches_address(destination.address(), |host| destination.has_host(host))
            && (!self.names_process()
                || destination
                    .process()
                    .is_some_and(|process| self.matches_process(process)))
    }

    fn matches_address(&self, address: SocketAddr, has_host: impl Fn(&NamePattern) -> bool) -> bool {
        let ip: IpAddr = address.ip().to_canonical();
        self.cidr.is_none_or(|network| network.contains(&ip))
            && self.port.is_none_or(|range| range.contains(address.port()))
            && self.host.as_ref().is_none_or(has_host)
    }

    /// Do the keys that tell processes apart allow this one?
    pub fn matches_process(&self, process: &Caller) -> bool {
        let all = |names: &[String], matches: &dyn Fn(&String) -> bool| names.iter().any(matches);
        self.pid.is_none_or(|pid| pid == process.pid)
            && self
                .cgroup
                .as_deref()
                .is_none_or(|top| is_within(&process.cgroup, top))
            && self.process.as_ref().is_none_or(|pattern| {
                pattern.matches(&process.exe)
                    || process
                        .invoked
                        .as_deref()
                        .is_some_and(|invoked| pattern.matches(invoked))
            })
            && self.user.as_ref().is_none_or(|user| process.is_user(user))
            && self.service.as_ref().is_none_or(|pattern| {
                process
                    .service
                    .as_deref()
                    .is_some_and(|name| pattern.matches(name))
            })
            && self
                .container
                .as_ref()
                .is_none_or(|pattern| all(&process.containers, &|name| pattern.matches_container(name)))
            && self.unit.as_ref().is_none_or(|pattern| {
                process
                    .unit
                    .as_deref()
                    .is_some_and(|unit| pattern.matches_unit(unit))
            })
            && self
                .netns
                .as_ref()
                .is_none_or(|wanted| process.netns.as_ref().is_some_and(|netns| wanted.matches(netns)))
    }
}

/// Is `cgroup` the same as `top` or below it?
fn is_within(cgroup: &str, top: &str) -> bool {
    let below = cgroup.strip_prefix(top.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl TryFrom<&RawEnd> for EndSelector {
    type Error = FieldError;

    fn try_from(raw: &RawEnd) -> Result<Self, FieldError> {
        refuse("pid", raw.pid == Some(0), "must be from 1")?;
        let name = |text: &String| NamePattern::parse(text, "checkout");
        Ok(Self {
            service: read("service", &raw.service, name)?,
            process: read("process", &raw.process, |text| ProcessPattern::parse(text))?,
            pid: raw.pid,
            cgroup: read("cgroup", &raw.cgroup, |text| parse_cgroup(text))?,
            container: read("container", &raw.container, name)?,
            unit: read("unit", &raw.unit, name)?,
            user: read("user", &raw.user, parse_user)?,
            host: read("host", &raw.host, |text| NamePattern::parse_host(text))?,
            cidr: read("cidr", &raw.cidr, |text| parse_network(text))?,
            port: read("port", &raw.port, |port| PortRange::try_from(port))?,
            netns: read("netns", &raw.netns, |text| Netns::parse(text))?,
        })
    }
}

/// Checks a key that may be set; the error names it.
fn read<R, T>(
    field: &str,
    raw: &Option<R>,
    parse: impl FnOnce(&R) -> Result<T, String>,
) -> Result<Option<T>, FieldError> {
    let parsed = raw.as_ref().map(parse).transpose();
    parsed.map_err(|message| FieldError::new(field, message))
}

impl From<&EndSelector> for RawEnd {
    fn from(end: &EndSelector) -> Self {
        let text =
            |pattern: &Option<NamePattern>| pattern.as_ref().map(|pattern| pattern.as_str().to_owned());
        Self {
            service: text(&end.service),
            process: end.process.as_ref().map(|pattern| pattern.as_str().to_owned()),
            pid: end.pid,
            cgroup: end.cgroup.clone(),
            container: text(&end.container),
            unit: text(&end.unit),
            user: end.user.clone().map(|user| match user {
                User::Id(id) => RawUser::Id(id),
                User::Name(name) => RawUser::Name(name),
            }),
            host: text(&end.host),
            cidr: end.cidr.map(|network| match network {
                single if single.prefix_len() == single.max_prefix_len() => single.addr().to_string(),
                network => network.to_string(),
            }),
            port: end.port.map(RawPort::from),
            netns: end.netns.as_ref().map(Netns::to_string),
        }
    }
}

fn parse_user(raw: &RawUser) -> Result<User, String> {
    let name = match raw {
        RawUser::Id(id) => return Ok(User::Id(*id)),
        RawUser::Name(name) => name,
    };
    if let Ok(id) = name.parse() {
        return Ok(User::Id(id));
    }
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, ':' | '/');
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(format!(
            "`{name}` is not a user's name such as www-data, nor a number"
        ));
    }
    Ok(User::Name(name.clone()))
}

/// Checks a cgroup path and drops the slash at its end.
fn parse_cgroup(text: &str) -> Result<String, String> {
    let path = match text.trim_end_matches('/') {
        "" if text.starts_with('/') => "/",
        path => path,
    };
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    if path == "/"
        || path
            .strip_prefix('/')
            .is_some_and(|parts| parts.split('/').all(is_plain))
    {
        return Ok(path.to_owned());
    }
    Err(format!(
        "`{text}` is not an absolute path within the cgroup2 hierarchy, such as /system.slice/nginx.service"
    ))
}

/// Reads an address or a network; an IPv4-mapped one becomes IPv4, as destinations do.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| {
            format!(
                "`{text}` is neither an address such as 10.0.0.7 nor a network such as 10.0.0.0/8 or fd00::/8"
            )
        })?,
    };
    if network != network.trunc() {
        let address = network.addr();
        return Err(format!(
            "`{text}` has host bits set: write {} or {address}",
            network.trunc()
        ));
    }
    let IpNet::V6(v6) = network else {
        return Ok(network);
    };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    Ok(match mapped {
        Some((address, prefix)) => Ipv4Net::new(address, prefix).map_or(network, IpNet::V4),
        None => network,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_normalised() {
        for (text, shown) in [
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7/32", "10.0.0.7"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("fd00::/8", "fd00::/8"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            let end = EndSelector {
                cidr: Some(parse_network(text).unwrap()),
                ..Default::default()
            };
            assert_eq!(RawEnd::from(&end).cidr.as_deref(), Some(shown), "{text}");
        }
        for text in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0",
            "",
            "example.org",
            "10.0.0.0/",
        ] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cgroups_are_absolute_and_plain() {
        for (text, kept) in [("/", "/"), ("//", "/"), ("/a/b/", "/a/b"), ("/a", "/a")] {
            assert_eq!(parse_cgroup(text).as_deref(), Ok(kept));
        }
        for text in ["", "a", "/a//b", "/a/../b", "/./a"] {
            assert!(parse_cgroup(text).is_err(), "{text}");
        }
        assert!(is_within("/a/b", "/") && is_within("/", "/") && is_within("/a", "/a"));
        assert!(!is_within("/ab", "/a") && !is_within("/", "/a"));
    }
}
