//! Calls are found in files of either format, whole or cut.

use bytes::BytesMut;
use etherparse::PacketBuilder;

use super::*;
use crate::capture::pcap::Pcap;
use crate::capture::pcapng::{self, EnhancedPacket, InterfaceDescription, Section};
use crate::capture::record::LinkType;

const ASK: &[u8] = b"GET /users/17 HTTP/1.1\r\nhost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";

/// One HTTP call over Ethernet, with its handshake; `answer` may be missing.
fn file(answer: Option<&[u8]>) -> BytesMut {
    let mut out = BytesMut::new();
    let about = Section {
        hardware: "x",
        os: "y",
        application: "z",
    };
    pcapng::section(&mut out, &about);
    let interface = InterfaceDescription {
        link_type: LinkType::Ethernet,
        snaplen: 0,
        name: "lo",
        description: None,
        filter: None,
    };
    pcapng::interface(&mut out, &interface);
    let (client, server) = (([10, 0, 0, 1], 40_000), ([10, 0, 0, 2], 80));
    let build = |from: ([u8; 4], u16), to: ([u8; 4], u16), sequence| {
        PacketBuilder::ethernet2([0; 6], [1; 6])
            .ipv4(from.0, to.0, 64)
            .tcp(from.1, to.1, sequence, 5000)
    };
    let mut frames = Vec::new();
    let mut add = |builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, bytes: &[u8]| {
        let mut frame = Vec::new();
        builder.write(&mut frame, bytes).unwrap();
        frames.push(frame);
    };
    add(build(client, server, 99).syn(), b"");
    add(build(server, client, 499).syn().ack(100), b"");
    add(build(client, server, 100).ack(500), ASK);
    if let Some(answer) = answer {
        add(build(server, client, 500).ack(100 + ASK.len() as u32), answer);
    }
    for (frame, index) in frames.iter().zip(0..) {
        let packet = EnhancedPacket {
            interface: 0,
            timestamp_ns: 1_700_000_000_000_000_000 + index * 1_000_000,
            original_len: frame.len() as u32,
            data: frame,
            comment: (index % 2 == 0).then_some("curl[7] -> nginx[8] service=web"),
            direction: None,
            dropped: None,
            packet_id: None,
        };
        pcapng::packet(&mut out, &packet);
    }
    out
}

fn calls(file: &[u8]) -> (Vec<CallView>, Totals) {
    let mut calls = Vec::new();
    let totals = read(std::io::Cursor::new(file.to_vec()), |call| calls.push(call)).unwrap();
    (calls, totals)
}

#[test]
fn a_call_is_read_from_either_format() {
    let pcapng = file(Some(ANSWER));
    let pcap = Pcap::default().convert(&pcapng).unwrap();
    for (file, names) in [(pcapng, ["curl", "web:80"]), (pcap, ["10.0.0.1", "10.0.0.2:80"])] {
        let (calls, totals) = calls(&file);
        assert_eq!((totals.packets, totals.flows, totals.calls), (4, 1, 1));
        assert!(!totals.is_cut);
        let call = &calls[0];
        assert_eq!([&*call.caller, &*call.callee], names);
        assert_eq!((&*call.operation, &*call.protocol), ("GET", "http"));
        assert_eq!((call.status.as_deref(), call.failed), (Some("503"), true));
        assert_eq!(call.first_byte_us, Some(1000));
    }
}

#[test]
fn a_call_without_an_answer_is_told_at_the_end() {
    let (calls, _) = calls(&file(None));
    assert_eq!(calls.len(), 1);
    assert!(!calls[0].complete && calls[0].first_byte_us.is_none());
}

#[test]
fn a_file_that_is_cut_anywhere_is_read_up_to_there() {
    let whole = file(Some(ANSWER));
    for length in 28..whole.len() {
        let mut calls = 0;
        let cut = std::io::Cursor::new(whole[..length].to_vec());
        if let Ok(totals) = read(cut, |_| calls += 1) {
            assert!(totals.packets <= 4);
        }
    }
}

#[test]
fn anything_else_is_refused() {
    let other = std::io::Cursor::new(b"#!/bin/sh\necho this is no capture at all\n".to_vec());
    assert!(matches!(read(other, |_| ()), Err(ShowError::NoCapture)));
}
