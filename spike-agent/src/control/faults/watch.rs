//! Ends faults by themselves: when their time is over, and when calls go worse than they may.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::Control;
use crate::{
    fault::abort::Watched,
    model::view::{Actor, AuditEvent},
};

/// How often the edges of faults that may abort are looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Control {
    /// Ends faults when it is time; runs for as long as the agent does.
    pub async fn watch_faults(self) {
        let agent = self.by(Actor::by("agent"));
        tokio::join!(agent.expire(), agent.abort());
    }

    async fn expire(&self) {
        let mut faults_rx = self.book.subscribe();
        loop {
            let faults = faults_rx.borrow_and_update().clone();
            let next = faults.iter().map(|armed| armed.deadline).min();
            drop(faults);
            let deadline_passes = async {
                match next {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = deadline_passes => {
                    let now = tokio::time::Instant::now();
                    if let Err(error) = self.remove_where(AuditEvent::Expired, |armed| armed.deadline <= now).await {
                        tracing::warn!("end the faults whose time is over: {error}");
                    }
                }
                changed = faults_rx.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn abort(&self) {
        let mut watched: HashMap<u64, Watched> = HashMap::new();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let faults = self.book.list();
            watched.retain(|id, _| faults.iter().any(|armed| armed.id == *id));
            for armed in faults.iter() {
                let Some(abort) = &armed.fault.abort_when else {
                    continue;
                };
                let edges = abort.edges.as_ref().unwrap_or(&armed.fault.selector);
                let tally = match self.planes.tally(edges) {
                    Ok(tally) => tally,
                    Err(error) => {
                        tracing::warn!(
                            fault = armed.fault.name,
                            "look at the edges of a fault: {error:#}"
                        );
                        continue;
                    }
                };
                let looks = watched.entry(armed.id).or_default();
                let Some(why) = looks.look(abort, Instant::now(), tally) else {
                    continue;
                };
                tracing::warn!(fault = armed.fault.name, "fault aborted: {why}");
                let entry = self.entry(armed, AuditEvent::Aborted, Some(why));
                if self.book.remove_where(|other| other.id == armed.id).is_empty() {
                    continue;
                }
                self.write(&entry);
                if let Err(error) = self.planes.settle().await {
                    tracing::warn!("take the fault out of force: {error:#}");
                }
            }
        }
    }
}
