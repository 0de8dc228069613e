//! Run once by the agent itself and attached nowhere: notes where the kernel keeps the flags of the agent's process.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use super::ALLOW;
use crate::maps::AGENT_FLAGS;
use crate::support::tasks;

#[cgroup_skb(egress)]
fn spike_task_of_agent(_: SkBuffContext) -> i32 {
    if let Some(address) = tasks::flags_address() {
        _ = AGENT_FLAGS.set(0, address, 0);
    }
    ALLOW
}
