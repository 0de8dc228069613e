//! A rewritten packet must equal the one that etherparse builds with the wanted addresses, and satisfy tshark.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::capture::{oracle, pcapng};

type End = (IpAddr, u16);

fn build(link_type: LinkType, source: End, destination: End, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let (sport, dport) = (source.1, destination.1);
    // The two builders differ in type after the link layer, hence a macro and not a closure.
    macro_rules! write {
        ($ip:expr) => {
            $ip.tcp(sport, dport, 12_345, 4096)
                .psh()
                .ack(77)
                .write(&mut frame, payload)
                .unwrap()
        };
    }
    match (link_type, source.0, destination.0) {
        (LinkType::Ethernet, IpAddr::V4(s), IpAddr::V4(d)) => {
            write!(PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(s.octets(), d.octets(), 64))
        }
        (LinkType::Ethernet, IpAddr::V6(s), IpAddr::V6(d)) => {
            write!(PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6(s.octets(), d.octets(), 64))
        }
        (LinkType::Raw, IpAddr::V4(s), IpAddr::V4(d)) => {
            write!(PacketBuilder::ipv4(s.octets(), d.octets(), 64))
        }
        (LinkType::Raw, IpAddr::V6(s), IpAddr::V6(d)) => {
            write!(PacketBuilder::ipv6(s.octets(), d.octets(), 64))
        }
        _ => panic!("one family"),
    }
    frame
}

fn v4(last: u8, port: u16) -> End {
    (Ipv4Addr::new(127, 0, 0, last).into(), port)
}

/// Makes the checksum what a sender with an offloading card leaves: the pseudo-header's sum.
fn unfinish(frame: &mut [u8], link_type: LinkType, with_len: bool) {
    let segment = Segment::locate(frame, link_type).unwrap();
    let pseudo = segment.pseudo_header(frame) + if with_len { segment.len } else { 0 };
    put(frame, segment.tcp + TCP_CHECKSUM, fold(pseudo));
}

fn ends() -> impl Strategy<Value = [End; 3]> {
    let v4 = prop::array::uniform3(any::<(Ipv4Addr, u16)>())
        .prop_map(|ends| ends.map(|(ip, port)| (ip.into(), port)));
    let v6 = prop::array::uniform3(any::<(Ipv6Addr, u16)>())
        .prop_map(|ends| ends.map(|(ip, port)| (ip.into(), port)));
    prop_oneof![v4, v6]
        .prop_filter("a peer of its own", |[peer, from, _]: &[End; 3]| peer != from)
        .prop_filter("mapped addresses are IPv4 on the wire", |ends| {
            ends.iter().all(|end| end.0 == end.0.to_canonical())
        })
}

proptest! {
    #[test]
    fn equals_a_packet_built_with_the_wanted_end(
        [peer, from, to] in ends(),
        is_source: bool,
        ethernet: bool,
        // None: a finished checksum. Else unfinished, with or without the length.
        unfinished in prop::option::of(any::<bool>()),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let link_type = if ethernet { LinkType::Ethernet } else { LinkType::Raw };
        let packet = |end| if is_source { build(link_type, end, peer, &payload) } else { build(link_type, peer, end, &payload) };
        let mut frame = packet(from);
        if let Some(with_len) = unfinished {
            unfinish(&mut frame, link_type, with_len);
        }
        let found = rewrite(&mut frame, link_type, &Rewrite { from, to });
        prop_assert!(found);
        prop_assert_eq!(frame, packet(to));
    }

    #[test]
    fn cut_packet_equals_the_cut_of_the_wanted_one(
        [peer, from, to] in ends(),
        payload in prop::collection::vec(any::<u8>(), 100..300),
        kept in 20_usize..100,
        unfinished: bool,
    ) {
        let whole = build(LinkType::Raw, peer, to, &payload);
        let kept = kept + if from.0.is_ipv4() { 20 } else { 40 };
        let packet = |end| {
            let mut frame = build(LinkType::Raw, peer, end, &payload);
            if unfinished {
                unfinish(&mut frame, LinkType::Raw, true);
            }
            frame.truncate(kept);
            frame
        };
        let mut frame = packet(from);
        let found = rewrite(&mut frame, LinkType::Raw, &Rewrite { from, to });
        prop_assert!(found);
        // One value in 65,536 of a finished checksum looks unfinished; it is compared without the field then.
        let at = kept_checksum(&whole);
        let expected = packet(to);
        if unfinished || frame[at..at + 2] == expected[at..at + 2] {
            prop_assert_eq!(frame, expected);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), ethernet: bool, version in 4_u8..7) {
        let link_type = if ethernet { LinkType::Ethernet } else { LinkType::Raw };
        if let (false, Some(first)) = (ethernet, bytes.first_mut()) {
            *first = version << 4 | 5;
        }
        if ethernet && bytes.len() > 14 {
            bytes[12..14].copy_from_slice(if version == 4 { &[8, 0] } else { &[0x86, 0xdd] });
        }
        rewrite(&mut bytes, link_type, &Rewrite { from: v4(1, 1), to: v4(2, 2) });
    }
}

fn kept_checksum(frame: &[u8]) -> usize {
    Segment::locate(frame, LinkType::Raw).unwrap().tcp + TCP_CHECKSUM
}

