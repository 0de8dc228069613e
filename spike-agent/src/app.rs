//! The composition root: starts everything in order, joins it, and takes it down in the reverse order.

mod calls;
mod captures;
mod export;
mod glue;
mod hosts;
mod known;
mod map;
mod packets;
mod planes;
mod recordings;
mod replays;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use spike_common::event::{NamespaceWanted, WAS_BOUND};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::Doors;
use crate::audit::Audit;
use crate::capture::store::Store;
use crate::config::{AgentConfig, Listen, LogLevel};
use crate::control::{Control, Planes};
use crate::exec::ExecTable;
use crate::export::{Exporter, Settings};
use crate::fault::book::Book;
use crate::identity::{Cgroups, Ends, Engine, EnginePlaces, Processes, Services, Users};
use crate::kernel::Kernel;
use crate::model::rule::{Capabilities, CgroupIds};
use crate::model::view::Actor;
use crate::proxy::namespaces::Namespaces;
use crate::proxy::{Proxy, can_answer};
use crate::replay::stub::Stubs;
use crate::safety::{
    CleanupOptions, InstanceLock, Journal, check_cgroup2, cleanup, find_cgroup2, preflight, raise_open_files,
};
use crate::toxiproxy;
use calls::Calls;
use captures::{Captures, Parts};
use export::LiveSource;
use glue::{KernelListeners, KernelOriginals, ServeByProxy};
use known::Known;
use map::MapKeeper;
use packets::Packets;
use planes::LivePlanes;
use recordings::Recordings;
use replays::LiveStubs;

/// How often the hooks hear that the agent lives; they stop intercepting after 2 s without.
const BEAT: Duration = Duration::from_millis(500);
/// How often the hooks' table of edges is looked at for edges that rest.
const RETIRE: Duration = Duration::from_secs(1);
/// How long the last push to a collector may take.
const LAST_PUSH: Duration = Duration::from_secs(2);
/// How long captures may take to write their last packets.
const LAST_PACKETS: Duration = Duration::from_secs(2);
/// How often new processes are looked for, at most.
const NAMING: Duration = Duration::from_secs(1);

