//! One file a hook; every error path lets the traffic through.

mod bind;
mod connect;
mod datagrams;
mod destination;
mod held;
mod packet_faults;
mod peername;
mod recvmsg;
mod redirected;
mod select;
mod sock_ops;
mod tap;
mod task_of_agent;
mod traffic;

pub(crate) use packet_faults::FaultScratch;

/// The verdict of cgroup programs that lets the operation or packet go on.
const ALLOW: i32 = 1;
/// The verdict of cgroup programs that fails the operation.
const DENY: i32 = 0;
