//! Every map, declared once.

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{
    Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf,
};
use spike_common::config::{Config, DatagramPorts, Listener};
use spike_common::counter::COUNTERS as COUNTER_COUNT;
use spike_common::edge::{Edge, EdgeStats};
use spike_common::name::NameKey;
use spike_common::packet::{MAX_BYTES, PacketHeader, TapLink};
use spike_common::packet_fault::{
    LinkKey, PacketCgroup, PacketCounts, PacketFault, PacketFlow, PacketFlowKey, PacketLink, PacketState,
};
use spike_common::rule::{KernelFault, RuleKey, RuleValue};
use spike_common::socket::{
    Binder, DatagramSlots, Flow, FlowKey, Handshake, HandshakeKey, ServiceKey, Socket,
};
use spike_common::task::Task;

use crate::hooks::FaultScratch;

/// agent --settings--> every hook.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// agent --`CLOCK_MONOTONIC` of its last sign of life--> connect.
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// task_of_agent --where the kernel keeps the flags of the agent's process; 0 when unknown--> connect, sendmsg.
#[map]
pub(crate) static AGENT_FLAGS: Array<u64> = Array::with_max_entries(1, 0);

/// agent --listener by namespace cookie--> connect.
#[map]
pub(crate) static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// agent --rules without a prefix--> connect.
#[map]
pub(crate) static RULES_EXACT: HashMap<RuleKey, RuleValue> =
    HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// A [`RuleKey`] without its prefix length, as the LPM map's key type has it.
pub(crate) type PrefixData = [u8; size_of::<RuleKey>() - 4];

/// agent --rules with a prefix--> connect.
#[map]
pub(crate) static RULES_PREFIX: LpmTrie<PrefixData, RuleValue> =
    LpmTrie::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// agent --faults decided here--> connect --matched, affected--> agent.
#[map]
pub(crate) static FAULTS: HashMap<u32, KernelFault> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// agent --captures without a prefix--> tap.
#[map]
pub(crate) static TAPS_EXACT: HashMap<RuleKey, RuleValue> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// agent --captures with a prefix--> tap.
#[map]
pub(crate) static TAPS_PREFIX: LpmTrie<PrefixData, RuleValue> =
    LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// agent --interfaces by [`spike_common::packet::link_key`]--> tap.
#[map]
pub(crate) static TAP_LINKS: HashMap<u64, TapLink> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// The programs that taps of other namespaces go on to: egress, ingress.
#[map]
pub(crate) static TAP_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Which namespace a packet is seen in, from the tap there to the program that it goes on to.
#[map]
pub(crate) static TAP_SLOT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// agent --interfaces that have packet faults--> packet_faults.
#[map]
pub(crate) static PACKET_LINKS: HashMap<LinkKey, PacketLink> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// agent --packet faults--> packet_faults.
#[map]
pub(crate) static PACKET_FAULTS: HashMap<u32, PacketFault> =
    HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// agent --cgroups that packet faults chose--> packet_faults. The value says nothing.
#[map]
pub(crate) static PACKET_CGROUPS: HashMap<PacketCgroup, u32> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// packet_faults --matched, affected--> agent.
#[map]
pub(crate) static PACKET_COUNTS: PerCpuHashMap<u32, PacketCounts> =
    PerCpuHashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// What all flows of a packet fault share.
#[map]
pub(crate) static PACKET_STATES: HashMap<u32, PacketState> =
    HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// What packet faults know of flows. The oldest go when it is full, and start anew if they come back.
#[map]
pub(crate) static PACKET_FLOWS: LruHashMap<PacketFlowKey, PacketFlow> =
    LruHashMap::with_max_entries(16_384, 0);

/// Where a packet fault keeps the packet that it looks at.
#[map]
pub(crate) static PACKET_SCRATCH: PerCpuArray<FaultScratch> = PerCpuArray::with_max_entries(1, 0);

/// connect, sock_ops --owner and aim of each flow--> agent, tap. The oldest go when it is full: late packets of closed
/// connections still find their owner.
#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(65_536, 0);

/// sock_ops of a caller --its edge--> sock_ops of its callee: where addresses are translated in between, nothing else of
/// the connection is the same at both ends. Used up within a round trip.
#[map]
pub(crate) static HANDSHAKES: LruHashMap<HandshakeKey, Handshake> = LruHashMap::with_max_entries(16_384, 0);

