//! Each decoder by itself, made to read what is nearly its own protocol: no panic, no loop, bounded memory, and times in
//! their order.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{
    Call, Conversation, End, Kind, Side,
    damaged::{Sample, forced, samples},
};
use crate::protocol::stream::HEAD_LIMIT;

/// Calls that one conversation holds open at a time.
const OPEN_LIMIT: usize = 1024;

/// What is done to the bytes of a direction.
#[derive(Clone, Debug)]
enum Edit {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Cut(usize, usize),
    /// Bytes from elsewhere in the conversation.
    Copy(usize, usize, usize),
    Gap(Option<u64>),
}

fn edit() -> impl Strategy<Value = Edit> {
    // The limits of what numbers can say are worth more than what is between them.
    let byte = prop_oneof![
        Just(0_u8),
        Just(1),
        Just(0x7f),
        Just(0x80),
        Just(0xff),
        any::<u8>()
    ];
    prop_oneof![
        6 => (any::<usize>(), byte.clone()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        2 => (any::<usize>(), proptest::collection::vec(byte, 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (any::<usize>(), 1..200_usize).prop_map(|(at, count)| Edit::Cut(at, count)),
        2 => (any::<usize>(), any::<usize>(), 1..200_usize).prop_map(|(at, from, count)| Edit::Copy(at, from, count)),
        1 => proptest::option::of(0..3000_u64).prop_map(Edit::Gap),
    ]
}

/// Edits of which packet, counted from the first and again from there.
fn edits() -> impl Strategy<Value = Vec<(usize, Edit)>> {
    proptest::collection::vec((any::<usize>(), edit()), 0..25)
}

fn changed(bytes: &mut Vec<u8>, edit: &Edit, all: &[u8]) {
    match edit {
        Edit::Set(at, byte) if !bytes.is_empty() => {
            let at = at % bytes.len();
            bytes[at] = *byte;
        }
        Edit::Insert(at, new) => {
            let at = at % (bytes.len() + 1);
            bytes.splice(at..at, new.iter().copied());
        }
        Edit::Cut(at, count) if !bytes.is_empty() => {
            let at = at % bytes.len();
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        Edit::Copy(at, from, count) => {
            let (at, from) = (at % (bytes.len() + 1), from % all.len());
            let other = all[from..].iter().take(*count).copied();
            bytes.splice(at..at, other);
        }
        _ => {}
    }
}

/// Reads a damaged sample with that decoder, whatever is detected.
fn survives(kinds: &'static [Kind], sample: &Sample, edits: &[(usize, Edit)], piece: usize) {
    let (_, port, packets) = sample;
    let all: Vec<u8> = packets.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
    let (mut conversation, mut calls) = (Conversation::of(kinds, *port), Vec::new());
    let mut fed = 0;
    for (index, (side, at, bytes)) in packets.iter().enumerate() {
        let mut bytes = bytes.clone();
        for (_, edit) in edits.iter().filter(|(place, _)| place % packets.len() == index) {
            changed(&mut bytes, edit, &all);
            if let Edit::Gap(count) = edit {
                conversation.missing(*side, *at, *count, &mut calls);
            }
        }
        fed += bytes.len();
        for piece in bytes.chunks(piece) {
            conversation.data(*side, *at, piece, &mut calls);
            assert!(conversation.held() <= 2 * HEAD_LIMIT);
        }
    }
    conversation.end(packets.last().unwrap().1, End::Closed, &mut calls);
    assert!(calls.len() <= fed + OPEN_LIMIT);
    calls.iter().for_each(in_order);
}

fn in_order(call: &Call) {
    let mut last = call.started_ns;
    // An answer may come before its request has ended.
    for at in [call.first_byte_ns, Some(call.ended_ns)].into_iter().flatten() {
        assert!(last <= at, "{call:?}");
        last = at;
    }
    assert!(call.sent_ns.is_none_or(|at| call.started_ns <= at), "{call:?}");
}

/// The conversations recorded of a protocol, and its decoder alone.
fn of(protocol: &str, names: &[&str]) -> (Vec<&'static Sample>, &'static [Kind]) {
    let own = |sample: &&Sample| names.contains(&sample.0.split('-').next().unwrap());
    let kinds = forced().iter().find(|kinds| kinds[0].name.as_str() == protocol);
    (samples().iter().filter(own).collect(), kinds.unwrap())
}

macro_rules! survives {
    ($($test:ident: $protocol:literal of $names:expr;)*) => {
        $(proptest! {
            #[test]
            fn $test(which: prop::sample::Index, edits in edits(), piece in prop_oneof![Just(usize::MAX), 1..50_usize]) {
                let (samples, kinds) = of($protocol, &$names);
                let sample: &&Sample = which.get(&samples);
                survives(kinds, sample, &edits, piece);
            }
        })*
        /// Each has a property, and conversations recorded.
        #[test]
        fn none_is_without() {
            let with = [$($protocol),*];
            for kinds in forced() {
                assert!(with.contains(&kinds[0].name.as_str()), "{}", kinds[0].name);
            }
            $(assert!(!of($protocol, &$names).0.is_empty());)*
        }
    };
}

survives! {
    http1_survives: "http" of ["http1"];
    http2_and_grpc_survive: "http2" of ["http2", "grpc"];
    redis_survives: "redis" of ["redis"];
    mysql_survives: "mysql" of ["mysql"];
    postgres_survives: "postgresql" of ["postgres"];
    tls_survives: "tls" of ["tls"];
    dns_survives: "dns" of ["dns"];
    memcached_survives: "memcached" of ["memcached"];
    nats_survives: "nats" of ["nats"];
    mqtt_survives: "mqtt" of ["mqtt"];
    amqp_survives: "amqp" of ["amqp"];
    mongodb_survives: "mongodb" of ["mongodb"];
    kafka_survives: "kafka" of ["kafka"];
}

/// What a decoder would search in vain, or go through in the smallest steps.
fn dull() -> Vec<Vec<u8>> {
    let runs = [0, 1, b' ', b'a', b'\n', 0x7f, 0xff].map(|byte| vec![byte; 64]);
    // Heads without end: of each protocol, its first packets again and again.
    let mut firsts: Vec<_> = samples().iter().collect();
    firsts.dedup_by_key(|(name, ..)| name.split('-').next());
    let starts = firsts.into_iter().flat_map(|(_, _, packets)| {
        let of = |wanted| packets.iter().find(|(side, ..)| *side == wanted);
        [Side::Client, Side::Server]
            .into_iter()
            .filter_map(of)
            .map(|(_, _, bytes)| bytes[..bytes.len().min(48)].to_vec())
            .collect::<Vec<_>>()
    });
    runs.into_iter().chain(starts).collect()
}

#[test]
fn a_search_takes_no_longer_the_more_there_is() {
    // A search over all that is held for each byte would take hours.
    let limit = Duration::from_secs(5);
    for kinds in forced() {
        for dull in dull() {
            let bytes: Vec<u8> = dull.iter().copied().cycle().take(128 << 10).collect();
            for side in [Side::Client, Side::Server] {
                let (mut conversation, mut calls) = (Conversation::of(kinds, 0), Vec::new());
                let began = Instant::now();
                for (at, piece) in (0..).zip(bytes.chunks(1400)) {
                    if at % 16 == 0 {
                        conversation.missing(side, at, Some(100), &mut calls);
                    }
                    conversation.data(side, at, piece, &mut calls);
                    assert!(conversation.held() <= 2 * HEAD_LIMIT);
                }
                assert!(began.elapsed() < limit, "{}: {dull:?}", kinds[0].name);
            }
        }
    }
}
