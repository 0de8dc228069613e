//! The kernel side as the rest of the agent sees it; the only user of aya. Owning it is being attached.

mod adopt;
mod attach;
mod close;
mod clsact;
mod features;
mod intercepted;
mod joins;
pub mod links;
mod netns;
pub mod packet_faults;
mod packets;
mod retired;
mod route;
mod rules;
mod samples;
mod sock_diag;
mod tables;
pub mod tap;

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use aya::maps::{
    Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf, SkStorage,
};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use aya_log::EbpfLogger;
use spike_common::config::{Config, DatagramPorts, Listener};
use spike_common::edge::{Edge, EdgeStats};
use spike_common::name::NameKey;
use spike_common::packet::TapLink;
use spike_common::rule::KernelFault;
use spike_common::socket::{Binder, Flow, FlowKey, ServiceKey, Socket};
use spike_common::task::Task;
use tokio::io::unix::AsyncFd;

pub use features::Features;
pub use rules::Refusal;
pub use samples::Samples;

use crate::lock::lock;
use packet_faults::PacketTable;
use retired::Retired;
use rules::RuleTable;

/// The kernel programs, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/spike-ebpf"));

/// The loaded and attached kernel side. Dropping it detaches everything.
pub struct Kernel {
    features: Features,
    /// What is attached, for people.
    hooks: Vec<String>,
    config: Mutex<(Array<MapData, Config>, Config)>,
    heartbeat: Mutex<Array<MapData, u64>>,
    listeners: Mutex<HashMap<MapData, u64, Listener>>,
    rules: Mutex<RuleTable>,
    taps: Mutex<RuleTable>,
    faults: Mutex<HashMap<MapData, u32, KernelFault>>,
    tap_links: Mutex<HashMap<MapData, u64, TapLink>>,
    tap_programs: Mutex<ProgramArray<MapData>>,
    packets_table: Mutex<PacketTable>,
    flows: Mutex<HashMap<MapData, FlowKey, Flow>>,
    redirects: Mutex<HashMap<MapData, FlowKey, Flow>>,
    wants: Mutex<HashMap<MapData, u64, u32>>,
    names: Mutex<HashMap<MapData, NameKey, u64>>,
    released: Mutex<HashMap<MapData, u64, u32>>,
    syns: Mutex<Option<RingBuf<MapData>>>,
    datagram_listeners: Mutex<HashMap<MapData, u64, DatagramPorts>>,
    datagram_flows: Mutex<HashMap<MapData, FlowKey, Flow>>,
    services: Mutex<HashMap<MapData, ServiceKey, Task>>,
    binders: Mutex<HashMap<MapData, ServiceKey, Binder>>,
    edges: Mutex<HashMap<MapData, u64, Edge>>,
    stats: Mutex<PerCpuHashMap<MapData, u64, EdgeStats>>,
    retired: Mutex<Retired>,
    counters: PerCpuArray<MapData, u64>,
    sockets: Mutex<SkStorage<MapData, Socket>>,
    events: Mutex<Option<RingBuf<MapData>>>,
    packets: Mutex<Option<RingBuf<MapData>>>,
    samples: Mutex<Option<RingBuf<MapData>>>,
    own_netns: u64,
    /// Last, so that the maps are still there while the links go.
    programs: Mutex<Ebpf>,
}

impl Kernel {
    /// Loads the programs, finds the connections that are already open below `cgroup`, and attaches.
    ///
    /// `log` turns the kernel side's messages on.
    ///
    /// # Errors
    /// Names the step and what the kernel said. Whatever was attached until then is detached again.
    pub fn start(cgroup: &Path, log: bool) -> Result<Self> {
        let features = Features::probe();
        let mut programs = load(&features, log)?;
        if log {
            read_log(&mut programs)?;
        }
        let mut take = Maps(&mut programs);
        let config = Config {
            agent_tgid: std::process::id(),
            ..Config::default()
        };
        let mut kernel = Self {
            hooks: Vec::new(),
            config: Mutex::new((take.map("CONFIG", Array::try_from)?, config)),
            heartbeat: Mutex::new(take.map("HEARTBEAT", Array::try_from)?),
            listeners: Mutex::new(take.map("LISTENERS", HashMap::try_from)?),
            rules: Mutex::new(RuleTable::new(
                take.map("RULES_EXACT", HashMap::try_from)?,
                take.map("RULES_PREFIX", LpmTrie::try_from)?,
            )),
            taps: Mutex::new(RuleTable::new(
                take.map("TAPS_EXACT", HashMap::try_from)?,
                take.map("TAPS_PREFIX", LpmTrie::try_from)?,
            )),
            faults: Mutex::new(take.map("FAULTS", HashMap::try_from)?),
            tap_links: Mutex::new(take.map("TAP_LINKS", HashMap::try_from)?),
            tap_programs: Mutex::new(take.map("TAP_PROGRAMS", ProgramArray::try_from)?),
            packets_table: Mutex::new(PacketTable::take(&mut take)?),
            flows: Mutex::new(take.map("FLOWS", HashMap::try_from)?),
            redirects: Mutex::new(take.map("REDIRECTS", HashMap::try_from)?),
            wants: Mutex::new(take.map("WANTS", HashMap::try_from)?),
            names: Mutex::new(take.map("NAMES", HashMap::try_from)?),
            released: Mutex::new(take.map("RELEASED", HashMap::try_from)?),
            syns: Mutex::new(Some(take.map("SYNS", RingBuf::try_from)?)),
            datagram_listeners: Mutex::new(take.map("DATAGRAM_LISTENERS", HashMap::try_from)?),
            datagram_flows: Mutex::new(take.map("DATAGRAM_FLOWS", HashMap::try_from)?),
            services: Mutex::new(take.map("SERVICES", HashMap::try_from)?),
            binders: Mutex::new(take.map("BINDERS", HashMap::try_from)?),
            edges: Mutex::new(take.map("EDGES", HashMap::try_from)?),
            stats: Mutex::new(take.map("EDGE_STATS", PerCpuHashMap::try_from)?),
            retired: Mutex::default(),
            counters: take.map("COUNTERS", PerCpuArray::try_from)?,
            sockets: Mutex::new(take.map("SOCKETS", SkStorage::try_from)?),
            events: Mutex::new(Some(take.map("EVENTS", RingBuf::try_from)?)),
            packets: Mutex::new(Some(take.map("PACKETS", RingBuf::try_from)?)),
            samples: Mutex::new(Some(take.map("SAMPLES", RingBuf::try_from)?)),
            own_netns: 0,
            programs: Mutex::new(programs),
            features,
        };
        kernel.configure(|_| ())?;
        kernel.beat();
        if let Err(error) = attach::show_agent(&mut lock(&kernel.programs)) {
            tracing::warn!(
                "the hooks cannot see when the agent is killed; chosen calls may go to it for some milliseconds more, and fail: {error:#}"
            );
        }
        // Older kernels tell a namespace's cookie to the bind hook only.
        kernel.hooks = attach::binds(&mut lock(&kernel.programs), cgroup)?;
        kernel.own_netns = kernel.cookie_here().unwrap_or(0);
        let own_netns = kernel.own_netns;
        kernel.configure(|config| config.agent_netns = own_netns)?;
        // Before the hooks, so that nobody else counts meanwhile; what opens in between is found by the second look.
        adopt::adopt(&kernel, cgroup);
        let hooks = attach::attach(&mut lock(&kernel.programs), cgroup)?;
        kernel.hooks.extend(hooks);
        adopt::adopt(&kernel, cgroup);
        Ok(kernel)
    }

