//! How an interface is named: `eth0` of the host's network namespace, `eth0@blue` of another.

use std::fmt;

/// Interfaces as an operator names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName {
    /// Its name; none for every interface that is up.
    pub name: Option<String>,
    /// Where it is.
    pub namespace: Namespace,
}

/// A network namespace as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The agent's own.
    Host,
    /// By the name that `ip netns` or docker gave it.
    Named(String),
    /// By the id of a process in it.
    Of(u32),
    /// Every one that is found.
    All,
}

/// The name that stands for every interface.
const ANY: &str = "any";
/// The name that stands for every namespace.
const EVERYWHERE: &str = "*";

impl InterfaceName {
    /// Reads `NAME[@NAMESPACE]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, namespace) = match text.split_once('@') {
            Some((name, namespace)) => (name, Some(namespace)),
            None => (text, None),
        };
        if !is_interface_name(name) {
            return Err(format!(
                "`{name}` is not the name of an interface: 1 to 15 bytes without `/` or space"
            ));
        }
        let namespace = match namespace {
            None => Namespace::Host,
            Some(EVERYWHERE) => Namespace::All,
            Some(place) => match place.parse() {
                Ok(pid) => Namespace::Of(pid),
                Err(_) if place.is_empty() || place.contains(['/', '\0']) || place.starts_with('.') => {
                    return Err(format!(
                        "`{place}` is not the name of a network namespace: as `ip netns` shows it, the id of a process in it, or `*` for all"
                    ));
                }
                Err(_) => Namespace::Named(place.to_owned()),
            },
        };
        Ok(Self {
            name: (name != ANY).then(|| name.to_owned()),
            namespace,
        })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or(ANY))?;
        match &self.namespace {
            Namespace::Host => Ok(()),
            Namespace::Named(name) => write!(f, "@{name}"),
            Namespace::Of(pid) => write!(f, "@{pid}"),
            Namespace::All => write!(f, "@{EVERYWHERE}"),
        }
    }
}

/// The kernel's own rule for names of interfaces, but for `@`, which stands before the namespace.
pub(in crate::model) fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name
            .chars()
            .any(|c| matches!(c, '/' | ':' | '\0') || c.is_whitespace())
}
