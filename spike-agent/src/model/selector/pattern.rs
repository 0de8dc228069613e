//! Patterns for names of services, containers, units and hosts.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// Longest pattern in bytes.
const MAX_PATTERN: usize = 1024;
/// Fewest digits of a container's id that stand for it, as Docker shows.
const SHORT_ID: usize = 12;

/// A name in which `*`, `?`, `[a-z]`, `[!a-z]` and `{a,b}` are as in a shell; `\` quotes.
#[derive(Clone)]
pub struct NamePattern {
    text: String,
    matcher: GlobMatcher,
}

impl NamePattern {
    /// Checks and compiles a pattern; `example` is shown when there is none.
    pub fn parse(text: &str, example: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(format!("must be a name such as {example}"));
        }
        if text.len() > MAX_PATTERN {
            return Err(format!("must be at most {MAX_PATTERN} bytes"));
        }
        let glob = GlobBuilder::new(text).backslash_escape(true).build();
        let glob = glob.map_err(|error| format!("`{text}` is no pattern: {}", error.kind()))?;
        Ok(Self {
            text: text.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }

    /// A pattern of host names, which DNS compares without regard to case and without the root's dot.
    pub fn parse_host(text: &str) -> Result<Self, String> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        if name.contains(['/', ':', ' ']) {
            return Err(format!(
                "`{text}` is not a host name such as db.example.org or a pattern such as *.example.org"
            ));
        }
        if name.parse::<std::net::IpAddr>().is_ok() {
            return Err(format!("`{text}` is an address: say cidr for it"));
        }
        Self::parse(&name, "db.example.org")
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name, when the pattern is a plain one.
    pub fn exact(&self) -> Option<&str> {
        (!self.text.contains(['*', '?', '[', ']', '{', '}', '\\'])).then_some(self.text.as_str())
    }

    /// Does this name match?
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }

    /// Is this systemd's name of a unit, or the same without `.service`?
    pub fn matches_unit(&self, unit: &str) -> bool {
        self.matches(unit)
            || unit
                .strip_suffix(".service")
                .is_some_and(|stem| self.matches(stem))
    }

    /// Is this a container's name, or an id that begins with the pattern?
    pub fn matches_container(&self, name_or_id: &str) -> bool {
        let is_id = || self.text.len() >= SHORT_ID && self.text.bytes().all(|b| b.is_ascii_hexdigit());
        self.matches(name_or_id) || is_id() && name_or_id.starts_with(&self.text)
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NamePattern").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_containers_go_by_their_short_names_too() {
        let of = |text: &str| NamePattern::parse(text, "x").unwrap();
        assert!(
            of("nginx").matches_unit("nginx.service") && of("nginx.service").matches_unit("nginx.service")
        );
        assert!(!of("nginx").matches_unit("nginx.timer"));
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert!(of("0123456789ab").matches_container(id) && !of("0123456").matches_container(id));
        assert!(of("web-*").matches_container("web-1"));
        assert!(of("web*").matches("web/nginx"));
    }

    #[test]
    fn hosts_are_compared_as_dns_does() {
        let host = |text: &str| NamePattern::parse_host(text);
        assert!(host("DB.Example.org.").unwrap().matches("db.example.org"));
        assert!(host("*.example.org").unwrap().matches("db.example.org"));
        assert_eq!(host("db.test").unwrap().exact(), Some("db.test"));
        assert_eq!(host("*.test").unwrap().exact(), None);
        for text in ["", "http://db", "db:80", "10.0.0.1", "[a"] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
