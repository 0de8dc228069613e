//! OpenSSL's s_server, s_client and curl, as recorded, and what they don't do.

use proptest::{collection::vec, prelude::*};

use super::hello::{Message, alert};
use crate::protocol::{
    Call, Conversation, End, Losses, ProtocolName, Side,
    tests::sample::{play, play_with_gaps, told},
};

const ALL: [&str; 6] = [
    include_str!("../samples/tls-13.txt"),
    include_str!("../samples/tls-13-retry.txt"),
    include_str!("../samples/tls-12.txt"),
    include_str!("../samples/tls-12-resumed.txt"),
    include_str!("../samples/tls-no-cipher.txt"),
    include_str!("../samples/tls-unknown-ca.txt"),
];

/// The one call of a sample.
fn handshake(sample: &str) -> Call {
    let (mut calls, losses) = play(sample, 443);
    assert_eq!(losses, Losses::default());
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].protocol, &*calls[0].target),
        (ProtocolName::Tls, "shop.example")
    );
    calls.remove(0)
}

#[test]
fn a_handshake_of_tls_13() {
    let call = handshake(ALL[0]);
    assert_eq!(
        (call.status.as_deref(), call.failed, call.complete),
        (Some("TLSv1.3"), false, true)
    );
    let times = (call.started_ns, call.sent_ns, call.first_byte_ns, call.ended_ns);
    assert_eq!(times, (145, Some(145), Some(9999), 9999));
    let details: Vec<_> = call.details.iter().collect();
    let expected = [
        ("sni", "shop.example"),
        ("alpn_offered", "h2,http/1.1"),
        ("version", "TLSv1.3"),
    ];
    assert_eq!(details, expected);
    let retried = handshake(ALL[1]);
    assert_eq!(
        (retried.status.as_deref(), retried.complete),
        (Some("TLSv1.3"), true)
    );
    assert!(retried.first_byte_ns < Some(retried.ended_ns));
}

#[test]
fn a_handshake_of_tls_12_shows_its_certificate() {
    let call = handshake(ALL[2]);
    assert_eq!(
        (call.status.as_deref(), call.failed, call.complete),
        (Some("TLSv1.2"), false, true)
    );
    assert_eq!(call.details.get("alpn"), Some("http/1.1"));
    assert_eq!(call.details.get("not_after"), Some("2027-02-22T04:43:37Z"));
    assert_eq!((call.first_byte_ns, call.ended_ns), (Some(2202), 4725));
    let resumed = handshake(ALL[3]);
    assert_eq!(
        (resumed.status.as_deref(), resumed.details.get("not_after")),
        (Some("TLSv1.2"), None)
    );
    assert_eq!((resumed.first_byte_ns, resumed.ended_ns), (Some(351), 351));
}

#[test]
fn a_fatal_alert_of_either_side_fails_it() {
    for (sample, status) in [(ALL[4], "handshake_failure"), (ALL[5], "unknown_ca")] {
        let call = handshake(sample);
        assert_eq!(
            (call.status.as_deref(), call.failed, call.complete),
            (Some(status), true, false)
        );
    }
    assert_eq!(
        [alert(0), alert(112), alert(200)],
        ["close_notify", "unrecognized_name", "alert 200"]
    );
}

#[test]
fn gaps_leave_a_handshake_untold_or_right() {
    for sample in ALL {
        play_with_gaps(sample, 443);
    }
}

#[test]
fn what_follows_is_not_looked_at_but_named() {
    let (mut conversation, mut calls) = (Conversation::new(443), Vec::new());
    for side in [Side::Client, Side::Server] {
        conversation.missing(side, 0, None, &mut calls);
    }
    conversation.data(Side::Server, 1, b"\x17\x03\x03\x40\x00data", &mut calls);
    conversation.missing(Side::Server, 2, Some(1 << 40), &mut calls);
    conversation.data(Side::Client, 3, &[0; 5000], &mut calls);
    assert_eq!(conversation.protocol(), Some(ProtocolName::Tls));
    conversation.end(9, End::Closed, &mut calls);
    assert_eq!(told(&calls), []);
}

proptest! {
    #[test]
    fn any_message_is_survived(kind in prop_oneof![Just(1_u8), Just(2), Just(11)], body in vec(any::<u8>(), 0..300)) {
        Message::read(kind, &body);
    }

    #[test]
    fn messages_with_wrong_bytes_are_survived(at in 0..600_usize, byte: u8, sample in 0..ALL.len()) {
        let (mut conversation, mut calls) = (Conversation::new(443), Vec::new());
        for line in ALL[sample].lines() {
            let words: Vec<_> = line.split(' ').collect();
            let side = if words[0] == "C" { Side::Client } else { Side::Server };
            let hex = words.get(2).unwrap_or(&"").as_bytes();
            let digit = |d: u8| char::from(d).to_digit(16).unwrap() as u8;
            let mut bytes: Vec<_> = hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            conversation.data(side, 1, &bytes, &mut calls);
        }
        prop_assert!(calls.len() <= 1);
    }
}
