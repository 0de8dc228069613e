//! Asks the host's resolver for the names that selectors name, again and again: an address may change while a fault is armed.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use spike_common::name::NameHash;
use tokio::time::timeout;

use crate::model::NamePattern;

/// How long an answer is believed.
const FRESH: Duration = Duration::from_secs(5);
/// How long arming a fault may wait for an answer.
const WAIT: Duration = Duration::from_secs(2);

/// Addresses by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Arc<Mutex<HashMap<Arc<str>, Host>>>);

#[derive(Debug, Default)]
struct Host {
    asked: Option<Instant>,
    addresses: BTreeSet<IpAddr>,
}

impl Hosts {
    /// Asks for the plain ones among `wanted` that were not asked for lately, and forgets all others. Waits for those
    /// alone that were never asked for.
    pub(super) async fn refresh(&self, wanted: &[&NamePattern]) {
        let names: BTreeSet<&str> = wanted.iter().filter_map(|host| host.exact()).collect();
        let (mut new, mut old) = (Vec::new(), Vec::new());
        {
            let mut hosts = self.lock();
            hosts.retain(|name, _| names.contains(&**name));
            for name in names {
                let name = Arc::<str>::from(name);
                let host = hosts.entry(Arc::clone(&name)).or_default();
                match host.asked.replace(Instant::now()) {
                    None => new.push(name),
                    Some(asked) if asked.elapsed() >= FRESH => old.push(name),
                    asked => host.asked = asked,
                }
            }
        }
        for name in old {
            let hosts = self.clone();
            tokio::spawn(async move { hosts.ask(name).await });
        }
        join_all(new.into_iter().map(|name| self.ask(name))).await;
    }

    async fn ask(&self, name: Arc<str>) {
        let answer = timeout(WAIT, tokio::net::lookup_host((&*name, 0))).await;
        // One that does not answer now may have the address still.
        if let Ok(Ok(found)) = answer {
            let addresses = found.map(|address| address.ip().to_canonical()).collect();
            if let Some(host) = self.lock().get_mut(&name) {
                host.addresses = addresses;
            }
        }
    }

    /// The addresses of the names that match.
    pub(super) fn addresses(&self, host: &NamePattern) -> Vec<IpAddr> {
        let hosts = self.lock();
        let meant = hosts.iter().filter(|(name, _)| host.matches(name));
        let found: BTreeSet<IpAddr> = meant
            .flat_map(|(_, host)| host.addresses.iter().copied())
            .collect();
        found.into_iter().collect()
    }

    /// The names that have an address.
    pub(super) fn with_address(&self, ip: IpAddr) -> Vec<Arc<str>> {
        let hosts = self.lock();
        let with = hosts.iter().filter(|(_, host)| host.addresses.contains(&ip));
        with.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The name that the kernel side knows by this number.
    pub(super) fn by_number(&self, number: u64) -> Option<Arc<str>> {
        let hosts = self.lock();
        hosts.keys().find(|name| number_of(name) == Some(number)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Host>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number_of(name: &str) -> Option<u64> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    NameHash::of(&wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wanted_is_resolved_and_the_rest_forgotten() {
        let hosts = Hosts::default();
        let host = |text: &str| NamePattern::parse_host(text).unwrap();
        let (localhost, all) = (host("localhost"), host("*"));
        hosts.refresh(&[&localhost, &host("*.test")]).await;
        let found = hosts.addresses(&localhost);
        assert!(
            !found.is_empty() && found.iter().all(IpAddr::is_loopback),
            "{found:?}"
        );
        assert_eq!(hosts.with_address(found[0]), ["localhost".into()]);
        assert_eq!(
            hosts
                .by_number(NameHash::of(b"\x09localhost\0").unwrap())
                .as_deref(),
            Some("localhost")
        );
        hosts.refresh(&[]).await;
        assert!(hosts.addresses(&all).is_empty());
    }
}