/// sock_ops --redirected flows not yet accepted--> agent.
#[map]
pub(crate) static REDIRECTS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// bind --who bound an address lately--> sock_ops, agent. The key's namespace is 0 where sock_ops cannot tell it.
#[map]
pub(crate) static BINDERS: LruHashMap<ServiceKey, Binder> = LruHashMap::with_max_entries(16_384, 0);

/// sock_ops --who answers at an address of this host--> agent.
#[map]
pub(crate) static SERVICES: LruHashMap<ServiceKey, Task> = LruHashMap::with_max_entries(16_384, 0);

/// traffic --which name led a cgroup to an address--> connect.
#[map]
pub(crate) static NAMES: LruHashMap<NameKey, u64> = LruHashMap::with_max_entries(16_384, 0);

/// connect, sock_ops --what each edge is between--> agent, which takes out those that rest. It sets the size of this and
/// the next by the number of CPUs.
#[map]
pub(crate) static EDGES: HashMap<u64, Edge> = HashMap::with_max_entries(8192, 0);

/// connect, sock_ops, traffic --counts of each edge--> agent. Allocated beforehand: per-CPU memory that is wanted within
/// a hook comes slowly, and a burst of new edges would find none.
#[map]
pub(crate) static EDGE_STATS: PerCpuHashMap<u64, EdgeStats> = PerCpuHashMap::with_max_entries(8192, 0);

/// A zeroed value that new `EDGE_STATS` start from: too large for the 512-byte stack.
#[map]
pub(crate) static NO_STATS: Array<EdgeStats> = Array::with_max_entries(1, 0);

/// every hook --why something was let go--> agent.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// connect --NamespaceWanted--> agent.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

/// tap --packets--> agent.
#[map]
pub(crate) static PACKETS: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// traffic --starts of payloads--> agent. Nobody is woken: the agent looks when it has the time.
#[map]
pub(crate) static SAMPLES: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// agent --`WANT_WHOLE` or `WANT_LITTLE` by cookie--> traffic.
#[map]
pub(crate) static WANTS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(16_384, 0);

/// agent --ports for datagrams by namespace cookie--> connect, sendmsg, recvmsg.
#[map]
pub(crate) static DATAGRAM_LISTENERS: HashMap<u64, DatagramPorts> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// traffic --where datagrams to the agent were meant to go--> agent.
#[map]
pub(crate) static DATAGRAM_FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(65_536, 0);

/// traffic --HeldSyn--> agent.
#[map]
pub(crate) static SYNS: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);

/// agent --by cookie: `PASS`, or milliseconds until the attempt to connect times out--> traffic, sock_ops.
#[map]
pub(crate) static RELEASED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(16_384, 0);

/// A packet on its way to the ring buffer.
#[repr(C)]
pub(crate) struct PacketScratch {
    pub(crate) header: PacketHeader,
    pub(crate) bytes: [u8; MAX_BYTES],
}

/// Where a packet is put together, one element a CPU: too large for the stack and for a per-CPU map (32 KiB). The
/// loader sets the number of CPUs.
#[map]
pub(crate) static SCRATCH: Array<PacketScratch> = Array::with_max_entries(1, 0);

/// A socket storage map whose values a listener hands down to the sockets it accepts. aya's own type has no flags.
#[repr(C)]
pub(crate) struct InheritedSkStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: a definition for the loader; the pointers are never read.
unsafe impl<T> Sync for InheritedSkStorage<T> {}

impl<T> InheritedSkStorage<T> {
    const fn new() -> Self {
        use core::ptr::null;
        Self {
            r#type: null(),
            key: null(),
            value: null(),
            max_entries: null(),
            map_flags: null(),
        }
    }

    pub(crate) fn as_ptr(&'static self) -> *mut core::ffi::c_void {
        (&raw const *self).cast_mut().cast()
    }
}

/// Every hook's state of a socket; ends with the socket.
#[btf_map]
pub(crate) static SOCKETS: InheritedSkStorage<Socket> = InheritedSkStorage::new();

/// sendmsg --where a UDP socket's datagrams were meant to go--> recvmsg, traffic.
#[btf_map]
pub(crate) static DATAGRAM_SLOTS: InheritedSkStorage<DatagramSlots> = InheritedSkStorage::new();
