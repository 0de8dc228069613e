//! Faults in words that a person reads.

mod packet;

use std::fmt::Display;

use crate::model::{
    Direction, RawEffect, RawEnd,
    selector::{RawPort, RawUser},
    view::FaultView,
};

/// A fault in a sentence, with every default filled in.
pub(super) fn sentence(view: &FaultView) -> String {
    let fault = &view.fault;
    let mut text = format!("{}: {}", view.name, effect(&fault.effect));
    if fault.everything {
        text += " on all calls of this host";
    } else {
        text += &format!(" from {} to {}", end(&fault.from), end(&fault.to));
    }
    let percent = fault.percent.unwrap_or(100.0);
    text + &format!(
        ", {percent}%, seed {}, for {}",
        view.seed,
        fault.ttl.as_deref().unwrap_or("a while")
    )
}

/// An effect as `latency 200ms ±50ms response`.
pub(super) fn effect(effect: &RawEffect) -> String {
    let direction = |direction: Option<Direction>| match direction {
        Some(Direction::Request) => " request",
        Some(Direction::Response) => " response",
        Some(Direction::Both) => " both ways",
        None => "",
    };
    let after = |after: &Option<String>| {
        after
            .as_ref()
            .map(|after| format!(" after {after}"))
            .unwrap_or_default()
    };
    let spread = |jitter: &Option<String>| {
        jitter
            .as_ref()
            .map(|jitter| format!(" ±{jitter}"))
            .unwrap_or_default()
    };
    match effect {
        RawEffect::Latency {
            delay,
            jitter,
            direction: way,
        } => format!("latency {delay}{}{}", spread(jitter), direction(*way)),
        RawEffect::Reset { after: time } => format!("reset{}", after(time)),
        RawEffect::Timeout { after: time } => format!("timeout{}", after(time)),
        RawEffect::Refuse {} => "refuse".to_owned(),
        RawEffect::Bandwidth { rate, direction: way } => format!("bandwidth {rate}{}", direction(*way)),
        RawEffect::Unreachable {} => "unreachable".to_owned(),
        RawEffect::ConnectTimeout { after: time } => format!("connect_timeout{}", after(time)),
        RawEffect::ConnectDelay { delay, jitter } => format!("connect_delay {delay}{}", spread(jitter)),
        RawEffect::UdpDelay {
            delay,
            jitter,
            direction: way,
        } => format!("udp_delay {delay}{}{}", spread(jitter), direction(*way)),
        RawEffect::UdpDrop { direction: way } => format!("udp_drop{}", direction(*way)),
        RawEffect::UdpDuplicate { direction: way } => format!("udp_duplicate{}", direction(*way)),
        other => packet::effect(other).unwrap_or_default(),
    }
}

/// An end of a call as `process=curl,pid=7`, or `any`.
pub(super) fn end(end: &RawEnd) -> String {
    let pair = |key: &str, value: Option<&dyn Display>| value.map(|value| format!("{key}={value}"));
    let port = end.port.as_ref().map(|port| match port {
        RawPort::Number(number) => number.to_string(),
        RawPort::Text(text) => text.clone(),
    });
    let user = end.user.as_ref().map(|user| match user {
        RawUser::Id(id) => id.to_string(),
        RawUser::Name(name) => name.clone(),
    });
    let pairs = [
        pair("service", end.service.as_ref().map(|value| value as _)),
        pair("process", end.process.as_ref().map(|value| value as _)),
        pair("pid", end.pid.as_ref().map(|value| value as _)),
        pair("cgroup", end.cgroup.as_ref().map(|value| value as _)),
        pair("container", end.container.as_ref().map(|value| value as _)),
        pair("unit", end.unit.as_ref().map(|value| value as _)),
        pair("user", user.as_ref().map(|value| value as _)),
        pair("host", end.host.as_ref().map(|value| value as _)),
        pair("cidr", end.cidr.as_ref().map(|value| value as _)),
        pair("port", port.as_ref().map(|value| value as _)),
        pair("netns", end.netns.as_ref().map(|value| value as _)),
    ];
    let said: Vec<String> = pairs.into_iter().flatten().collect();
    if said.is_empty() {
        "any".to_owned()
    } else {
        said.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fault_words::FaultWords;

    #[test]
    fn a_fault_reads_like_its_words() {
        let words =
            "latency --delay 200ms --jitter 50ms --from process=curl,pid=7 --to port=80-90 --seed 7 --ttl 1m";
        let fault = FaultWords::parse_str(words).unwrap().to_raw().unwrap();
        let view = FaultView {
            name: "slow".to_owned(),
            fault,
            seed: 7,
            expires_in_ms: 1,
            matched: 0,
            affected: 0,
            escaped: 0,
            active: 0,
            note: None,
        };
        let wanted = "slow: latency 200ms ±50ms from process=curl,pid=7 to port=80-90, 100%, seed 7, for 1m";
        assert_eq!(sentence(&view), wanted);
    }
}
