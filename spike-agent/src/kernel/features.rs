//! What this kernel offers beyond what Spike cannot do without.

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use btf_rs::{Btf, BtfType, Type};
use tracing::warn;

/// Facilities that are used where they exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// `bpf_set_retval` (5.18): the connect hook refuses by itself, else by a port that nobody listens on.
    pub set_retval: bool,
    /// `bpf_get_netns_cookie` in sock_ops (5.15): listeners are told apart by namespace.
    pub netns_cookie: bool,
    /// TCX (6.6): packet programs without a qdisc.
    pub tcx: bool,
    /// Where the kernel keeps a process's executable; needs BTF and `bpf_probe_read_kernel` in connect hooks.
    pub executable: Option<ExecutableOffsets>,
    /// `sock.sk_err` in bytes: why a connection failed; needs BTF and `bpf_skc_to_tcp_sock` in sock_ops.
    pub socket_error: Option<u32>,
    /// How the hooks see at once that the agent was killed; needs BTF and `bpf_probe_read_kernel` in all of them.
    pub agent_flags: Option<FlagsOffsets>,
    /// How the packet hooks tell network namespaces apart; needs BTF and `bpf_probe_read_kernel` in sched_cls.
    pub packet_netns: Option<NetnsOffsets>,
}

/// Offsets in bytes on the way from a packet to the number of its network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetnsOffsets {
    /// `sk_buff.dev`.
    pub skb_dev: u32,
    /// `net_device.nd_net.net`.
    pub dev_net: u32,
    /// `net.ns.inum`.
    pub net_inum: u32,
}

/// Offsets in bytes on the way from a task to the flags of its process.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlagsOffsets {
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `signal_struct.flags`.
    pub signal_flags: u32,
}

/// Offsets in bytes on the way from a task to the name of its executable.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecutableOffsets {
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `mm_struct.exe_file`.
    pub mm_exe_file: u32,
    /// `file.f_path.dentry`.
    pub file_dentry: u32,
    /// `dentry.d_name.name`.
    pub dentry_name: u32,
    /// `task_struct.group_leader`.
    pub task_leader: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
}

impl Features {
    /// Asks the running kernel.
    pub fn probe() -> Self {
        let has = |program, helper| is_helper_supported(program, helper).unwrap_or(false);
        let connect = |helper| has(ProgramType::CgroupSockAddr, helper);
        let reads = connect(BpfHelper::BPF_FUNC_get_current_task)
            && connect(BpfHelper::BPF_FUNC_probe_read_kernel)
            && connect(BpfHelper::BPF_FUNC_probe_read_kernel_str);
        let btf = kernel_btf();
        let executable = btf.as_ref().filter(|_| reads).and_then(executable_offsets);
        if executable.is_none() {
            warn!(
                "this kernel does not tell executables by name in the connect hook: calls are named by thread, and `process` selectors are decided in the agent"
            );
        }
        let sock_ops = |helper| has(ProgramType::SockOps, helper);
        let reads_sockets =
            sock_ops(BpfHelper::BPF_FUNC_skc_to_tcp_sock) && sock_ops(BpfHelper::BPF_FUNC_probe_read_kernel);
        let reads_in_skb = has(ProgramType::CgroupSkb, BpfHelper::BPF_FUNC_get_current_task)
            && has(ProgramType::CgroupSkb, BpfHelper::BPF_FUNC_probe_read_kernel);
        let sees_agent =
            reads && reads_in_skb && has(ProgramType::SockOps, BpfHelper::BPF_FUNC_probe_read_kernel);
        let agent_flags = btf.as_ref().filter(|_| sees_agent).and_then(flags_offsets);
        if agent_flags.is_none() {
            warn!(
                "this kernel does not tell the hooks that the agent was killed: calls that a fault has chosen may still go to it for some milliseconds, and fail"
            );
        }
        let reads_packets = has(
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_probe_read_kernel,
        );
        Self {
            agent_flags,
            packet_netns: btf.as_ref().filter(|_| reads_packets).and_then(netns_offsets),
            socket_error: btf
                .as_ref()
                .filter(|_| reads_sockets)
                .and_then(|btf| offset(btf, "sock", &["sk_err"])),
            set_retval: connect(BpfHelper::BPF_FUNC_set_retval),
            netns_cookie: sock_ops(BpfHelper::BPF_FUNC_get_netns_cookie),
            tcx: aya::util::KernelVersion::current()
                .is_ok_and(|version| version >= aya::util::KernelVersion::new(6, 6, 0)),
            executable,
        }
    }
}

