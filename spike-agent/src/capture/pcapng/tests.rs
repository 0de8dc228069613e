//! Two outside readers must agree with what was written: `pcap-parser` on anything, Wireshark's tools on a whole file.

use pcap_parser::Block;
use pcap_parser::pcapng::{OptionCode, PcapNGOption, parse_block_le};
use proptest::prelude::*;

use super::*;
use crate::capture::oracle;

const SECTION: Section<'static> = Section {
    hardware: "x86_64",
    os: "Linux 6.1.0",
    application: "spike 1.2.3",
};

/// Parses the one block in `bytes`, which has to fill them.
fn only_block(bytes: &[u8]) -> Block<'_> {
    assert_eq!(bytes.len() % 4, 0, "a block ends on a 32-bit boundary");
    let (rest, block) = parse_block_le(bytes).expect("a valid block");
    assert!(rest.is_empty(), "{} bytes after the block", rest.len());
    block
}

fn find<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> Option<&'a [u8]> {
    options
        .iter()
        .find(|option| option.code == code)
        .map(|option| option.as_bytes().expect("a valid length"))
}

#[test]
fn section_names_machine_system_and_program() {
    let mut out = BytesMut::new();
    section(&mut out, &SECTION);
    let Block::SectionHeader(block) = only_block(&out) else {
        panic!("not a section header")
    };
    assert!(!block.big_endian());
    assert_eq!(
        (block.major_version, block.minor_version, block.section_len),
        (1, 0, -1)
    );
    assert_eq!(block.shb_hardware().unwrap().unwrap(), "x86_64");
    assert_eq!(block.shb_os().unwrap().unwrap(), "Linux 6.1.0");
    assert_eq!(block.shb_userappl().unwrap().unwrap(), "spike 1.2.3");
}

#[test]
fn interface_counts_in_nanoseconds() {
    let mut out = BytesMut::new();
    interface(
        &mut out,
        &InterfaceDescription {
            link_type: LinkType::Raw,
            snaplen: 96,
            name: "tun0",
            description: Some("a tunnel"),
            filter: Some("port 80"),
        },
    );
    let Block::InterfaceDescription(block) = only_block(&out) else {
        panic!("not an interface")
    };
    assert_eq!((block.linktype.0, block.snaplen), (101, 96));
    assert_eq!(block.ts_resolution(), Some(1_000_000_000));
    assert_eq!(block.if_name().unwrap().unwrap(), "tun0");
    assert_eq!(block.if_description().unwrap().unwrap(), "a tunnel");
    assert_eq!(
        find(&block.options, OptionCode::IfFilter),
        Some(&b"\0port 80"[..])
    );
}

#[test]
fn statistics_carry_times_and_counts() {
    let mut out = BytesMut::new();
    let start_ns = 1_700_000_000_123_456_789_u64;
    statistics(
        &mut out,
        &InterfaceStatistics {
            interface: 2,
            start_ns,
            end_ns: start_ns + 1,
            received: 10,
            dropped: 3,
            accepted: 9,
            delivered: 7,
        },
    );
    let Block::InterfaceStatistics(block) = only_block(&out) else {
        panic!("not statistics")
    };
    let ns = |(high, low): (u32, u32)| u64::from(high) << 32 | u64::from(low);
    assert_eq!(block.if_id, 2);
    assert_eq!(ns(block.isb_starttime().unwrap().unwrap()), start_ns);
    assert_eq!(ns(block.isb_endtime().unwrap().unwrap()), start_ns + 1);
    assert_eq!(block.isb_ifrecv().unwrap().unwrap(), 10);
    assert_eq!(block.isb_ifdrop().unwrap().unwrap(), 3);
    assert_eq!(block.isb_filteraccept().unwrap().unwrap(), 9);
    assert_eq!(block.isb_usrdeliv().unwrap().unwrap(), 7);
}

#[test]
fn comment_too_long_for_an_option_is_cut_between_characters() {
    let comment = "é".repeat(40_000); // 80,000 bytes
    let mut out = BytesMut::new();
    packet(
        &mut out,
        &EnhancedPacket {
            interface: 0,
            timestamp_ns: 0,
            original_len: 0,
            data: &[],
            comment: Some(&comment),
            direction: None,
            dropped: None,
            packet_id: None,
        },
    );
    let Block::EnhancedPacket(block) = only_block(&out) else {
        panic!("not a packet")
    };
    let written = str::from_utf8(find(&block.options, OptionCode::Comment).unwrap()).unwrap();
    assert_eq!(written, &comment[..65_534]);
}

