//! Every sample, damaged: what a gap, a late start or noise leaves over is never told wrong.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{
    Call, Conversation, End, Kind, Side,
    sample::{self, Packet},
};
use crate::protocol::{kind::ALL, stream::HEAD_LIMIT};

/// Name, port and packets.
pub(super) type Sample = (String, u16, Vec<Packet>);

/// The name and port of each recorded conversation, and what was said.
pub(super) fn samples() -> &'static [Sample] {
    static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(read_samples);
    &SAMPLES
}

fn read_samples() -> Vec<Sample> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/samples");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let port = port(&name);
        let mut packets = sample::packets(&std::fs::read_to_string(path).unwrap());
        for (_, at, _) in &mut packets {
            // In nanoseconds, as silences count.
            *at *= 1000;
        }
        (name, port, packets)
    };
    paths.iter().map(read).collect()
}

/// The first port of the protocol that a sample's name starts with.
fn port(name: &str) -> u16 {
    kind(name).ports[0]
}

/// The protocol that a sample's name starts with.
fn kind(name: &str) -> &'static Kind {
    let protocol = match name.split('-').next().unwrap() {
        "http1" => "http",
        "grpc" => "http2",
        "postgres" => "postgresql",
        protocol => protocol,
    };
    ALL.iter().find(|kind| kind.name.as_str() == protocol).unwrap()
}

/// What is done to a packet.
#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    /// It was not captured.
    Missing,
    /// Nor is it known how long it was.
    Vanished,
    /// A byte of it differs.
    Changed(usize, u8),
    Twice,
}

fn play(
    kinds: &'static [Kind],
    port: u16,
    packets: &[Packet],
    damage: impl Fn(usize) -> Damage,
    piece: usize,
) -> (Vec<Call>, Conversation) {
    let (mut conversation, mut calls) = (Conversation::of(kinds, port), Vec::new());
    for (index, (side, at, bytes)) in packets.iter().enumerate() {
        let mut bytes = bytes.clone();
        let mut times = 1;
        match damage(index) {
            Damage::None => {}
            Damage::Missing => {
                conversation.missing(*side, *at, Some(bytes.len() as u64), &mut calls);
                continue;
            }
            Damage::Vanished => {
                conversation.missing(*side, *at, None, &mut calls);
                continue;
            }
            Damage::Changed(place, byte) => {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            Damage::Twice => times = 2,
        }
        for _ in 0..times {
            for piece in bytes.chunks(piece) {
                conversation.data(*side, *at, piece, &mut calls);
                assert!(conversation.held() <= 2 * HEAD_LIMIT);
            }
        }
    }
    (calls, conversation)
}

/// Fails if a call has a response, or an end, that is another's.
fn assert_true(name: &str, what: &str, told: &[Call], whole: &[Call]) {
    for call in told.iter().filter(|call| call.first_byte_ns.is_some()) {
        let same = |other: &&Call| {
            let begun = other.started_ns == call.started_ns && other.first_byte_ns == call.first_byte_ns;
            begun && (!call.complete || other.ended_ns == call.ended_ns)
        };
        assert!(
            whole.iter().any(|other| same(&other)),
            "{name}, {what}: {call:?} of {whole:#?}"
        );
    }
}

#[test]
fn a_gap_never_gives_a_request_another_ones_response() {
    for (name, port, packets) in samples() {
        let (whole, _) = play(ALL, *port, packets, |_| Damage::None, usize::MAX);
        for gap in 0..packets.len() {
            for how in [Damage::Missing, Damage::Vanished] {
                let damage = |index| if index == gap { how } else { Damage::None };
                let (told, conversation) = play(ALL, *port, packets, damage, usize::MAX);
                assert_true(name, &format!("{how:?} {gap}"), &told, &whole);
                // What is not told is said to be lost, but where nothing would have come of it.
                let losses = conversation.losses();
                let said = losses.resyncs > 0 || losses.bytes > 0 || conversation.is_opaque();
                assert!(
                    said || told.len() >= whole.len(),
                    "{name}, {how:?} {gap}: {losses:?}"
                );
            }
        }
    }
}

#[test]
fn what_comes_after_a_gap_is_found_again() {
    let followed = [
        "amqp-shop",
        "dns-queries",
        "grpc-calls",
        "http1-keepalive",
        "http2-requests",
        "kafka-broker-group",
        "kafka-group",
        "memcached-meta",
        "mongodb-server",
        "mongodb-shop",
        "mqtt-five",
        "mysql-prepared",
        "nats-caller",
        "postgres-psql",
        "redis-commands",
    ];
    for (name, port, packets) in samples().iter().filter(|(name, ..)| followed.contains(&&**name)) {
        let (whole, _) = play(ALL, *port, packets, |_| Damage::None, usize::MAX);
        let told = |gap| {
            let damage = |index| {
                if index == gap {
                    Damage::Missing
                } else {
                    Damage::None
                }
            };
            play(ALL, *port, packets, damage, usize::MAX).0.len()
        };
        let told: usize = (0..packets.len()).map(told).sum();
        // A gap costs a call or two, and not what follows.
        let all = whole.len() * packets.len();
        assert!(
            told * 100 > 80 * all || all <= told + packets.len(),
            "{name}: {told} of {all}"
        );
    }
}

#[test]
fn a_late_start_never_gives_a_request_another_ones_response() {
    for (name, port, packets) in samples() {
        let (whole, _) = play(ALL, *port, packets, |_| Damage::None, usize::MAX);
        for start in 1..packets.len() {
            let (mut conversation, mut told) = (Conversation::new(*port), Vec::new());
            conversation.missing(Side::Client, 0, None, &mut told);
            conversation.missing(Side::Server, 0, None, &mut told);
            for (side, at, bytes) in &packets[start..] {
                conversation.data(*side, *at, bytes, &mut told);
            }
            assert_true(name, &format!("from {start}"), &told, &whole);
        }
    }
}

/// Every protocol, taken to be spoken whatever is said.
pub(super) fn forced() -> &'static [&'static [Kind]] {
    static FORCED: LazyLock<Vec<&'static [Kind]>> = LazyLock::new(force_all);
    &FORCED
}

