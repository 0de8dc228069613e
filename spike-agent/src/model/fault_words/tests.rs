//! Checks that words, JSON and the checked fault say the same.

use proptest::prelude::*;

use super::*;
use crate::model::{Effect, Fault, selector::RawPort};

fn raw(words: &str) -> RawFault {
    FaultWords::parse_str(words).unwrap().to_raw().unwrap()
}

#[test]
fn the_example_of_the_manual_is_read() {
    let raw = raw(
        "latency --delay 200ms --jitter 50ms --from process=curl --to port=8080 --percent 50 --ttl 10m --name slow",
    );
    let json = serde_json::json!({
        "name": "slow", "from": {"process": "curl"}, "to": {"port": 8080},
        "effect": {"type": "latency", "delay": "200ms", "jitter": "50ms"}, "percent": 50.0, "ttl": "10m"
    });
    assert_eq!(serde_json::to_value(&raw).unwrap(), json);
    assert!(Fault::try_from(&raw).is_ok());
}

#[test]
fn every_effect_has_its_words() {
    for (words, kind) in [
        ("latency --delay 1s --direction both", "latency"),
        ("reset", "reset"),
        ("reset --after 1s", "reset"),
        ("timeout --after 1s", "timeout"),
        ("refuse", "refuse"),
        ("bandwidth --rate 1mbit --direction request", "bandwidth"),
        ("unreachable", "unreachable"),
        ("connect_timeout --after 5s", "connect_timeout"),
        ("connect-delay --delay 1s --jitter 10ms", "connect_delay"),
        ("udp_delay --delay 1s", "udp_delay"),
        ("udp_drop --direction both", "udp_drop"),
        ("udp_duplicate", "udp_duplicate"),
        ("loss --percent-loss 0.1 -i eth0", "loss"),
        ("loss --gemodel 1,25,100,0.1 -i eth0", "loss"),
        (
            "duplicate --percent-duplicate 1 --direction response",
            "duplicate",
        ),
        (
            "packet-corrupt --percent-corrupt 1 --checksum fixed",
            "packet_corrupt",
        ),
        ("partition --interface eth0@blue", "partition"),
        ("delay --delay 1s --jitter 1ms", "delay"),
        ("jitter --jitter 1ms", "jitter"),
        ("reorder --percent-reorder 5 --delay 1ms", "reorder"),
        ("rate --rate 1mbit", "rate"),
        (
            "latency --delay 1s --jitter 10ms --distribution normal",
            "latency",
        ),
        ("timeout --direction request", "timeout"),
        ("slow_close --delay 1s", "slow_close"),
        ("slow-close --delay 1s", "slow_close"),
        ("slicer --size 64B --variation 10B --delay 1ms", "slicer"),
        ("limit_data --bytes 10KiB", "limit_data"),
        ("corrupt --share 0.5", "corrupt"),
    ] {
        let fault = Fault::try_from(&raw(&format!("{words} --everything"))).unwrap();
        assert_eq!(fault.kind(), kind);
    }
}

#[test]
fn effects_are_chained_by_then() {
    let raw = raw(
        "latency --delay 1s --percent 50 --then 'slicer --size 8B --percent 10' --then 'reset --after 3s' --to port=1 \
         --existing reset --dry-run --abort-when errors=20,p99=2s,window=3s,calls=7",
    );
    let json = serde_json::json!({
        "to": {"port": 1}, "percent": 50.0, "existing": "reset", "dry_run": true,
        "effects": [
            {"type": "latency", "delay": "1s"},
            {"type": "slicer", "size": "8B", "percent": 10.0},
            {"type": "reset", "after": "3s"},
        ],
        "abort_when": {"errors": 20.0, "p99": "2s", "window": "3s", "calls": 7}
    });
    assert_eq!(serde_json::to_value(&raw).unwrap(), json);
    assert!(Fault::try_from(&raw).is_ok());
    for words in [
        "reset --everything --then 'latency --delay 1s --to port=1'",
        "reset --everything --then 'latency --delay 1s --then reset'",
        "reset --everything --then slowness",
        "reset --everything --then ''",
    ] {
        assert_eq!(
            FaultWords::parse_str(words).unwrap().to_raw().unwrap_err().field,
            "then",
            "{words}"
        );
    }
}

#[test]
fn ends_may_be_said_at_once_or_one_by_one() {
    let at_once = raw("refuse --from process={curl,wget},pid=7 --to cidr=10.0.0.0/8,port=80-90");
    let one_by_one =
        raw("refuse --from 'process={curl,wget}' --from pid=7 --to cidr=10.0.0.0/8 --to port=80-90");
    assert_eq!(at_once, one_by_one);
    assert_eq!(at_once.from.process.as_deref(), Some("{curl,wget}"));
    assert_eq!(at_once.to.port, Some(RawPort::Text("80-90".to_owned())));
}

#[test]
fn wrong_words_are_told() {
    for (words, wanted) in [
        ("latency", "--delay"),
        ("slowness --delay 1s", "slowness"),
        ("latency --delay 1s --dely 2s", "--dely"),
        ("refuse --seed x", "--seed"),
        ("refuse 'x", "quote"),
        ("", "Usage"),
    ] {
        let error = FaultWords::parse_str(words).unwrap_err().to_string();
        assert!(error.contains(wanted), "{words}: {error}");
    }
    for (words, field) in [
        ("refuse --from curl", "from"),
        ("refuse --from name=curl", "from.name"),
        ("refuse --from pid=x", "from.pid"),
        ("refuse --to port=1,port=2", "to.port"),
        ("reset --everything --abort-when errors", "abort_when"),
        ("reset --everything --abort-when errrs=1", "abort_when.errrs"),
        ("reset --everything --abort-when calls=-1", "abort_when.calls"),
    ] {
        assert_eq!(
            FaultWords::parse_str(words).unwrap().to_raw().unwrap_err().field,
            field
        );
    }
}

prop_compose! {
    fn latency_words()(
        delay in 1..=3_600_000_u64,
        share in 0..=100_u64,
        direction in prop::sample::select(vec!["request", "response", "both"]),
        percent in 1..=1000_u32,
        seed: u64,
        port in 1..=u16::MAX,
        ttl in 1..=86_400_u64,
    ) -> String {
        format!(
            "latency --delay {delay}ms --jitter {}ms --direction {direction} --percent {} --seed {seed} \
             --to port={port} --ttl {ttl}s",
            delay * share / 100,
            f64::from(percent) / 10.0,
        )
    }
}

proptest! {
    #[test]
    fn words_json_and_fault_say_the_same(words in latency_words()) {
        let raw = raw(&words);
        let sent = serde_json::to_vec(&raw).unwrap();
        prop_assert_eq!(&crate::model::json::parse::<RawFault>(&sent).unwrap(), &raw);
        let fault = Fault::try_from(&raw).unwrap();
        let is_latency = matches!(fault.effects[0].effect, Effect::Latency { .. });
        prop_assert!(is_latency);
        prop_assert_eq!(Fault::try_from(&RawFault::from(&fault)).unwrap(), fault);
    }

    #[test]
    fn no_words_make_the_parser_panic(words in "(latency|refuse|reset)? ?(--[a-z]{2,9}[= ]?)?\\PC{0,20}") {
        if let Ok(words) = FaultWords::parse_str(&words) {
            let _ = words.to_raw().map(|raw| Fault::try_from(&raw));
        }
    }
}