/// Runs the agent until SIGINT or SIGTERM.
///
/// # Errors
/// Why it could not start, in one line with what to do; nothing is left attached then.
pub fn run(config: AgentConfig) -> Result<()> {
    preflight()?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(serve(config));
    // Proxied connections end with the agent; waiting for them could take for ever.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

async fn serve(config: AgentConfig) -> Result<()> {
    let mount = find_cgroup2()?;
    let cgroup: PathBuf = match &config.cgroup {
        Some(path) => {
            check_cgroup2(path)?;
            path.canonicalize()
                .with_context(|| format!("find cgroup {}", path.display()))?
        }
        None => mount.clone(),
    };
    let lock = InstanceLock::acquire(&cgroup, &config.state_dir)?;
    warn_if_outside(&cgroup, &mount);
    let left = cleanup(CleanupOptions {
        state_dir: &config.state_dir,
        check: false,
        held: Some(&lock),
    })?;
    for leftover in &left.leftovers {
        info!("removed what an earlier agent left: {leftover:?}");
    }
    let journal = Arc::new(Journal::open(&lock)?);
    let doors = Doors::bind(&config).await?;
    let toxiproxy = match config.toxiproxy {
        Listen::Off => None,
        Listen::At(address) => Some(toxiproxy::Door::bind(address).await?),
    };

    let log = matches!(config.log_level, LogLevel::Debug | LogLevel::Trace);
    let kernel = Arc::new(Kernel::start(&cgroup, log)?);
    let stop = CancellationToken::new();
    tokio::spawn(beat(Arc::clone(&kernel), stop.clone()));
    tokio::spawn(retire_edges(Arc::clone(&kernel), stop.clone()));

    let cgroups = Arc::new(Cgroups::new(mount.clone()));
    let processes = Arc::new(Processes::new(Arc::clone(&cgroups)));
    let services = Arc::new(Services::new(
        Arc::clone(&cgroups),
        config.services.clone(),
        Engine::start(EnginePlaces::default()),
    ));
    let capabilities = Capabilities {
        executable: kernel.features().executable.is_some(),
        cgroup_depths: cgroups
            .id_and_depth("/")
            .is_some_and(|(_, depth)| depth.is_some()),
    };
    let book = Arc::<Book>::default();
    let calls = Arc::new(Calls::start(
        Arc::clone(&kernel),
        Arc::clone(&processes),
        Arc::clone(&services),
        config.decode_budget,
    )?);
    let known = Arc::new(Known::new(
        Arc::clone(&kernel),
        Arc::clone(&cgroups),
        Ends::new(
            Arc::clone(&processes),
            Arc::clone(&services),
            Users::new("/etc/passwd".into()),
        ),
        calls.names(),
    ));
    let captures_dir = config.capture_dir.clone();
    let captures_dir = captures_dir.unwrap_or_else(|| config.state_dir.join("captures"));
    let (store, kept) = Store::open(captures_dir, config.capture_quota);
    let captures = Captures::new(Parts {
        kernel: Arc::clone(&kernel),
        journal: Arc::clone(&journal),
        cgroups: Arc::clone(&cgroups),
        services: Arc::clone(&services),
        known: Arc::clone(&known),
        capabilities,
        store,
    })?;
    captures.set_calls(Arc::clone(&calls));
    let originals = Arc::new(KernelOriginals {
        kernel: Arc::clone(&kernel),
        known: Arc::clone(&known),
        captures: Arc::clone(&captures),
    });
    let proxy = Proxy::new(originals, book.subscribe());
    let holding = hold_syns(&kernel, &proxy).err().map(|error| format!("{error:#}"));
    if let Some(reason) = &holding {
        warn!("callers are connected before the server has answered: {reason}");
    }
    let recordings = Recordings::new(
        Arc::clone(&kernel),
        Arc::clone(&services),
        Arc::clone(&calls),
        config.state_dir.join("recordings"),
    );
    proxy.record_by(Arc::clone(&recordings) as _);
    let namespaces = Namespaces::new(
        Arc::new(KernelListeners(Arc::clone(&kernel))),
        Arc::new(ServeByProxy(Arc::clone(&proxy))),
        stop.clone(),
    );
    let (bound_tx, bound_rx) = watch::channel(());
    follow_wanted(&kernel, Arc::clone(&namespaces), bound_tx)?;
    let source = LiveSource {
        kernel: Arc::clone(&kernel),
        calls: Arc::clone(&calls),
    };
    let settings = Settings {
        edges: usize::from(config.metrics_edges),
        otlp: config.otlp.clone(),
    };
    let exporter = Exporter::start(Arc::new(source), settings, stop.clone())?;
    let map = Arc::new(MapKeeper::new(&config, Arc::clone(&calls)));
    let map_stop = CancellationToken::new();
    let keeping = tokio::spawn(Arc::clone(&map).run(map_stop.clone()));
    let packets = Packets::new(
        Arc::clone(&kernel),
        Arc::clone(&journal),
        Arc::clone(&cgroups),
        capabilities,
    );
    let stubs = Arc::<Stubs>::default();
    proxy.stand_in_by(Arc::new(LiveStubs {
        stubs: Arc::clone(&stubs),
        cgroups: Arc::clone(&cgroups),
    }));
    let planes = Arc::new(LivePlanes {
        stubs: Arc::clone(&stubs),
        started: Instant::now(),
        cgroup: cgroup.clone(),
        kernel: Arc::clone(&kernel),
        book: Arc::clone(&book),
        calls,
        map,
        exporter,
        services,
        cgroups,
        proxy,
        capabilities,
        namespaces,
        captures: Arc::clone(&captures),
        captures_kept: Mutex::new(kept),
        packets,
        recordings: Arc::clone(&recordings),
        execs: ExecTable::new(mount, journal),
        known,
        holding,
        settling: tokio::sync::Mutex::default(),
        settled: AtomicU64::new(0),
        asked: AtomicU64::new(0),
    });
    let control = Control::new(Arc::clone(&book), Arc::clone(&planes) as Arc<dyn Planes>);
    let control = control.with_audit(Audit::new(&config.state_dir));
    let control = control.with_stubs(stubs);
    tokio::spawn(control.clone().watch_faults());
    if let Some(door) = toxiproxy {
        let (control, proxy, stop) = (control.clone(), Arc::clone(&planes.proxy), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = door.serve(&control, proxy, stop).await {
                warn!("{error:#}");
            }
        });
    }
    tokio::spawn(follow(
        Arc::clone(&planes),
        Arc::clone(&captures),
        bound_rx,
        stop.clone(),
    ));
    tokio::spawn(name_early(Arc::clone(&planes), stop.clone()));
    tokio::spawn(signals(control.by(Actor::by("signal")), stop.clone()));

    info!(
        "ready: observing {}, answering on {}",
        cgroup.display(),
        config.socket.display()
    );
    let served = doors.serve(control.clone(), stop.clone()).await;
    stop.cancel();
    control.fault_stop().await;
    captures.finish(LAST_PACKETS).await;
    recordings.finish().await;
    planes.execs.end_all();
    map_stop.cancel();
    _ = keeping.await;
    planes.exporter.finish(LAST_PUSH).await;
    info!("stopped");
    drop(lock);
    served
}

