//! Says which calls are meant: who calls (`from`) and what is called (`to`).

mod end;
mod port;
mod process;

use std::net::SocketAddr;

pub use end::{EndSelector, RawEnd};
pub use port::{PortRange, RawPort};
pub use process::ProcessPattern;

use super::FieldError;

/// The calls that a fault or a capture is about; every key given must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// The calling end: `process`, `pid` and `cgroup` may be set.
    pub from: EndSelector,
    /// The called end: `cidr` and `port` may be set.
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

/// The process that opened a connection, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Process id in the agent's pid namespace.
    pub pid: u32,
    /// Full path of the executable, or its bare name when the path is unknown.
    pub exe: String,
    /// Absolute path within the cgroup2 hierarchy.
    pub cgroup: String,
}

impl Selector {
    /// Builds a selector from its raw ends; keys that an end cannot be chosen by are refused.
    pub fn from_raw(
        from: &RawEnd,
        to: &RawEnd,
        everything: bool,
        when_empty: WhenEmpty,
    ) -> Result<Self, FieldError> {
        from.refuse_called_keys().and_then(|()| to.refuse_caller_keys())?;
        let from = EndSelector::try_from(from).map_err(|error| error.within("from"))?;
        let to = EndSelector::try_from(to).map_err(|error| error.within("to"))?;
        let selector = Self { from, to, everything };
        match (selector.is_empty(), everything, when_empty) {
            (true, false, WhenEmpty::Refuse) => Err(FieldError::new(
                "from",
                "no caller and no destination is chosen: name at least one of from.process, from.pid, \
                 from.cgroup, to.cidr and to.port, or say \"everything\": true (--everything) to mean all calls of this host",
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

    /// The plain meaning of the selector: does it choose a call of `caller` to `destination`?
    ///
    /// An IPv4-mapped IPv6 destination (`::ffff:10.0.0.1`) counts as IPv4.
    pub fn matches(&self, caller: &Caller, destination: SocketAddr) -> bool {
        self.from.matches_caller(caller) && self.to.matches_destination(destination)
    }
}

#[cfg(test)]
mod tests {
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
        }
    }

    #[test]
    fn every_key_given_must_match() {
        let selector = select(
            r#"{"process":"curl","cgroup":"/user.slice"}"#,
            r#"{"cidr":"10.0.0.0/8","port":80}"#,
        )
        .unwrap();
        let there = "10.1.2.3:80".parse().unwrap();
        assert!(selector.matches(&curl(), there));
        assert!(selector.matches(&curl(), "[::ffff:10.1.2.3]:80".parse().unwrap()));
        assert!(!selector.matches(&curl(), "10.1.2.3:81".parse().unwrap()));
        assert!(!selector.matches(&curl(), "11.1.2.3:80".parse().unwrap()));
        assert!(!selector.matches(&curl(), "[::1]:80".parse().unwrap()));
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
    fn an_empty_selector_needs_everything() {
        assert_eq!(select("{}", "{}").unwrap_err().field, "from");
        let nothing = RawEnd::default();
        let all = Selector::from_raw(&nothing, &nothing, true, WhenEmpty::Refuse).unwrap();
        assert!(all.everything && all.matches(&curl(), "[2001:db8::1]:1".parse().unwrap()));
        assert!(Selector::from_raw(&nothing, &nothing, false, WhenEmpty::MeansAll).is_ok());
        let both = Selector::from_raw(&end(r#"{"pid":1}"#), &nothing, true, WhenEmpty::Refuse);
        assert_eq!(both.unwrap_err().field, "everything");
    }

    #[test]
    fn a_key_at_the_wrong_end_is_named() {
        for (from, to, field) in [
            (r#"{"cidr":"10.0.0.0/8"}"#, "{}", "from.cidr"),
            (r#"{"port":80}"#, "{}", "from.port"),
            ("{}", r#"{"process":"nginx"}"#, "to.process"),
            ("{}", r#"{"pid":1}"#, "to.pid"),
            ("{}", r#"{"cgroup":"/a"}"#, "to.cgroup"),
            (r#"{"pid":0}"#, "{}", "from.pid"),
            (r#"{"cgroup":"a"}"#, "{}", "from.cgroup"),
            (r#"{"process":""}"#, "{}", "from.process"),
            (r#"{"process":"["}"#, "{}", "from.process"),
            ("{}", r#"{"port":0}"#, "to.port"),
            ("{}", r#"{"port":"9-8"}"#, "to.port"),
            ("{}", r#"{"cidr":"10.0.0.1/8"}"#, "to.cidr"),
            ("{}", r#"{"cidr":"localhost"}"#, "to.cidr"),
        ] {
            assert_eq!(select(from, to).unwrap_err().field, field, "{from} {to}");
        }
    }
}
