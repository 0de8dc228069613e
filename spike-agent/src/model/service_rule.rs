//! Names that the operator gives to services: `[[service]]` in the configuration.

use std::{collections::BTreeMap, fmt};

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;

use super::{
    ProcessPattern,
    field_error::FieldError,
    selector::{PortRange, RawPort},
};

/// Longest name in bytes: that of a DNS name.
const MAX_NAME: usize = 253;
/// Longest pattern in bytes: that of a path.
const MAX_PATTERN: usize = 4096;

/// A rule as written; all keys but `name` choose, and all that are there must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawServiceRule {
    /// The service's name.
    name: String,
    /// Executable: a name or glob (`java`, `python3*`), or the glob of a whole path (`/opt/pay/**`).
    executable: Option<String>,
    /// Name or glob of a systemd unit, with or without its suffix: `nginx`, `postgresql@*.service`.
    unit: Option<String>,
    /// Name or glob of a container.
    container: Option<String>,
    /// Labels that the container has; a value is a glob.
    #[serde(default)]
    label: BTreeMap<String, String>,
    /// Glob of the cgroup's path; `*` does not match `/`, `**` does.
    cgroup: Option<String>,
    /// A port or range of ports; one that the process listens on must be in it.
    port: Option<RawPort>,
}

/// A checked rule.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceRule {
    /// The service's name, never empty.
    pub name: String,
    executable: Option<ProcessPattern>,
    unit: Option<Pattern>,
    container: Option<Pattern>,
    labels: Vec<(String, Pattern)>,
    cgroup: Option<Pattern>,
    port: Option<PortRange>,
}

/// What is known of a process, for rules to look at.
#[derive(Clone, Debug, Default)]
pub struct Traits<'a> {
    /// Path of the executable, or its bare name.
    pub executable: &'a str,
    /// The name it was invoked by.
    pub invoked: Option<&'a str>,
    /// Full name of its systemd unit.
    pub unit: Option<&'a str>,
    /// Name of its container.
    pub container: Option<&'a str>,
    /// Labels of its container.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Path of its cgroup; empty when unknown.
    pub cgroup: &'a str,
    /// Ports that it listens on, as far as seen.
    pub ports: &'a [u16],
}

impl ServiceRule {
    /// Does all that the rule asks for hold?
    pub fn matches(&self, of: &Traits<'_>) -> bool {
        let executable = |pattern: &ProcessPattern| {
            pattern.matches(of.executable) || of.invoked.is_some_and(|name| pattern.matches(name))
        };
        let unit = |pattern: &Pattern| {
            of.unit.is_some_and(|unit| {
                pattern.matches(unit)
                    || unit
                        .rsplit_once('.')
                        .is_some_and(|(stem, _)| pattern.matches(stem))
            })
        };
        let label = |(key, pattern): &(String, Pattern)| {
            let value = of.labels.and_then(|labels| labels.get(key));
            value.is_some_and(|value| pattern.matches(value))
        };
        self.executable.as_ref().is_none_or(executable)
            && self.unit.as_ref().is_none_or(unit)
            && self
                .container
                .as_ref()
                .is_none_or(|pattern| of.container.is_some_and(|name| pattern.matches(name)))
            && self.labels.iter().all(label)
            && self
                .cgroup
                .as_ref()
                .is_none_or(|pattern| pattern.matches(of.cgroup))
            && self
                .port
                .is_none_or(|range| of.ports.iter().any(|port| range.contains(*port)))
    }

    /// Does it look at the ports that a process listens on?
    pub fn needs_ports(&self) -> bool {
        self.port.is_some()
    }
}

impl TryFrom<RawServiceRule> for ServiceRule {
    type Error = FieldError;

    fn try_from(raw: RawServiceRule) -> Result<Self, FieldError> {
        let named = |key: &str, message: String| {
            FieldError::new(key, format!("{message} (service `{}`)", raw.name.escape_debug()))
        };
        if raw.name.is_empty() || raw.name.len() > MAX_NAME || raw.name.contains(char::is_control) {
            let message = format!("must have 1 to {MAX_NAME} bytes and no control characters");
            return Err(named("name", message));
        }
        let nothing = Self {
            name: raw.name.clone(),
            executable: None,
            unit: None,
            container: None,
            labels: Vec::new(),
            cgroup: None,
            port: None,
        };
        let glob = |key: &str, text: Option<&String>, within: Within| {
            let pattern = text.map(|text| Pattern::parse(text, within)).transpose();
            pattern.map_err(|message| named(key, message))
        };
        let labels = raw.label.iter().map(|(key, value)| {
            let pattern = Pattern::parse(value, Within::Text);
            pattern
                .map(|pattern| (key.clone(), pattern))
                .map_err(|message| named(&format!("label.{key}"), message))
        });
        let rule = Self {
            executable: raw
                .executable
                .as_deref()
                .map(ProcessPattern::parse)
                .transpose()
                .map_err(|message| named("executable", message))?,
            unit: glob("unit", raw.unit.as_ref(), Within::Text)?,
            container: glob("container", raw.container.as_ref(), Within::Text)?,
            labels: labels.collect::<Result<_, _>>()?,
            cgroup: glob("cgroup", raw.cgroup.as_ref(), Within::Path)?,
            port: raw
                .port
                .as_ref()
                .map(PortRange::try_from)
                .transpose()
                .map_err(|message| named("port", message))?,
            ..nothing.clone()
        };
        if rule == nothing {
            let keys = "executable, unit, container, label, cgroup, port";
            return Err(named(
                "name",
                format!("would be every process's: say at least one of {keys}"),
            ));
        }
        if raw.cgroup.is_some_and(|path| !path.starts_with(['/', '*'])) {
            let message = "must be an absolute path within the cgroup2 hierarchy, or begin with *".to_owned();
            let name = rule.name;
            return Err(FieldError::new("cgroup", format!("{message} (service `{name}`)")));
        }
        Ok(rule)
    }
}

