//! Keeps the map: what it is now, what it was, and the last calls on it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::calls::Calls;
use crate::config::AgentConfig;
use crate::lock::lock;
use crate::model::view::EdgeView;
use crate::model::{FieldError, Thresholds, Window};
use crate::topology::{
    Counts, Facts, Flow, History, Observed, RecentCall, Recorder, Step, StepCalls, is_transport,
};

/// Name of the history within the state directory.
const FILE: &str = "map-history.db";
/// How often old steps are made coarser.
const TIDY: Duration = Duration::from_secs(60);

/// The map over time.
pub(super) struct MapKeeper {
    calls: Arc<Calls>,
    history: Option<History>,
    step: Duration,
    recorder: Mutex<Recorder>,
    thresholds: Thresholds,
    started: SystemTime,
}

impl MapKeeper {
    /// Opens the history of the state directory. An agent whose history cannot be opened works without.
    pub(super) fn new(config: &AgentConfig, calls: Arc<Calls>) -> Self {
        let path = config.state_dir.join(FILE);
        let history = (config.history_size > 0).then(|| History::open(&path, config.history_size));
        let history = history.and_then(|opened| {
            opened
                .inspect_err(|error| warn!("{error}; the map is kept without its history"))
                .ok()
        });
        let started = SystemTime::now();
        Self {
            calls,
            history,
            step: config.history_step,
            recorder: Mutex::new(Recorder::new(millis(started))),
            thresholds: config.analysis.clone(),
            started,
        }
    }

