//! Lets aya move the shared types between maps and the agent.

use crate::{address, config, edge, event, held, name, packet, packet_fault, rule, sample, socket, task};

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
    packet::TapLink,
    packet_fault::LinkKey,
    packet_fault::PacketCgroup,
    packet_fault::PacketCounts,
    packet_fault::PacketFault,
    packet_fault::PacketFlow,
    packet_fault::PacketFlowKey,
    packet_fault::PacketLink,
    packet_fault::PacketState,
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