    /// What this kernel offers.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What is attached.
    pub fn hooks(&self) -> &[String] {
        &self.hooks
    }

    /// Changes the kernel side's settings.
    fn configure(&self, change: impl FnOnce(&mut Config)) -> Result<()> {
        let mut guard = lock(&self.config);
        let (map, config) = &mut *guard;
        change(config);
        map.set(0, *config, 0).context("write the kernel side's settings")
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

fn load(features: &Features, log: bool) -> Result<Ebpf> {
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| error_in(what, error))?;
    let log_level = if log { 4_u8 } else { 0 };
    let (set_retval, netns_cookie) = (u8::from(features.set_retval), u8::from(features.netns_cookie));
    let offsets = features.executable.unwrap_or_default();
    let socket_error = features.socket_error.unwrap_or_default();
    let packet_netns = features.packet_netns.unwrap_or_default();
    let agent_flags = features.agent_flags.unwrap_or_default();
    EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::default())
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_NETNS_COOKIE", &netns_cookie, true)
        .override_global("OFFSET_TASK_MM", &offsets.task_mm, true)
        .override_global("OFFSET_MM_EXE_FILE", &offsets.mm_exe_file, true)
        .override_global("OFFSET_FILE_DENTRY", &offsets.file_dentry, true)
        .override_global("OFFSET_DENTRY_NAME", &offsets.dentry_name, true)
        .override_global("OFFSET_TASK_LEADER", &offsets.task_leader, true)
        .override_global("OFFSET_TASK_COMM", &offsets.task_comm, true)
        .override_global("OFFSET_TASK_SIGNAL", &agent_flags.task_signal, true)
        .override_global("OFFSET_SIGNAL_FLAGS", &agent_flags.signal_flags, true)
        .override_global("OFFSET_SK_ERR", &socket_error, true)
        .override_global("OFFSET_SKB_DEV", &packet_netns.skb_dev, true)
        .override_global("OFFSET_DEV_NET", &packet_netns.dev_net, true)
        .override_global("OFFSET_NET_INUM", &packet_netns.net_inum, true)
        .map_max_entries("SCRATCH", u32::try_from(cpus)?)
        .map_max_entries("EDGES", retired::room(cpus))
        .map_max_entries("EDGE_STATS", retired::room(cpus))
        .load(OBJECT)
        .context("load the kernel programs' maps; `spike doctor` tells what this kernel lacks")
}

/// The hooks' messages go where the agent's go. Off, their code is not even in the loaded programs.
fn read_log(programs: &mut Ebpf) -> Result<()> {
    let logger = EbpfLogger::init(programs).context("read the kernel side's messages")?;
    // SAFETY: the logger owns its descriptor and keeps it until it is dropped.
    let mut logger = unsafe { AsyncFd::register(logger) }.context("poll the kernel side's messages")?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

fn error_in(what: &str, error: std::io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("read {what}"))
}

/// Takes maps out of the loaded object by name.
struct Maps<'a>(&'a mut Ebpf);

impl Maps<'_> {
    fn map<T>(
        &mut self,
        name: &str,
        convert: impl FnOnce(aya::maps::Map) -> Result<T, aya::maps::MapError>,
    ) -> Result<T> {
        let map = self
            .0
            .take_map(name)
            .with_context(|| format!("kernel object has no map {name}"))?;
        convert(map).with_context(|| format!("use map {name}"))
    }
}
