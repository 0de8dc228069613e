//! Turns a packet fault into the form of the packet hooks. They decide alone, so what they cannot tell is refused.

use std::time::Duration;

use ipnet::IpNet;
use spike_common::{
    address::Address,
    chance::{ALWAYS, threshold},
    packet_fault::{
        CGROUP, CORRUPT, DROP, DUPLICATE, EXECUTABLE, FIX_CHECKSUM, HOLD, LEAVING, NETWORK, PORT,
        PacketFault, RATE, REQUEST, RESPONSE, TGID,
    },
    task::{EXECUTABLE_LEN, executable_hash, padded},
};

use super::{
    Direction, EndSelector, Fault, FieldError, PacketEffect, Selector,
    packet_effect::{Checksum, PacketKind},
};

/// A packet fault for the kernel. `knows_executables`: the hooks know the names of executables on this kernel.
///
/// # Errors
/// Names the key that the packet hooks cannot tell.
pub fn compile(
    fault: &Fault,
    effect: &PacketEffect,
    deadline_ns: u64,
    knows_executables: bool,
) -> Result<PacketFault, FieldError> {
    let mut compiled = PacketFault {
        seed: fault.seed,
        deadline_ns,
        flows_below: threshold(fault.percent),
        ways: match effect.direction {
            Direction::Request => REQUEST,
            Direction::Response => RESPONSE,
            Direction::Both => REQUEST | RESPONSE,
        },
        flags: if effect.waits() { LEAVING } else { 0 },
        ..PacketFault::default()
    };
    select(&mut compiled, &fault.selector, knows_executables)?;
    act(&mut compiled, &effect.kind);
    Ok(compiled)
}

fn select(
    compiled: &mut PacketFault,
    selector: &Selector,
    knows_executables: bool,
) -> Result<(), FieldError> {
    // Taken apart whole: a key that is new must be decided on here, for leaving it out would widen faults.
    refuse_what_packets_do_not_tell(selector)?;
    let EndSelector {
        process, pid, cgroup, ..
    } = &selector.from;
    let EndSelector { cidr, port, .. } = &selector.to;
    if let Some(pid) = pid {
        compiled.keys |= TGID;
        compiled.tgid = *pid;
    }
    if let Some(pattern) = process {
        let name = pattern.exact_name().and_then(padded);
        // One that fills the field may be a longer name that was cut.
        let Some(name) = name.filter(|name| name[EXECUTABLE_LEN - 2] == 0) else {
            let message = "packets are chosen in the kernel, by a process's plain name of at most 30 bytes: write no path and no pattern";
            return Err(FieldError::new("from.process", message));
        };
        if !knows_executables {
            let message =
                "this kernel does not tell executables to the packet hooks: choose by `pid` or `cgroup`";
            return Err(FieldError::new("from.process", message));
        }
        compiled.keys |= EXECUTABLE;
        compiled.executable = executable_hash(&name);
    }
    if cgroup.as_deref().is_some_and(|path| path != "/") {
        compiled.keys |= CGROUP;
    }
    if let Some(range) = port {
        compiled.keys |= PORT;
        (compiled.port_first, compiled.port_last) = (range.first, range.last);
    }
    if let Some(network) = cidr {
        let bits = match network {
            IpNet::V4(v4) => 96 + u32::from(v4.prefix_len()),
            IpNet::V6(v6) => u32::from(v6.prefix_len()),
        };
        if bits == 0 {
            // All of IPv4 lies within it in the form that addresses have there.
            let message = "`::/0` cannot be told from IPv4: leave it out to mean every address";
            return Err(FieldError::new("to.cidr", message));
        }
        compiled.keys |= NETWORK;
        compiled.mask = Address::from_bytes([0xff; 16]).masked(bits);
        compiled.network = Address::from(network.addr()).masked(bits);
    }
    Ok(())
}

/// A packet tells its addresses, and the hooks whose socket it belongs to; more would need the agent.
fn refuse_what_packets_do_not_tell(selector: &Selector) -> Result<(), FieldError> {
    let EndSelector {
        service,
        process: from_process,
        pid,
        cgroup,
        container,
        unit,
        user,
        host,
        cidr,
        port,
        netns,
    } = &selector.from;
    _ = (from_process, pid, cgroup);
    let of_caller = [
        ("service", service.is_some()),
        ("container", container.is_some()),
        ("unit", unit.is_some()),
        ("user", user.is_some()),
        ("host", host.is_some()),
        ("cidr", cidr.is_some()),
        ("port", port.is_some()),
        ("netns", netns.is_some()),
    ];
    let to = &selector.to;
    let of_called = [("host", to.host.is_some()), ("process", to.names_process())];
    let message = "packets are chosen by from.process, from.pid, from.cgroup, to.cidr and to.port alone";
    for (end, keys) in [("from", &of_caller[..]), ("to", &of_called[..])] {
        if let Some((key, _)) = keys.iter().find(|(_, is_set)| *is_set) {
            return Err(FieldError::new(*key, message).within(end));
        }
    }
    Ok(())
}