proptest! {
    #[test]
    fn any_packet_comes_back(
        interface in any::<u32>(),
        timestamp_ns in any::<u64>(),
        data in prop::collection::vec(any::<u8>(), 0..600),
        more in 0_u32..100_000,
        comment in prop::option::of(any::<String>()),
        outbound in prop::option::of(any::<bool>()),
        dropped in prop::option::of(any::<u64>()),
        packet_id in prop::option::of(any::<u64>()),
        before in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        // The buffer may hold something already, of any length.
        let mut out = BytesMut::from(&before[..]);
        let original_len = data.len() as u32 + more;
        let direction = outbound.map(|out| if out { Direction::Out } else { Direction::In });
        packet(&mut out, &EnhancedPacket {
            interface, timestamp_ns, original_len, data: &data, comment: comment.as_deref(), direction, dropped, packet_id,
        });
        prop_assert_eq!(&out[..before.len()], &before[..]);
        let Block::EnhancedPacket(block) = only_block(&out[before.len()..]) else { panic!("not a packet") };
        prop_assert_eq!(block.if_id, interface);
        prop_assert_eq!(u64::from(block.ts_high) << 32 | u64::from(block.ts_low), timestamp_ns);
        prop_assert_eq!((block.caplen, block.origlen), (data.len() as u32, original_len));
        prop_assert_eq!(&block.data[..data.len()], &data[..]);
        prop_assert_eq!(find(&block.options, OptionCode::Comment), comment.as_deref().map(str::as_bytes));
        let flags = direction.map(|direction| match direction { Direction::In => [1, 0, 0, 0], Direction::Out => [2, 0, 0, 0] });
        prop_assert_eq!(find(&block.options, OptionCode(2)), flags.as_ref().map(|flags| &flags[..]));
        let dropped = dropped.map(u64::to_le_bytes);
        prop_assert_eq!(find(&block.options, OptionCode(4)), dropped.as_ref().map(|count| &count[..]));
        let packet_id = packet_id.map(u64::to_le_bytes);
        prop_assert_eq!(find(&block.options, OptionCode(5)), packet_id.as_ref().map(|id| &id[..]));
    }
}

#[test]
fn wireshark_reads_a_whole_file_without_a_warning() {
    let lo = InterfaceDescription {
        link_type: LinkType::Ethernet,
        snaplen: 0,
        name: "lo",
        description: None,
        filter: None,
    };
    let tun = InterfaceDescription {
        link_type: LinkType::Raw,
        snaplen: 262_144,
        name: "tun0@blue",
        description: Some("a tunnel"),
        filter: Some("port 80"),
    };
    let udp = etherparse::PacketBuilder::ethernet2([0; 6], [0; 6])
        .ipv4([127, 0, 0, 1], [127, 0, 0, 2], 64)
        .udp(1, 2);
    let mut framed = Vec::new();
    udp.write(&mut framed, b"odd").unwrap();
    let start_ns = 1_700_000_000_123_456_789_u64;
    let comments = ["curl[1] -> nginx[22]", "a", "é€ naïve", "worker: 4/5[77] ->"];

    let mut out = BytesMut::new();
    section(&mut out, &SECTION);
    interface(&mut out, &lo);
    interface(&mut out, &tun);
    for (index, comment) in (0_u32..).zip(comments) {
        let on_tun = index % 2;
        packet(
            &mut out,
            &EnhancedPacket {
                interface: on_tun,
                timestamp_ns: start_ns + u64::from(index),
                original_len: framed.len() as u32,
                data: if on_tun == 1 { &framed[14..] } else { &framed },
                comment: Some(comment),
                direction: Some(if on_tun == 1 {
                    Direction::Out
                } else {
                    Direction::In
                }),
                dropped: Some(u64::from(index)),
                packet_id: Some(u64::from(index) + 100),
            },
        );
    }
    for interface in 0..2 {
        statistics(
            &mut out,
            &InterfaceStatistics {
                interface,
                start_ns,
                end_ns: start_ns + 10,
                received: 3,
                dropped: 1,
                accepted: 3,
                delivered: 2,
            },
        );
    }

    let Some(rows) = oracle::tshark(
        &out,
        &[
            "frame.interface_name",
            "frame.time_epoch",
            "frame.comment",
            "frame.packet_id",
            "frame.p2p_dir",
            "ip.src",
        ],
    ) else {
        return;
    };
    let names = ["lo", "tun0@blue"];
    let expected: Vec<Vec<String>> = (0..4)
        .map(|index| {
            vec![
                names[index % 2].to_owned(),
                format!("1700000000.{}", 123_456_789 + index),
                comments[index].to_owned(),
                (index + 100).to_string(),
                if index % 2 == 1 { "0" } else { "1" }.to_owned(),
                "127.0.0.1".to_owned(),
            ]
        })
        .collect();
    assert_eq!(rows, expected);
    let info = oracle::capinfos(&out).expect("capinfos comes with tshark");
    for line in [
        "Number of packets:   4",
        "Capture oper-sys:    Linux 6.1.0",
        "Number of stat entries = 1",
    ] {
        assert!(info.contains(line), "{line:?} is not in\n{info}");
    }
}