/// What a pattern is matched with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// A word, in which `/` is a character like others.
    Text,
    /// A path, in which only `**` matches `/`.
    Path,
}

/// A glob that remembers how it was written.
#[derive(Clone)]
struct Pattern {
    text: String,
    matcher: GlobMatcher,
}

impl Pattern {
    fn parse(text: &str, within: Within) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("must have 1 to {MAX_PATTERN} bytes"));
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(within == Within::Path)
            .backslash_escape(true)
            .build()
            .map_err(|error| format!("`{text}` is no pattern: {}", error.kind()))?;
        Ok(Self {
            text: text.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }

    fn matches(&self, text: &str) -> bool {
        self.matcher.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(toml: &str) -> Result<ServiceRule, String> {
        let raw: RawServiceRule = toml::from_str(toml).map_err(|error| error.to_string())?;
        ServiceRule::try_from(raw).map_err(|error| error.to_string())
    }

    #[test]
    fn each_key_chooses_by_what_it_names() {
        let labels = BTreeMap::from([("com.acme.team".to_owned(), "pay".to_owned())]);
        let of = Traits {
            executable: "/opt/pay/bin/redis-check-rdb",
            invoked: Some("redis-server"),
            unit: Some("postgresql@15-main.service"),
            container: Some("pay-db-1"),
            labels: Some(&labels),
            cgroup: "/system.slice/pay.slice/db",
            ports: &[5432, 8080],
        };
        for (keys, expected) in [
            ("executable = 'redis-server'", true),
            ("executable = 'redis-check*'", true),
            ("executable = '/opt/pay/**'", true),
            ("executable = 'nginx'", false),
            ("unit = 'postgresql@15-main'", true),
            ("unit = 'postgresql@*.service'", true),
            ("unit = 'postgresql'", false),
            ("container = 'pay-*'", true),
            ("container = 'pay'", false),
            ("label = { 'com.acme.team' = 'p*' }", true),
            ("label = { 'com.acme.team' = 'shop' }", false),
            ("label = { 'com.acme.tier' = '*' }", false),
            ("cgroup = '/system.slice/**'", true),
            ("cgroup = '/system.slice/*'", false),
            ("port = 8080", true),
            ("port = '5000-6000'", true),
            ("port = 80", false),
            ("unit = 'postgresql@*'\nport = 5432", true),
            ("unit = 'postgresql@*'\nport = 5433", false),
        ] {
            let rule = rule(&format!("name = 'x'\n{keys}")).unwrap();
            assert_eq!(rule.matches(&of), expected, "{keys}");
            assert!(!rule.matches(&Traits::default()), "{keys} of an unknown process");
        }
    }

    #[test]
    fn a_bad_rule_says_which_and_why() {
        for (toml, wanted) in [
            ("executable = 'java'", "name"),
            ("name = ''\nport = 1", "1 to 253"),
            ("name = \"a\\nb\"\nport = 1", "control"),
            ("name = 'pay'", "every process"),
            ("name = 'pay'\nlabel = {}", "every process"),
            ("name = 'pay'\nexecutable = 'bin/java'", "relative"),
            ("name = 'pay'\nunit = '[a'", "unit"),
            ("name = 'pay'\nunit = ''", "unit"),
            ("name = 'pay'\nlabel = { team = '[a' }", "label.team"),
            ("name = 'pay'\ncgroup = 'system.slice'", "absolute"),
            ("name = 'pay'\nport = 0", "1 to 65535"),
            ("name = 'pay'\nports = 80", "ports"),
        ] {
            let error = rule(toml).unwrap_err();
            assert!(error.contains(wanted), "{toml}: {error}");
            assert!(
                !toml.contains("'pay'") || error.contains("`pay`") || wanted == "ports",
                "{error}"
            );
        }
    }
}
