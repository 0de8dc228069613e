//! Remembers which name led a caller to an address: a connection has only the address.
//!
//! One address serves many names, and one name leads elsewhere in each namespace, so what counts is what this caller
//! itself resolved, and last before it connected. A TTL does not end that: connections outlive it, and applications keep
//! addresses longer than they may.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData},
    serialize::binary::DecodeError,
};
use lru::LruCache;

/// Bounds how many addresses are remembered, of all askers together.
const MAX_ADDRESSES: usize = 16_384;
/// Names by which one asker knew one address, over time.
const MAX_NAMES: usize = 8;
/// Aliases that are followed in one answer; resolvers give up sooner.
const MAX_ALIASES: usize = 16;

/// Who asked: what shares a resolver's view and is one service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The network namespace's cookie.
    pub netns: u64,
    /// The cgroup's id.
    pub cgroup: u64,
}

/// Why nothing was learned from a message.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It cannot be parsed.
    #[error("not a DNS message: {0}")]
    Malformed(#[from] DecodeError),
}

/// Who resolved what, in bounded memory.
#[derive(Debug, Default)]
pub struct NameTable {
    /// Each asker's addresses, those that were learned longest ago first out.
    askers: HashMap<Asker, LruCache<IpAddr, Vec<Sighting>>>,
    /// Addresses of all askers.
    addresses: usize,
}

/// A name that an address had for an asker from some time on.
#[derive(Debug)]
struct Sighting {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    at: u64,
    name: Arc<str>,
}

impl NameTable {
    /// Learns from an answer that `asker` got `at` (`CLOCK_MONOTONIC`, nanoseconds), given as the DNS message without
    /// what carried it. Queries and answers without addresses teach nothing.
    ///
    /// The name is the one of the question: what the application asked for, not what it is an alias of. Records that
    /// the question does not lead to, through CNAMEs (RFC 1034, section 3.6.2), do not count.
    ///
    /// # Errors
    /// When it is no DNS message.
    pub fn learn(&mut self, asker: Asker, message: &[u8], at: u64) -> Result<(), NameError> {
        let message = Message::from_vec(message)?;
        let header = &message.metadata;
        if header.message_type != MessageType::Response
            || header.op_code != OpCode::Query
            || header.response_code != ResponseCode::NoError
        {
            return Ok(());
        }
        let Some(question) = message.queries.first() else {
            return Ok(());
        };
        let addresses = addresses_of(question.name(), &message);
        if !addresses.is_empty() {
            let name: Arc<str> = shown(question.name()).into();
            for address in addresses {
                self.note(
                    asker,
                    address.to_canonical(),
                    Sighting {
                        at,
                        name: Arc::clone(&name),
                    },
                );
            }
        }
        Ok(())
    }

    /// The name that `asker` had most recently resolved to `address` when it was `at`; `None` when it had not.
    pub fn name(&self, asker: Asker, address: IpAddr, at: u64) -> Option<Arc<str>> {
        let sightings = self.askers.get(&asker)?.peek(&address.to_canonical())?;
        let last = sightings.iter().rev().find(|sighting| sighting.at <= at)?;
        Some(Arc::clone(&last.name))
    }

    fn note(&mut self, asker: Asker, address: IpAddr, sighting: Sighting) {
        let own = self.askers.entry(asker).or_insert_with(LruCache::unbounded);
        let before = own.len();
        insert(own.get_or_insert_mut(address, Vec::new), sighting);
        self.addresses += own.len() - before;
        if self.addresses > MAX_ADDRESSES {
            self.forget_one();
        }
    }

    /// Forgets an address of the asker with most of them, so that one that asks for everything costs no other a name.
    fn forget_one(&mut self) {
        let largest = self.askers.iter_mut().max_by_key(|(_, own)| own.len());
        let Some((&asker, own)) = largest else { return };
        if own.pop_lru().is_some() {
            self.addresses -= 1;
        }
        if own.is_empty() {
            self.askers.remove(&asker);
        }
    }
}

/// Adds a sighting in order of time, since answers that were seen on several CPUs come in any. Of a name that is seen
/// again and again the first and the last time are kept.
fn insert(sightings: &mut Vec<Sighting>, sighting: Sighting) {
    let place = sightings.partition_point(|earlier| earlier.at <= sighting.at);
    sightings.insert(place, sighting);
    let runs = sightings.windows(3).enumerate().skip(place.saturating_sub(2));
    let mut runs = runs.filter(|(_, run)| run.iter().all(|other| other.name == run[0].name));
    if let Some((first, _)) = runs.next() {
        sightings.remove(first + 1);
    }
    if sightings.len() > MAX_NAMES {
        sightings.remove(0);
    }
}

/// The addresses that the question's name leads to, through aliases in any order.
fn addresses_of(question: &Name, message: &Message) -> Vec<IpAddr> {
    let answers = || {
        message
            .answers
            .iter()
            .filter(|record| record.dns_class == DNSClass::IN)
    };
    let mut aliases = vec![question];
    let mut next = 0;
    while let Some(alias) = aliases.get(next).copied().filter(|_| next < MAX_ALIASES) {
        next += 1;
        for record in answers().filter(|record| record.name == *alias) {
            if let RData::CNAME(target) = &record.data
                && !aliases.contains(&&target.0)
            {
                aliases.push(&target.0);
            }
        }
    }
    let of_aliases = answers().filter(|record| aliases.contains(&&record.name));
    let addresses = of_aliases.filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::from(address.0)),
        RData::AAAA(address) => Some(IpAddr::from(address.0)),
        _ => None,
    });
    addresses.collect()
}

/// A name as people write it: without the dot of the root, and in small letters, as DNS does not tell them apart.
fn shown(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