fn act(compiled: &mut PacketFault, kind: &PacketKind) {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    compiled.good_below = ALWAYS;
    match *kind {
        PacketKind::Loss(percent) => {
            compiled.kind = DROP;
            compiled.good_below = threshold(percent);
        }
        PacketKind::BurstLoss(model) => {
            compiled.kind = DROP;
            compiled.good_below = threshold(model.good_loss);
            compiled.bad_below = threshold(model.bad_loss);
            compiled.to_bad_below = threshold(model.p);
            compiled.to_good_below = threshold(model.r);
        }
        PacketKind::Duplicate(percent) => {
            compiled.kind = DUPLICATE;
            compiled.good_below = threshold(percent);
        }
        PacketKind::Corrupt {
            percent,
            bits,
            checksum,
        } => {
            compiled.kind = CORRUPT;
            compiled.good_below = threshold(percent);
            compiled.bits = bits;
            if checksum == Checksum::Fixed {
                compiled.flags |= FIX_CHECKSUM;
            }
        }
        PacketKind::Partition => compiled.kind = DROP,
        PacketKind::Delay { delay, jitter } => {
            compiled.kind = HOLD;
            compiled.delay_ns = nanoseconds(delay);
            compiled.jitter_ns = nanoseconds(jitter);
        }
        PacketKind::Jitter(jitter) => {
            compiled.kind = HOLD;
            compiled.delay_ns = nanoseconds(jitter) / 2;
            compiled.jitter_ns = nanoseconds(jitter) / 2;
        }
        PacketKind::Reorder { percent, delay } => {
            compiled.kind = HOLD;
            compiled.good_below = threshold(percent);
            compiled.delay_ns = nanoseconds(delay);
        }
        PacketKind::Rate(rate) => {
            compiled.kind = RATE;
            compiled.rate = rate.bytes_per_second();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use spike_common::{address::Endpoint, packet_fault::Seen};

    use super::*;
    use crate::model::RawFault;

    fn compiled(body: &str) -> Result<PacketFault, FieldError> {
        let fault = Fault::try_from(&serde_json::from_str::<RawFault>(body).unwrap()).unwrap();
        let effect = fault.packet().unwrap();
        compile(&fault, effect, 9, true)
    }

    fn to(address: &str) -> Seen {
        Seen {
            ways: REQUEST | RESPONSE,
            leaves: true,
            request_to: Endpoint::from(address.parse::<SocketAddr>().unwrap()),
            ..Seen::default()
        }
    }

    #[test]
    fn networks_choose_what_they_hold() {
        for (cidr, inside, outside) in [
            ("10.1.0.0/16", "10.1.2.3:1", "10.2.2.3:1"),
            ("10.1.2.3", "10.1.2.3:1", "10.1.2.4:1"),
            ("0.0.0.0/0", "10.1.2.3:1", "[fd00::1]:1"),
            ("fd00::/9", "[fd7f::1]:1", "[fd80::1]:1"),
            ("::1", "[::1]:1", "[::2]:1"),
        ] {
            let fault = compiled(&format!(
                r#"{{"to":{{"cidr":"{cidr}"}},"effect":{{"type":"partition"}}}}"#
            ))
            .unwrap();
            assert_eq!(fault.takes(&to(inside)), REQUEST, "{cidr}");
            assert_eq!(fault.takes(&to(outside)), 0, "{cidr}");
        }
    }

    #[test]
    fn what_the_kernel_cannot_tell_is_refused() {
        for (ends, field) in [
            (r#""from":{"process":"cur*"}"#, "from.process"),
            (r#""from":{"process":"/usr/bin/curl"}"#, "from.process"),
            (
                r#""from":{"process":"a-name-of-thirty-one-characters"}"#,
                "from.process",
            ),
            (r#""to":{"cidr":"::/0"}"#, "to.cidr"),
        ] {
            let body = format!(r#"{{{ends},"effect":{{"type":"partition"}}}}"#);
            assert_eq!(compiled(&body).unwrap_err().field, field, "{body}");
        }
    }

    #[test]
    fn effects_keep_their_numbers() {
        let of = |effect: &str| compiled(&format!(r#"{{"everything":true,"effect":{effect}}}"#)).unwrap();
        let fault = of(r#"{"type":"loss","gilbert_elliott":{"p":50,"r":25,"good_loss":0}}"#);
        assert_eq!(
            (fault.kind, fault.good_below, fault.bad_below, fault.to_bad_below),
            (DROP, 0, ALWAYS, ALWAYS / 2)
        );
        let fault = of(r#"{"type":"jitter","jitter":"10ms"}"#);
        assert_eq!(
            (fault.delay_ns, fault.jitter_ns, fault.flags),
            (5_000_000, 5_000_000, LEAVING)
        );
        let fault = of(r#"{"type":"rate","rate":"8kbit"}"#);
        assert_eq!((fault.kind, fault.rate, fault.good_below), (RATE, 1000, ALWAYS));
        let fault = of(r#"{"type":"partition","direction":"response"}"#);
        assert_eq!((fault.kind, fault.ways), (DROP, RESPONSE));
        assert_eq!((fault.deadline_ns, fault.flows_below, fault.keys), (9, ALWAYS, 0));
    }
}
