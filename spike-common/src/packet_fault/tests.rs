//! The decisions of packet faults, against their definitions.

extern crate std;
use core::net::{IpAddr, SocketAddr};
use std::vec::Vec;

use super::*;
use crate::chance::{ALWAYS, threshold};

fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn network(text: &str, bits: u32) -> PacketFault {
    let ip: IpAddr = text.parse().unwrap();
    let bits = if ip.is_ipv4() { 96 + bits } else { bits };
    PacketFault {
        keys: NETWORK,
        network: Address::from(ip),
        mask: Address::from_bytes([0xff; 16]).masked(bits),
        ways: REQUEST | RESPONSE,
        ..PacketFault::default()
    }
}

/// A packet of which neither end is known.
fn strange(from: &str, to: &str, leaves: bool) -> Seen {
    Seen {
        ways: REQUEST | RESPONSE,
        leaves,
        request_to: end(to),
        response_from: end(from),
        ..Seen::default()
    }
}

#[test]
fn the_way_is_told_by_which_end_is_called() {
    let fault = network("10.1.0.0", 16);
    assert_eq!(
        fault.takes(&strange("192.0.2.1:999", "10.1.2.3:80", true)),
        REQUEST
    );
    assert_eq!(
        fault.takes(&strange("10.1.2.3:80", "192.0.2.1:999", false)),
        RESPONSE
    );
    assert_eq!(fault.takes(&strange("10.2.2.3:80", "192.0.2.1:999", false)), 0);
    assert_eq!(fault.takes(&strange("[fd00::1]:80", "[fd00::2]:999", false)), 0);
    let one_way = PacketFault {
        ways: REQUEST,
        ..fault
    };
    assert_eq!(
        one_way.takes(&strange("192.0.2.1:999", "10.1.2.3:80", true)),
        REQUEST
    );
    assert_eq!(one_way.takes(&strange("10.1.2.3:80", "192.0.2.1:999", false)), 0);
}

#[test]
fn ports_and_networks_must_both_fit() {
    let fault = PacketFault {
        keys: NETWORK | PORT,
        port_first: 80,
        port_last: 90,
        ..network("fd00::", 8)
    };
    assert_eq!(fault.takes(&strange("[::1]:5", "[fd12::1]:80", true)), REQUEST);
    assert_eq!(fault.takes(&strange("[::1]:5", "[fd12::1]:90", true)), REQUEST);
    for to in ["[fd12::1]:91", "[fd12::1]:79", "[fe00::1]:80", "10.0.0.1:80"] {
        assert_eq!(fault.takes(&strange("[::1]:5", to, true)), 0, "{to}");
    }
}

#[test]
fn a_known_flow_goes_its_own_way_only() {
    let fault = PacketFault {
        keys: PORT,
        port_first: 80,
        port_last: 80,
        ways: REQUEST | RESPONSE,
        ..PacketFault::default()
    };
    // Both ends have port 80, yet it is known who called.
    let mut seen = strange("10.0.0.1:80", "10.0.0.2:80", true);
    seen.ways = RESPONSE;
    assert_eq!(fault.takes(&seen), RESPONSE);
}

#[test]
fn callers_are_told_apart() {
    let fault = PacketFault {
        keys: TGID | EXECUTABLE,
        tgid: 7,
        executable: 9,
        ways: REQUEST | RESPONSE,
        ..PacketFault::default()
    };
    let mut seen = strange("10.0.0.1:1", "10.0.0.2:2", true);
    assert_eq!(fault.takes(&seen), 0, "nobody's");
    (seen.tgid, seen.executable, seen.ways) = (7, 9, RESPONSE);
    assert_eq!(fault.takes(&seen), RESPONSE);
    seen.tgid = 8;
    assert_eq!(fault.takes(&seen), 0);
}

#[test]
fn without_a_destination_what_leaves_is_a_request() {
    let fault = PacketFault {
        ways: REQUEST,
        ..PacketFault::default()
    };
    assert_eq!(fault.takes(&strange("10.0.0.1:1", "10.0.0.2:2", true)), REQUEST);
    assert_eq!(fault.takes(&strange("10.0.0.1:1", "10.0.0.2:2", false)), 0);
    // No IP packet, such as ARP.
    let arp = Seen {
        leaves: true,
        ..Seen::default()
    };
    assert_eq!(fault.takes(&arp), REQUEST);
    assert_eq!(network("10.0.0.0", 8).takes(&arp), 0);
}

#[test]
fn a_packet_is_looked_at_once_and_waits_when_it_leaves() {
    let waits = PacketFault {
        flags: LEAVING,
        ..PacketFault::default()
    };
    for link in [0, LINK_LOOPBACK] {
        assert!(waits.looks(true, link) && !waits.looks(false, link));
    }
    let drops = PacketFault::default();
    assert!(drops.looks(true, 0) && drops.looks(false, 0));
    assert!(!drops.looks(true, LINK_LOOPBACK) && drops.looks(false, LINK_LOOPBACK));
    let doubles = PacketFault {
        kind: DUPLICATE,
        ..drops
    };
    assert!(doubles.looks(true, 0) && doubles.looks(false, 0));
    assert!(doubles.looks(true, LINK_LOOPBACK) && !doubles.looks(false, LINK_LOOPBACK));
}

fn run(fault: &PacketFault, flow: u64, packets: usize) -> Vec<bool> {
    let mut flow = fault.begin(flow);
    (0..packets)
        .map(|_| fault.hits(&mut flow, REQUEST).is_some())
        .collect()
}

fn losses(percent: f64, seed: u64) -> PacketFault {
    PacketFault {
        seed,
        flows_below: ALWAYS,
        good_below: threshold(percent),
        ..PacketFault::default()
    }
}