    /// Ends a step now and then, until `stop`, and then a last one.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        if self.history.is_none() {
            return;
        }
        let mut ticks = interval(self.step);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut tidied = std::time::Instant::now()
            .checked_sub(TIDY)
            .unwrap_or_else(std::time::Instant::now);
        loop {
            let is_over = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let tidy = !is_over && tidied.elapsed() >= TIDY;
            if tidy {
                tidied = std::time::Instant::now();
            }
            let this = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || this.end_step(tidy)).await;
            if let Ok(Err(error)) = done {
                warn!("keep the map's history: {error:#}");
            }
            if is_over {
                return;
            }
        }
    }

    fn end_step(&self, tidy: bool) -> Result<()> {
        let Some(history) = &self.history else {
            return Ok(());
        };
        let mut recorder = lock(&self.recorder);
        // Most of very many edges rest, and need not be drawn.
        let flows = self
            .calls
            .flows_that(|id, counted| recorder.is_changed(id, counted))?;
        let now = millis(SystemTime::now());
        let (step, news) = recorder.end(&used(flows), now);
        drop(recorder);
        history.add(&step, &news)?;
        if tidy {
            history.tidy(now)?;
        }
        Ok(())
    }

    /// What happened in a stretch of time.
    pub(super) fn observed(&self, window: Window, steps: bool) -> Result<Observed> {
        let (from, to) = match window {
            Window::SinceStart => {
                return Ok(Observed {
                    from: self.started,
                    to: SystemTime::now(),
                    flows: used(self.calls.flows()?),
                    ..Observed::default()
                });
            }
            Window::Between(from, to) => (from, to),
        };
        let mut sums: HashMap<u64, Counts> = HashMap::new();
        let mut taken = Vec::new();
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        let live = self.each_step(from, to, |from_ms, to_ms, edges| {
            first = first.min(from_ms);
            last = last.max(to_ms);
            let mut calls = HashMap::new();
            for (id, counts) in edges {
                if steps && counts.calls > 0 {
                    calls.insert(id, counts.calls);
                }
                match sums.entry(id) {
                    Entry::Occupied(mut sum) => sum.get_mut().add(&counts),
                    Entry::Vacant(place) => _ = place.insert(counts),
                }
            }
            if steps {
                taken.push(StepCalls {
                    seconds: (to_ms - from_ms).max(1) as f64 / 1000.0,
                    calls,
                });
            }
        })?;
        let mut observed = Observed {
            // Of steps that lie partly within, all is in: no number is made up.
            from: if first <= last { time(first) } else { from },
            to: if first <= last { time(last) } else { to },
            steps: taken,
            ..Observed::default()
        };
        let mut known = self.known(&sums, live)?;
        let flows = sums.into_iter().filter_map(|(id, counts)| {
            let mut view = known.remove(&id)?;
            counts.fill(&mut view);
            Some(Flow {
                id,
                view,
                counts,
                ..Flow::default()
            })
        });
        observed.flows = used(flows.collect());
        observed.flows.sort_unstable_by_key(|flow| flow.id);
        Ok(observed)
    }

    /// The steps in which something happened on an edge.
    pub(super) fn edge_steps(&self, id: u64, window: Window) -> Result<Vec<Step>> {
        let (from, to) = match window {
            Window::SinceStart => (self.started, SystemTime::now()),
            Window::Between(from, to) => (from, to),
        };
        let mut steps = Vec::new();
        self.each_step(from, to, |from_ms, to_ms, edges| {
            let edges: Vec<_> = edges.filter(|(edge, _)| *edge == id).collect();
            if !edges.is_empty() {
                steps.push(Step {
                    from_ms,
                    to_ms,
                    edges,
                });
            }
        })?;
        Ok(steps)
    }

    /// Gives the steps with a part in a stretch of time to `each`, that which goes on last; gives the edges as they are
    /// now.
    fn each_step(
        &self,
        from: SystemTime,
        to: SystemTime,
        mut each: impl FnMut(i64, i64, &mut dyn Iterator<Item = (u64, Counts)>),
    ) -> Result<Vec<Flow>> {
        let Some(history) = &self.history else {
            let how = "there is no history: start the agent with --history-size, or see its log";
            return Err(FieldError::new("since", how).into());
        };
        let (from, to) = (millis(from), millis(to));
        // Held meanwhile, so that no step is read twice or not at all, and none ends after these counts.
        let recorder = lock(&self.recorder);
        let flows = used(self.calls.flows()?);
        history.each_between(from, to, &mut each)?;
        let now = recorder.so_far(&flows, millis(SystemTime::now()));
        if now.from_ms < to && now.to_ms > from {
            each(now.from_ms, now.to_ms, &mut now.edges.into_iter());
        }
        Ok(flows)
    }

    /// Who edges are between: as it is known now, else as it was. What they speak may have been known better before
    /// the agent was started again.
    fn known(&self, wanted: &HashMap<u64, Counts>, live: Vec<Flow>) -> Result<HashMap<u64, EdgeView>> {
        let mut known: HashMap<u64, EdgeView> = live.into_iter().map(|flow| (flow.id, flow.view)).collect();
        let is_known = |id: &u64| known.get(id).is_some_and(|view| !is_transport(&view.protocol));
        let asked: Vec<u64> = wanted.keys().copied().filter(|id| !is_known(id)).collect();
        if let Some(history) = &self.history {
            for (id, was) in history.identities(&asked)? {
                let protocol = was.protocol.clone();
                known.entry(id).or_insert(was).protocol = protocol;
            }
        }
        Ok(known)
    }

    /// The last calls of a stretch of time, and what all have told of their edges.
    pub(super) fn recent(&self, window: Window) -> (Vec<RecentCall>, BTreeMap<u64, Facts>) {
        self.calls.recent(window)
    }

    pub(super) fn thresholds(&self) -> Thresholds {
        self.thresholds.clone()
    }
}

/// Without the agent's own edges, and those that nothing used.
fn used(mut flows: Vec<Flow>) -> Vec<Flow> {
    let own = std::process::id();
    flows.retain(|flow| {
        let is_own = flow.view.caller.as_ref().is_some_and(|caller| caller.pid == own);
        !is_own && !flow.counts.is_nothing()
    });
    flows
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