/// The hooks know the agent's own connections by what they see of it, which outside of their cgroup is nothing.
fn warn_if_outside(cgroup: &Path, mount: &Path) {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    if !mount.join(own).starts_with(cgroup) {
        warn!(
            "the agent runs outside of {}: on the map its side of intercepted calls will look like another caller",
            cgroup.display()
        );
    }
}

/// Tells the hooks that the agent lives.
async fn beat(kernel: Arc<Kernel>, stop: CancellationToken) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => kernel.beat(),
        }
    }
}

/// Keeps room in the hooks' table of edges.
async fn retire_edges(kernel: Arc<Kernel>, stop: CancellationToken) {
    let mut ticks = interval(RETIRE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let kernel = Arc::clone(&kernel);
        let _ = tokio::task::spawn_blocking(move || kernel.retire_edges()).await;
    }
}

/// Keeps the kernel's rules in step when faults end by themselves, and when what they name comes and goes.
async fn follow(
    planes: Arc<LivePlanes>,
    captures: Arc<Captures>,
    mut bound_rx: watch::Receiver<()>,
    stop: CancellationToken,
) {
    let mut faults = planes.book.subscribe();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = faults.changed() => if changed.is_err() { return },
            changed = bound_rx.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {
                captures.refresh();
                if !planes.names_what_changes() {
                    continue;
                }
            }
        }
        if let Err(error) = planes.settle().await {
            warn!("follow the faults: {error:#}");
        }
    }
}

/// `hooks/held --HeldSyn--> proxy`: from now on callers are connected when the server has answered, not before.
fn hold_syns(kernel: &Arc<Kernel>, proxy: &Arc<Proxy>) -> Result<()> {
    can_answer().context("open a raw socket; needs CAP_NET_RAW")?;
    let proxy = Arc::clone(proxy);
    kernel.read_syns(move |syn| {
        tokio::spawn(Arc::clone(&proxy).held(*syn));
    })?;
    kernel.hold_syns(true)
}

/// Looks at processes while they are there, as many end before anyone asks for the map.
///
/// It takes at most a fiftieth of a CPU, however many edges there are.
async fn name_early(planes: Arc<LivePlanes>, stop: CancellationToken) {
    loop {
        let planes = Arc::clone(&planes);
        let took = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            planes.name_all();
            start.elapsed()
        });
        let Ok(took) = took.await else { return };
        let pause = (took * 50).max(NAMING);
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// `kernel::tables --NamespaceWanted--> proxy::namespaces`, or, of a bound address, `--> follow`.
fn follow_wanted(kernel: &Kernel, namespaces: Arc<Namespaces>, bound_tx: watch::Sender<()>) -> Result<()> {
    let (wanted_tx, mut wanted_rx) = mpsc::unbounded_channel::<NamespaceWanted>();
    kernel.read_events(wanted_tx)?;
    tokio::spawn(async move {
        while let Some(event) = wanted_rx.recv().await {
            if event.kind == WAS_BOUND {
                bound_tx.send_replace(());
            } else {
                namespaces.wanted(event.tgid);
            }
        }
    });
    Ok(())
}

/// SIGINT and SIGTERM end the agent; SIGUSR1 ends every fault and capture.
async fn signals(control: Control, stop: CancellationToken) {
    let streams = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::user_defined1()),
    );
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut panic)) = streams else {
        warn!("cannot listen for signals");
        return;
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = panic.recv() => {
                info!("SIGUSR1: ending every fault and capture");
                if let Err(error) = control.panic().await {
                    warn!("end every fault and capture: {error}");
                }
            }
        }
    }
    stop.cancel();
}