#[test]
fn shares_stay_within_binomial_bounds() {
    for (seed, percent) in [(1, 1.0), (2, 10.0), (3, 50.0), (4, 100.0)] {
        let hits = run(&losses(percent, seed), 0, 100_000)
            .iter()
            .filter(|hit| **hit)
            .count() as f64;
        let p = percent / 100.0;
        let bound = 5.0 * (100_000.0 * p * (1.0 - p)).sqrt();
        assert!((hits - 100_000.0 * p).abs() <= bound, "{percent} %: {hits}");
    }
}

#[test]
fn a_seed_repeats_and_flows_and_ways_differ() {
    let fault = losses(50.0, 7);
    assert_eq!(run(&fault, 3, 200), run(&fault, 3, 200));
    assert_ne!(run(&fault, 3, 200), run(&fault, 4, 200));
    assert_ne!(run(&fault, 3, 200), run(&losses(50.0, 8), 3, 200));
    let mut flow = fault.begin(3);
    let back: Vec<bool> = (0..200)
        .map(|_| fault.hits(&mut flow, RESPONSE).is_some())
        .collect();
    assert_ne!(back, run(&fault, 3, 200));
    assert_eq!(flow.packets, [0, 200]);
}

#[test]
fn a_share_of_the_flows_is_taken_whole() {
    let fault = PacketFault {
        flows_below: threshold(25.0),
        ..losses(100.0, 1)
    };
    let taken: Vec<bool> = (0..10_000).map(|flow| run(&fault, flow, 1)[0]).collect();
    let count = taken.iter().filter(|taken| **taken).count();
    // Five standard deviations of 43.3.
    assert!((2283..=2717).contains(&count), "{count}");
    let flow = taken.iter().position(|taken| !taken).unwrap() as u64;
    assert!(run(&fault, flow, 100).iter().all(|hit| !hit));
}

/// The mean run lengths of the states are 1/p and 1/r packets, and with them those of losses and of gaps.
#[test]
fn gilbert_runs_are_as_long_as_defined() {
    let (p, r) = (2.0, 20.0);
    let fault = PacketFault {
        seed: 11,
        flows_below: ALWAYS,
        good_below: 0,
        bad_below: ALWAYS,
        to_bad_below: threshold(p),
        to_good_below: threshold(r),
        ..PacketFault::default()
    };
    let lost = run(&fault, 0, 400_000);
    let runs = |value: bool| -> Vec<usize> {
        lost.split(|hit| *hit != value)
            .map(<[bool]>::len)
            .filter(|length| *length > 0)
            .collect()
    };
    for (value, chance) in [(true, r), (false, p)] {
        let runs = runs(value);
        let mean = runs.iter().sum::<usize>() as f64 / runs.len() as f64;
        let expected = 100.0 / chance;
        // A geometric distribution's deviation is about its mean.
        let bound = 5.0 * expected / (runs.len() as f64).sqrt();
        assert!((mean - expected).abs() < bound, "{value}: {mean} of {expected}");
    }
}

#[test]
fn elliott_states_have_shares_of_their_own() {
    let fault = PacketFault {
        seed: 12,
        flows_below: ALWAYS,
        good_below: threshold(1.0),
        bad_below: threshold(60.0),
        to_bad_below: threshold(5.0),
        to_good_below: threshold(15.0),
        ..PacketFault::default()
    };
    let lost = run(&fault, 0, 400_000).iter().filter(|hit| **hit).count() as f64 / 400_000.0;
    // A quarter of the time is bad.
    let expected = 0.75 * 0.01 + 0.25 * 0.6;
    assert!((lost - expected).abs() < 0.01, "{lost} of {expected}");
}

#[test]
fn holds_are_even_over_their_range() {
    let fault = PacketFault {
        seed: 5,
        flows_below: ALWAYS,
        good_below: ALWAYS,
        delay_ns: 5_000_000_000,
        jitter_ns: 5_000_000_000,
        ..PacketFault::default()
    };
    let mut flow = fault.begin(0);
    let mut tenths = [0_u32; 10];
    for _ in 0..10_000 {
        let hold = fault.hold_ns(&fault.hits(&mut flow, REQUEST).unwrap());
        assert!(hold <= 10_000_000_000);
        tenths[((hold / 1_000_000_000) as usize).min(9)] += 1;
    }
    // Chi square with 9 degrees of freedom: 27.9 is passed by chance once in a thousand.
    let chi: f64 = tenths
        .iter()
        .map(|count| (f64::from(*count) - 1000.0).powi(2) / 1000.0)
        .sum();
    assert!(chi < 27.9, "{chi}: {tenths:?}");
    let steady = PacketFault {
        jitter_ns: 0,
        ..fault
    };
    assert_eq!(steady.hold_ns(&Hit { seed: 1, number: 1 }), 5_000_000_000);
}

#[test]
fn a_rate_lines_packets_up() {
    let fault = PacketFault {
        rate: 1_000_000,
        ..PacketFault::default()
    };
    let (first, free) = fault.departs_ns(100, 0, 1000).unwrap();
    assert_eq!((first, free), (100, 1_000_100));
    let (second, free) = fault.departs_ns(200, free, 500).unwrap();
    assert_eq!((second, free), (1_000_100, 1_500_100));
    assert_eq!(fault.departs_ns(0, MAX_QUEUE_NS + 1, 1), None);
}

#[test]
fn a_burst_is_of_neighbouring_bits_within_the_payload() {
    for chance in 0..1000_u32 {
        let chance = chance.wrapping_mul(0x9e37_79b9);
        let (word, mask) = burst(chance, 7, 3);
        assert!(word < 7);
        assert_eq!((mask.count_ones(), mask >> mask.trailing_zeros()), (3, 7));
        assert_eq!(burst(chance, 1, 8).0, 0);
    }
}