#[test]
fn wrong_checksum_stays_wrong() {
    let mut frame = build(LinkType::Raw, v4(1, 10), v4(2, 20), b"payload");
    let at = kept_checksum(&frame);
    let wrong = get(&frame, at) ^ 0x0101;
    put(&mut frame, at, wrong);
    assert!(rewrite(
        &mut frame,
        LinkType::Raw,
        &Rewrite {
            from: v4(2, 20),
            to: v4(3, 30)
        }
    ));
    let right = build(LinkType::Raw, v4(1, 10), v4(3, 30), b"payload");
    assert_ne!(get(&frame, at), get(&right, at));
    assert_eq!(frame[..at], right[..at]);
}

#[test]
fn leaves_alone_what_does_not_match() {
    let original = build(LinkType::Ethernet, v4(1, 10), v4(2, 20), b"payload");
    let v6 = (Ipv6Addr::LOCALHOST.into(), 30);
    for (from, to) in [
        (v4(2, 21), v4(3, 30)), // another port
        (v4(3, 20), v4(3, 30)), // another address
        (v4(2, 20), v6),        // another family to go to
        (v6, v4(3, 30)),        // another family to come from
    ] {
        let mut frame = original.clone();
        assert!(!rewrite(&mut frame, LinkType::Ethernet, &Rewrite { from, to }));
        assert_eq!(frame, original);
    }
}

#[test]
fn leaves_udp_and_fragments_alone() {
    let mut udp = Vec::new();
    PacketBuilder::ipv4([127, 0, 0, 1], [127, 0, 0, 2], 64)
        .udp(10, 20)
        .write(&mut udp, &[0; 40])
        .unwrap();
    let mut fragment = build(LinkType::Raw, v4(1, 10), v4(2, 20), &[0; 40]);
    fragment[7] = 3; // an offset of 24 bytes
    for original in [udp, fragment] {
        let mut frame = original.clone();
        assert!(!rewrite(
            &mut frame,
            LinkType::Raw,
            &Rewrite {
                from: v4(2, 20),
                to: v4(3, 30)
            }
        ));
        assert_eq!(frame, original);
    }
}

#[test]
fn mapped_address_means_the_ipv4_one() {
    let mapped = (Ipv4Addr::new(127, 0, 0, 3).to_ipv6_mapped().into(), 30);
    let mut frame = build(LinkType::Raw, v4(1, 10), v4(2, 20), b"x");
    assert!(rewrite(
        &mut frame,
        LinkType::Raw,
        &Rewrite {
            from: v4(2, 20),
            to: mapped
        }
    ));
    assert_eq!(frame, build(LinkType::Raw, v4(1, 10), v4(3, 30), b"x"));
}

#[test]
fn finds_tcp_behind_a_vlan_tag() {
    let packet = |last, port| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .single_vlan(5.try_into().unwrap())
            .ipv4([127, 0, 0, 1], [127, 0, 0, last], 64)
            .tcp(10, port, 1, 1)
            .write(&mut frame, b"x")
            .unwrap();
        frame
    };
    let mut frame = packet(2, 20);
    assert!(rewrite(
        &mut frame,
        LinkType::Ethernet,
        &Rewrite {
            from: v4(2, 20),
            to: v4(3, 30)
        }
    ));
    assert_eq!(frame, packet(3, 30));
}

#[test]
fn tshark_sees_the_wanted_ends_and_good_checksums() {
    let v6 = |last, port| (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into(), port);
    let cases = [
        (v4(1, 4000), v4(2, 20), v4(3, 30)),
        (v6(1, 4001), v6(2, 20), v6(3, 30)),
    ];
    let mut file = bytes::BytesMut::new();
    pcapng::section(
        &mut file,
        &pcapng::Section {
            hardware: "",
            os: "",
            application: "",
        },
    );
    let lo = pcapng::InterfaceDescription {
        link_type: LinkType::Ethernet,
        snaplen: 0,
        name: "lo",
        description: None,
        filter: None,
    };
    pcapng::interface(&mut file, &lo);
    let mut expected = Vec::new();
    for (peer, from, to) in cases {
        for answer in [false, true] {
            let (source, destination) = if answer { (from, peer) } else { (peer, from) };
            let mut frame = build(LinkType::Ethernet, source, destination, b"GET / HTTP/1.1\r\n\r\n");
            unfinish(&mut frame, LinkType::Ethernet, true);
            assert!(rewrite(&mut frame, LinkType::Ethernet, &Rewrite { from, to }));
            let packet = pcapng::EnhancedPacket {
                interface: 0,
                timestamp_ns: 1,
                original_len: frame.len() as u32,
                data: &frame,
                comment: None,
                direction: None,
                dropped: None,
                packet_id: None,
            };
            pcapng::packet(&mut file, &packet);
            let (source, destination) = if answer { (to, peer) } else { (peer, to) };
            expected.push(vec![
                source.1.to_string(),
                destination.1.to_string(),
                "1".to_owned(), // 1 is good, 0 bad, 2 unverified
            ]);
        }
    }
    let fields = ["tcp.srcport", "tcp.dstport", "tcp.checksum.status"];
    if let Some(rows) = oracle::tshark(&file, &fields) {
        assert_eq!(rows, expected);
        let status = oracle::tshark(&file, &["ip.checksum.status"]).expect("tshark ran before");
        assert_eq!(status, [["1"], ["1"], [""], [""]]);
    }
}
