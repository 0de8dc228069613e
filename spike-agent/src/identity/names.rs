//! Remembers the names that were resolved on this host, by the number that the kernel side knows each by.
//!
//! Which of them led a caller to an address, the kernel side notes as the answer arrives: an edge has the number of its
//! name.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use hickory_proto::{
    op::{Header, MessageType, Query},
    serialize::binary::{BinDecodable, BinDecoder},
};
use lru::LruCache;
use spike_common::name::NameHash;

/// Bounds the memory; as many as the kernel side has addresses.
const MAX_NAMES: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Bytes of a message's header.
const HEADER: usize = 12;

/// Names by number; the least used is forgotten first.
#[derive(Debug)]
pub struct Names(Mutex<LruCache<u64, Arc<str>>>);

impl Default for Names {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_NAMES)))
    }
}

impl Names {
    /// Learns the name that a DNS message answers for; anything else is passed over.
    pub fn learn(&self, message: &[u8]) {
        let Some(number) = message.get(HEADER..).and_then(NameHash::of) else {
            return;
        };
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.get(&number).is_none()
            && let Some(name) = question(message)
        {
            names.put(number, name.into());
        }
    }

    /// The names that are known, with their numbers.
    pub fn all(&self) -> Vec<(u64, Arc<str>)> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .iter()
            .map(|(number, name)| (*number, Arc::clone(name)))
            .collect()
    }

    /// The name with this number.
    pub fn get(&self, number: u64) -> Option<Arc<str>> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&number).cloned()
    }
}

/// The name that is asked for, as people write it: without the dot of the root, and in small letters, since DNS does not
/// tell them apart.
fn question(message: &[u8]) -> Option<String> {
    let mut decoder = BinDecoder::new(message);
    let header = Header::read(&mut decoder).ok()?;
    if header.message_type != MessageType::Response || header.counts.queries != 1 {
        return None;
    }
    let name = Query::read(&mut decoder).ok()?.name;
    let text = name.to_ascii().to_ascii_lowercase();
    Some(text.trim_end_matches('.').to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// dnsmasq 2.90 on db.shop.test: 10.0.0.7; on WWW.shop.test, an alias; and a query of it.
    const DB: &str =
        "1234858000010001000000000264620473686f7004746573740000010001c00c000100010000000000040a000007";
    const WWW: &str = "123485800001000300000001035757570473686f7004746573740000010001c00c00050001000000000010046564\
        67650473686f70047465737400c02b0005000100000000000f037765620473686f70047465737400c047000100010000000000040a00\
        000800002904d0000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    #[test]
    fn a_name_is_found_by_its_number() {
        let names = Names::default();
        names.learn(&bytes(DB));
        names.learn(&bytes(WWW));
        let name = |wire| names.get(NameHash::of(wire).unwrap());
        assert_eq!(name(b"\x02db\x04shop\x04test\0").as_deref(), Some("db.shop.test"));
        assert_eq!(
            name(b"\x03www\x04shop\x04test\0").as_deref(),
            Some("www.shop.test"),
            "asked for as WWW; what it is an alias of does not count"
        );
        assert_eq!(name(b"\x04edge\x04shop\x04test\0"), None);
    }

    #[test]
    fn what_is_no_answer_teaches_nothing() {
        let names = Names::default();
        let mut query = bytes(DB);
        query[2] &= 0x7f;
        names.learn(&query);
        for end in 0..bytes(DB).len() {
            names.learn(&bytes(DB)[..end.min(28)]);
        }
        assert_eq!(
            names.get(NameHash::of(b"\x02db\x04shop\x04test\0").unwrap()),
            None
        );
    }
}