/// The kernel's description of its own types.
fn kernel_btf() -> Option<Btf> {
    // Whole: read type by type it takes more than 100,000 system calls.
    let bytes = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
    Btf::from_bytes(&bytes).ok()
}

fn executable_offsets(btf: &Btf) -> Option<ExecutableOffsets> {
    Some(ExecutableOffsets {
        task_mm: offset(btf, "task_struct", &["mm"])?,
        mm_exe_file: offset(btf, "mm_struct", &["exe_file"])?,
        file_dentry: offset(btf, "file", &["f_path", "dentry"])?,
        dentry_name: offset(btf, "dentry", &["d_name", "name"])?,
        task_leader: offset(btf, "task_struct", &["group_leader"])?,
        task_comm: offset(btf, "task_struct", &["comm"])?,
    })
}

fn flags_offsets(btf: &Btf) -> Option<FlagsOffsets> {
    Some(FlagsOffsets {
        task_signal: offset(btf, "task_struct", &["signal"])?,
        signal_flags: offset(btf, "signal_struct", &["flags"])?,
    })
}

fn netns_offsets(btf: &Btf) -> Option<NetnsOffsets> {
    Some(NetnsOffsets {
        skb_dev: offset(btf, "sk_buff", &["dev"])?,
        dev_net: offset(btf, "net_device", &["nd_net", "net"])?,
        net_inum: offset(btf, "net", &["ns", "inum"])?,
    })
}

/// The offset in bytes of a field, by the names on the way to it.
fn offset(btf: &Btf, structure: &str, path: &[&str]) -> Option<u32> {
    let types = btf.resolve_types_by_name(structure).ok()?;
    let bits = types
        .iter()
        .find_map(|candidate| offset_in(btf, candidate, path))?;
    Some(bits / 8)
}

fn offset_in(btf: &Btf, structure: &Type, path: &[&str]) -> Option<u32> {
    let (Type::Struct(fields) | Type::Union(fields)) = structure else {
        return None;
    };
    let (wanted, rest) = path.split_first()?;
    for member in &fields.members {
        let name = btf.resolve_name(member).unwrap_or_default();
        let inner = || resolved(btf, member);
        if name == *wanted {
            if rest.is_empty() {
                return Some(member.bit_offset());
            }
            return Some(member.bit_offset() + offset_in(btf, &inner()?, rest)?);
        }
        // Newer kernels wrap fields in unnamed structures.
        if name.is_empty()
            && let Some(within) = inner().and_then(|inner| offset_in(btf, &inner, path))
        {
            return Some(member.bit_offset() + within);
        }
    }
    None
}

/// A member's type behind qualifiers and names.
fn resolved(btf: &Btf, member: &dyn BtfType) -> Option<Type> {
    let mut found = btf.resolve_chained_type(member).ok()?;
    loop {
        found = match &found {
            Type::Struct(_) | Type::Union(_) => return Some(found),
            other => btf.resolve_chained_type(other.as_btf_type()?).ok()?,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_where_there_is_btf() {
        let Some(btf) = kernel_btf() else { return };
        let offsets = executable_offsets(&btf).expect("the fields are in every kernel since 5.10");
        assert!(offsets.task_mm > 0 && offsets.mm_exe_file > 0 && offsets.dentry_name > 0);
        assert!(offset(&btf, "sock", &["sk_err"]) > Some(0));
        let offsets = netns_offsets(&btf).expect("the fields are in every kernel since 5.10");
        let flags = flags_offsets(&btf).expect("the fields are in every kernel since 5.10");
        assert!(flags.task_signal > 0 && flags.signal_flags > 0);
        assert!(offsets.skb_dev > 0 && offsets.dev_net > 0 && offsets.net_inum > 0);
    }
}
