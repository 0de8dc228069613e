//! Says which calls are meant: who calls (`from`) and what is called (`to`).

mod end;
mod party;
mod pattern;
mod port;
mod process;

pub use end::{EndSelector, RawEnd, RawUser, User};
pub use party::{Called, Caller, Destination, Netns, NetnsName};
pub use pattern::NamePattern;
pub use port::{PortRange, RawPort};
pub use process::ProcessPattern;

use super::FieldError;

/// Where name servers listen.
pub const DNS_PORT: u16 = 53;

/// The calls that a fault or a capture is about; every key given must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// The calling end.
    pub from: EndSelector,
    /// The called end.
    pub to: EndSelector,
    /// The operator said that an empty selector is meant: all calls of the host.
    pub everything: bool,
}

/// Whether a selector without any key may stand for all calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenEmpty {
    /// Only when `everything` is said: for what changes traffic.
    Refuse,
    /// Always: for what only looks.
    MeansAll,
}

impl Selector {
    /// Builds a selector from its raw ends.
    pub fn from_raw(
        from: &RawEnd,
        to: &RawEnd,
        everything: bool,
        when_empty: WhenEmpty,
    ) -> Result<Self, FieldError> {
        let from = EndSelector::try_from(from).map_err(|error| error.within("from"))?;
        let to = EndSelector::try_from(to).map_err(|error| error.within("to"))?;
        let selector = Self { from, to, everything };
        match (selector.is_empty(), everything, when_empty) {
            (true, false, WhenEmpty::Refuse) => Err(FieldError::new(
                "from",
                "no caller and no destination is chosen: name at least one key of `from` or `to`, such as \
                 from.process or to.port, or say \"everything\": true (--everything) to mean all calls of this host",
            )),
            (false, true, _) => Err(FieldError::new(
                "everything",
                "contradicts the keys of `from` and `to`: leave out the one or the other",
            )),
            _ => Ok(selector),
        }
    }

    /// True when no key is set.
    pub fn is_empty(&self) -> bool {
        self.from.is_empty() && self.to.is_empty()
    }

    /// Does it name what comes and goes, so that its rules have to be made again?
    pub fn names_what_changes(&self) -> bool {
        self.from.cgroup.is_some()
            || self.from.netns.is_some()
            || self.from.user.is_some()
            || self.to.host.is_some()
            || self.to.names_process()
    }

    /// The part of it that is about name servers; none where it names other ports.
    pub fn of_dns(&self) -> Option<Self> {
        let is_meant = self.to.port.is_none_or(|ports| ports.contains(DNS_PORT));
        let port = PortRange {
            first: DNS_PORT,
            last: DNS_PORT,
        };
        is_meant.then(|| Self {
            from: self.from.clone(),
            to: EndSelector {
                port: Some(port),
                ..self.to.clone()
            },
            everything: false,
        })
    }

