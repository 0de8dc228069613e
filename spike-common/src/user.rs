//! Lets aya move the shared types between maps and the agent.

use crate::{address, config, edge, event, held, name, packet, rule, sample, socket, task};

macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)`, integers only, no implicit padding (the layout assertions count every byte).
            unsafe impl aya::Pod for $type {}
        )*
    };
}

pod!(
    address::Address,
    address::Endpoint,
    config::Config,
    config::DatagramPorts,
    config::Listener,
    edge::Edge,
    edge::EdgeStats,
    event::NamespaceWanted,
    held::HeldSyn,
    name::NameKey,
    packet::PacketHeader,
    rule::KernelFault,
    rule::RuleKey,
    rule::RuleValue,
    sample::SampleHeader,
    socket::Flow,
    socket::FlowKey,
    socket::Binder,
    socket::ServiceKey,
    socket::Socket,
    task::Task,
);
