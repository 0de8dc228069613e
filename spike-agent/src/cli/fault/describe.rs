//! Faults in words that a person reads.

mod packet;

use std::fmt::Display;

use crate::model::{
    Direction, Distribution, Existing, RawEffect, RawEnd, RawFault,
    selector::{RawPort, RawUser},
    view::FaultView,
};

/// A fault in a sentence, with every default filled in.
pub(super) fn sentence(view: &FaultView) -> String {
    let fault = &view.fault;
    let mut text = format!("{}: {}", view.name, effects(fault));
    if fault.everything {
        text += " on all calls of this host";
    } else {
        text += &format!(" from {} to {}", end(&fault.from), end(&fault.to));
    }
    let percent = fault.percent.unwrap_or(100.0);
    text += &format!(
        ", {percent}%, seed {}, for {}",
        view.seed,
        fault.ttl.as_deref().unwrap_or("a while")
    );
    if fault.dry_run {
        text += "; dry run, nothing is done";
    }
    if fault.existing == Existing::Reset {
        text += &format!("; {} open connections closed", view.closed);
    }
    text
}

/// The effects as `latency 200ms response, then corrupt 1% of bytes`.
pub(super) fn effects(fault: &RawFault) -> String {
    let steps = fault.effects.iter().map(|step| {
        let percent = step.percent.map(|percent| format!(" for {percent}%"));
        effect(&step.effect) + &percent.unwrap_or_default()
    });
    let all: Vec<String> = fault.effect.iter().map(effect).chain(steps).collect();
    if all.is_empty() {
        return "none".to_owned();
    }
    all.join(", then ")
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
            distribution,
            direction: way,
        } => {
            let distribution = match distribution {
                None | Some(Distribution::Uniform) => "",
                Some(Distribution::Normal) => " normal",
                Some(Distribution::Pareto) => " pareto",
            };
            format!(
                "latency {delay}{}{distribution}{}",
                spread(jitter),
                direction(*way)
            )
        }
        RawEffect::Reset { after: time } => format!("reset{}", after(time)),
        RawEffect::Timeout {
            after: time,
            direction: way,
        } => format!("timeout{}{}", after(time), direction(*way)),
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
        RawEffect::SlowClose {
            delay,
            direction: way,
        } => format!("slow_close {delay}{}", direction(*way)),
        RawEffect::Slicer {
            size,
            variation,
            delay,
            direction: way,
        } => {
            let variation = variation.as_ref().map(|variation| format!(" ±{variation}"));
            let delay = delay.as_ref().map(|delay| format!(" every {delay}"));
            let [variation, delay] = [variation, delay].map(Option::unwrap_or_default);
            format!("slicer {size}{variation}{delay}{}", direction(*way))
        }
        RawEffect::LimitData {
            bytes,
            direction: way,
        } => format!("limit_data {bytes}{}", direction(*way)),
        RawEffect::Corrupt {
            share,
            direction: way,
        } => {
            format!("corrupt {share}% of bytes{}", direction(*way))
        }
        other => packet::effect(other).unwrap_or_default(),
    }
}

/// Who calls; of a relay what they connect to.
pub(super) fn from(fault: &RawFault) -> String {
    match &fault.relay {
        Some(relay) => format!("listener {}", relay.listen),
        None => end(&fault.from),
    }
}

/// What is called; of a relay where it leads to.
pub(super) fn to(fault: &RawFault) -> String {
    match &fault.relay {
        Some(relay) => relay.upstream.clone(),
        None => end(&fault.to),
    }
}

/// An end of a call as `process=curl,pid=7`, or `any`.
fn end(end: &RawEnd) -> String {
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
            closed: 0,
            note: None,
        };
        let wanted = "slow: latency 200ms ±50ms from process=curl,pid=7 to port=80-90, 100%, seed 7, for 1m";
        assert_eq!(sentence(&view), wanted);
    }
}