    /// The plain meaning of the selector: does it choose a call of `caller` to `destination`?
    ///
    /// An IPv4-mapped IPv6 destination (`::ffff:10.0.0.1`) counts as IPv4.
    pub fn matches(&self, caller: &Caller, destination: impl Called) -> bool {
        self.from.matches_caller(caller) && self.to.matches_destination(&destination)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn end(text: &str) -> RawEnd {
        serde_json::from_str(text).unwrap()
    }

    fn select(from: &str, to: &str) -> Result<Selector, FieldError> {
        Selector::from_raw(&end(from), &end(to), false, WhenEmpty::Refuse)
    }

    fn curl() -> Caller {
        Caller {
            pid: 7,
            exe: "/usr/bin/curl".to_owned(),
            cgroup: "/user.slice/a".to_owned(),
            ..Caller::default()
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_key_given_must_match() {
        let selector = select(
            r#"{"process":"curl","cgroup":"/user.slice"}"#,
            r#"{"cidr":"10.0.0.0/8","port":80}"#,
        )
        .unwrap();
        let there = address("10.1.2.3:80");
        assert!(selector.matches(&curl(), there));
        assert!(selector.matches(&curl(), address("[::ffff:10.1.2.3]:80")));
        assert!(!selector.matches(&curl(), address("10.1.2.3:81")));
        assert!(!selector.matches(&curl(), address("11.1.2.3:80")));
        assert!(!selector.matches(&curl(), address("[::1]:80")));
        assert!(!selector.matches(
            &Caller {
                exe: "/usr/bin/wget".to_owned(),
                ..curl()
            },
            there
        ));
        assert!(!selector.matches(
            &Caller {
                cgroup: "/user.slicer/a".to_owned(),
                ..curl()
            },
            there
        ));
        let by_pid = select(r#"{"pid":7}"#, "{}").unwrap();
        assert!(by_pid.matches(&curl(), there));
        assert!(!by_pid.matches(&Caller { pid: 8, ..curl() }, there));
    }

    #[test]
    fn name_servers_are_a_part_of_what_names_no_other_port() {
        let of_dns = |to: &str| select(r#"{"process":"curl"}"#, to).unwrap().of_dns();
        let own = of_dns(r#"{"cidr":"10.0.0.0/8"}"#).unwrap();
        assert!(own.matches(&curl(), address("10.0.0.1:53")));
        assert!(!own.matches(&curl(), address("10.0.0.1:80")));
        assert!(!own.matches(&curl(), address("11.0.0.1:53")));
        assert!(!own.matches(&Caller::default(), address("10.0.0.1:53")));
        let ranged = of_dns(r#"{"port":"1-100"}"#).unwrap();
        assert!(!ranged.matches(&curl(), address("10.0.0.1:80")));
        assert_eq!(of_dns(r#"{"port":80}"#), None);
    }

    #[test]
    fn an_empty_selector_needs_everything() {
        assert_eq!(select("{}", "{}").unwrap_err().field, "from");
        let nothing = RawEnd::default();
        let all = Selector::from_raw(&nothing, &nothing, true, WhenEmpty::Refuse).unwrap();
        assert!(all.everything && all.matches(&curl(), address("[2001:db8::1]:1")));
        assert!(Selector::from_raw(&nothing, &nothing, false, WhenEmpty::MeansAll).is_ok());
        let both = Selector::from_raw(&end(r#"{"pid":1}"#), &nothing, true, WhenEmpty::Refuse);
        assert_eq!(both.unwrap_err().field, "everything");
    }

    #[test]
    fn every_key_is_for_both_ends() {
        let redis = Caller {
            pid: 9,
            exe: "/usr/bin/redis-check-rdb".to_owned(),
            invoked: Some("redis-server".to_owned()),
            cgroup: "/system.slice/redis.service".to_owned(),
            uid: Some(107),
            user: Some("redis".to_owned()),
            service: Some("redis".to_owned()),
            containers: vec!["cache-1".to_owned()],
            unit: Some("redis.service".to_owned()),
            netns: Some(NetnsName {
                inode: 4_026_531_840,
                name: Some("blue".to_owned()),
                is_host: false,
            }),
            source: Some(address("10.0.0.9:4000")),
            hosts: vec!["cache.test".into()],
        };
        let there = Destination {
            address: address("10.0.0.9:4000"),
            hosts: redis.hosts.clone(),
            process: Some(redis.clone()),
        };
        for (key, other) in [
            (r#"{"service":"redis"}"#, r#"{"service":"redis-2"}"#),
            (r#"{"process":"redis-server"}"#, r#"{"process":"redis-cli"}"#),
            (
                r#"{"process":"/usr/bin/redis-*"}"#,
                r#"{"process":"/usr/bin/redis-server"}"#,
            ),
            (r#"{"pid":9}"#, r#"{"pid":8}"#),
            (r#"{"cgroup":"/system.slice"}"#, r#"{"cgroup":"/system"}"#),
            (r#"{"container":"cache-*"}"#, r#"{"container":"cache"}"#),
            (r#"{"unit":"redis"}"#, r#"{"unit":"redi"}"#),
            (r#"{"user":"redis"}"#, r#"{"user":0}"#),
            (r#"{"user":107}"#, r#"{"user":"root"}"#),
            (r#"{"host":"*.test"}"#, r#"{"host":"test"}"#),
            (r#"{"cidr":"10.0.0.0/8"}"#, r#"{"cidr":"11.0.0.0/8"}"#),
            (r#"{"port":"4000-4001"}"#, r#"{"port":80}"#),
            (r#"{"netns":"blue"}"#, r#"{"netns":"host"}"#),
            (r#"{"netns":"4026531840"}"#, r#"{"netns":"4026531841"}"#),
        ] {
            for (end, expected) in [(key, true), (other, false)] {
                let from = select(end, "{}").unwrap();
                assert_eq!(from.matches(&redis, there.address), expected, "from {end}");
                let to = select("{}", end).unwrap();
                assert_eq!(
                    to.matches(&Caller::default(), there.clone()),
                    expected,
                    "to {end}"
                );
            }
        }
        let to_process = select("{}", r#"{"service":"redis"}"#).unwrap();
        assert!(
            !to_process.matches(&redis, there.address),
            "nobody is known to listen there"
        );
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (from, to, field) in [
            (r#"{"pid":0}"#, "{}", "from.pid"),
            (r#"{"cgroup":"a"}"#, "{}", "from.cgroup"),
            (r#"{"process":""}"#, "{}", "from.process"),
            (r#"{"process":"["}"#, "{}", "from.process"),
            ("{}", r#"{"port":0}"#, "to.port"),
            ("{}", r#"{"port":"9-8"}"#, "to.port"),
            ("{}", r#"{"cidr":"10.0.0.1/8"}"#, "to.cidr"),
            ("{}", r#"{"cidr":"localhost"}"#, "to.cidr"),
            ("{}", r#"{"host":"10.0.0.1"}"#, "to.host"),
            ("{}", r#"{"service":""}"#, "to.service"),
            (r#"{"user":"a b"}"#, "{}", "from.user"),
            (r#"{"netns":"/run/netns/a"}"#, "{}", "from.netns"),
        ] {
            assert_eq!(select(from, to).unwrap_err().field, field, "{from} {to}");
        }
    }
}