fn force_all() -> Vec<&'static [Kind]> {
    let force = |kind: &Kind| {
        let kind = Kind {
            detect: |_, _| crate::protocol::Verdict::Yes,
            ..*kind
        };
        &*Vec::leak(vec![kind])
    };
    ALL.iter().map(force).collect()
}

#[test]
fn every_decoder_survives_every_other_ones_samples() {
    let forced = forced();
    for (_, port, packets) in samples() {
        for kinds in forced {
            for piece in [usize::MAX, 100] {
                play(kinds, *port, packets, |_| Damage::None, piece);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        20 => Just(Damage::None),
        1 => Just(Damage::Missing),
        1 => Just(Damage::Vanished),
        6 => (any::<usize>(), any::<u8>()).prop_map(|(place, byte)| Damage::Changed(place, byte)),
        1 => Just(Damage::Twice),
    ]
}

proptest! {
    #[test]
    fn noise_is_survived_and_pieces_change_nothing(
        which in any::<prop::sample::Index>(),
        damages in proptest::collection::vec(damage(), 1..40),
        piece in 1..40_usize,
    ) {
        let (name, port, packets) = which.get(samples());
        let damage = |index: usize| damages[index % damages.len()];
        let (whole, mut conversation) = play(ALL, *port, packets, damage, usize::MAX);
        let (pieces, split) = play(ALL, *port, packets, damage, piece);
        // A place that is looked for is found sooner or later, as the bytes come.
        let (one, other) = (conversation.losses(), split.losses());
        if one.undecodable == 0 && one.resyncs == 0 && other.resyncs == 0 {
            prop_assert_eq!(&whole, &pieces, "{} in pieces of {}", name, piece);
        }
        conversation.end(u64::MAX, End::Reset, &mut Vec::new());
    }

    #[test]
    fn any_bytes_are_survived_by_every_decoder(
        said in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0..80_u8, 1..60)), 1..12),
        piece in 1..40_usize,
    ) {
        // Most formats have small numbers where it matters.
        let side = |client| if client { Side::Client } else { Side::Server };
        let packets: Vec<Packet> = (0..).zip(said).map(|(at, (client, bytes))| (side(client), at, bytes)).collect();
        for kinds in forced() {
            play(kinds, 0, &packets, |_| Damage::None, piece);
        }
    }
}
