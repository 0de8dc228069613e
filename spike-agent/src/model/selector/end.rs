//! One end of a call: the keys that it may be chosen by, as written and as checked.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Caller, PortRange, ProcessPattern, RawPort};
use crate::model::FieldError;

/// One end of a call, as written. All keys given must match.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "an object such as {\"process\": \"curl\"} or {\"port\": 80}"
)]
pub struct RawEnd {
    /// Executable: a name (`curl`) or an absolute path (`/usr/bin/curl`); `*`, `?`, `[a-z]` and `{a,b}` match as
    /// in a shell, and none of them matches `/` but `**`. Only in `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "curl")]
    pub process: Option<String>,
    /// Process id as the agent sees it, from 1. Only in `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub pid: Option<u32>,
    /// Absolute path within the cgroup2 hierarchy; it and all cgroups below match. Only in `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/system.slice/nginx.service")]
    pub cgroup: Option<String>,
    /// Address (`10.0.0.7`) or network (`10.0.0.0/8`, `fd00::/8`). Only in `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10.0.0.0/8")]
    pub cidr: Option<String>,
    /// Port or range of ports. Only in `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<RawPort>,
}

impl RawEnd {
    /// A caller has no address that a fault could choose it by.
    pub(super) fn refuse_called_keys(&self) -> Result<(), FieldError> {
        let instead = "a caller is chosen by `process`, `pid` or `cgroup`; choose a destination with";
        refuse(
            "from.cidr",
            self.cidr.is_some(),
            format_args!("{instead} `to.cidr`"),
        )?;
        refuse(
            "from.port",
            self.port.is_some(),
            format_args!("{instead} `to.port`"),
        )
    }

    /// A destination may be on another host, where its process is out of sight.
    pub(super) fn refuse_caller_keys(&self) -> Result<(), FieldError> {
        let instead = "a destination is chosen by `cidr` or `port`; choose a caller with";
        refuse(
            "to.process",
            self.process.is_some(),
            format_args!("{instead} `from.process`"),
        )?;
        refuse("to.pid", self.pid.is_some(), format_args!("{instead} `from.pid`"))?;
        refuse(
            "to.cgroup",
            self.cgroup.is_some(),
            format_args!("{instead} `from.cgroup`"),
        )
    }
}

fn refuse(field: &str, is_set: bool, message: impl std::fmt::Display) -> Result<(), FieldError> {
    if is_set {
        Err(FieldError::new(field, message))
    } else {
        Ok(())
    }
}

/// One end of a call, checked. All keys that are set must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndSelector {
    /// The executable.
    pub process: Option<ProcessPattern>,
    /// Process id in the agent's pid namespace, never 0.
    pub pid: Option<u32>,
    /// Absolute, without a slash at the end (but `/` itself); it and everything below is meant.
    pub cgroup: Option<String>,
    /// Network without host bits; never an IPv4-mapped IPv6 one.
    pub cidr: Option<IpNet>,
    /// Ports of the destination.
    pub port: Option<PortRange>,
}

impl EndSelector {
    /// True when no key is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Do `process`, `pid` and `cgroup` allow this caller?
    pub fn matches_caller(&self, caller: &Caller) -> bool {
        self.process
            .as_ref()
            .is_none_or(|pattern| pattern.matches(&caller.exe))
            && self.pid.is_none_or(|pid| pid == caller.pid)
            && self
                .cgroup
                .as_deref()
                .is_none_or(|top| is_within(&caller.cgroup, top))
    }

    /// Do `cidr` and `port` allow this destination?
    pub fn matches_destination(&self, destination: SocketAddr) -> bool {
        let address: IpAddr = destination.ip().to_canonical();
        self.cidr.is_none_or(|network| network.contains(&address))
            && self.port.is_none_or(|range| range.contains(destination.port()))
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
        let of = |field: &'static str| move |message: String| FieldError::new(field, message);
        Ok(Self {
            process: raw
                .process
                .as_deref()
                .map(ProcessPattern::parse)
                .transpose()
                .map_err(of("process"))?,
            pid: raw.pid,
            cgroup: raw
                .cgroup
                .as_deref()
                .map(parse_cgroup)
                .transpose()
                .map_err(of("cgroup"))?,
            cidr: raw
                .cidr
                .as_deref()
                .map(parse_network)
                .transpose()
                .map_err(of("cidr"))?,
            port: raw
                .port
                .as_ref()
                .map(PortRange::try_from)
                .transpose()
                .map_err(of("port"))?,
        })
    }
}

impl From<&EndSelector> for RawEnd {
    fn from(end: &EndSelector) -> Self {
        Self {
            process: end.process.as_ref().map(|pattern| pattern.as_str().to_owned()),
            pid: end.pid,
            cgroup: end.cgroup.clone(),
            cidr: end.cidr.map(|network| match network {
                single if single.prefix_len() == single.max_prefix_len() => single.addr().to_string(),
                network => network.to_string(),
            }),
            port: end.port.map(RawPort::from),
        }
    }
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
