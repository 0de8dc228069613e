//! Learns from DNS answers which name led to which address, before the asker can act on them.

use aya_ebpf::bindings::__sk_buff;
use spike_common::address::Address;
use spike_common::name::{MAX_NAME, NameHash, NameKey};

use crate::maps::NAMES;
use crate::support::headers::load;

/// The port of DNS.
pub(crate) const PORT: u16 = 53;

/// Records of an answer that are looked at.
const MAX_RECORDS: u16 = 16;
/// Labels of a record's name that are passed over; nearly all names are a pointer to an earlier one.
const MAX_LABELS: u32 = 16;
/// QR set, and opcode and response code 0: an answer to a query that did not fail.
const ANSWER_MASK: u16 = 0xf80f;
const ANSWER: u16 = 0x8000;
const A: u16 = 1;
const AAAA: u16 = 28;
const IN: u16 = 1;

/// The name that a cgroup last resolved to an address; 0 for none.
#[inline(always)]
pub(crate) fn name(cgroup: u64, address: Address) -> u64 {
    // SAFETY: copied at once.
    unsafe { NAMES.get(NameKey { cgroup, address }) }.map_or(0, |name| *name)
}

/// Reads the DNS message (RFC 1035 section 4.1) that starts at `start`. Every address in its answer is the question's:
/// that those of other names are not, the asker's resolver sees to.
#[inline(always)]
pub(crate) fn learn(skb: *mut __sk_buff, start: u32, cgroup: u64) -> Option<()> {
    let [_, flags, questions, answers, ..] = load::<[u16; 6]>(skb, start)?.map(u16::from_be);
    if flags & ANSWER_MASK != ANSWER || questions != 1 {
        return None;
    }
    let mut at = start + 12;
    let mut hash = NameHash::new();
    for _ in 0..MAX_NAME {
        let byte: u8 = load(skb, at)?;
        at += 1;
        if byte == 0 {
            break;
        }
        hash.take(byte);
    }
    let name = hash.finish();
    // Type and class.
    at += 4;
    for index in 0..MAX_RECORDS {
        if index >= answers {
            break;
        }
        at = skip_name(skb, at)?;
        let [kind, class, _, _, length] = load::<[u16; 5]>(skb, at)?.map(u16::from_be);
        at += 10;
        let address = match (kind, class) {
            (A, IN) => Address::from_ipv4_word(load(skb, at)?),
            (AAAA, IN) => Address(load(skb, at)?),
            _ => Address::default(),
        };
        if !address.is_unspecified() {
            _ = NAMES.insert(NameKey { cgroup, address }, name, 0);
        }
        at += u32::from(length);
    }
    Some(())
}

/// Where a name ends that starts at `at`.
#[inline(always)]
fn skip_name(skb: *mut __sk_buff, mut at: u32) -> Option<u32> {
    for _ in 0..MAX_LABELS {
        let length: u8 = load(skb, at)?;
        if length & 0xc0 == 0xc0 {
            return Some(at + 2);
        }
        at += u32::from(length) + 1;
        if length == 0 {
            return Some(at);
        }
    }
    None
}
