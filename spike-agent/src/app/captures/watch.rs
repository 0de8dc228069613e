//! Looks at errors and latencies of the chosen calls for captures that wait for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use spike_common::edge::EdgeStats;
use spike_common::histogram::{BUCKETS, bounds};
use tokio::sync::watch;

use super::{Captures, Session};
use crate::model::CaptureSpec;
use crate::model::capture::{Quantile, Trigger};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks that make up what is judged: 10 s.
const LOOKS: usize = 20;

/// What was counted for the chosen calls up to a moment.
#[derive(Clone)]
struct Counted {
    /// Calls that were decoded, and attempts to connect that failed.
    calls: u64,
    /// Of these, those that failed.
    failed: u64,
    latency: [u64; BUCKETS],
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            calls: 0,
            failed: 0,
            latency: [0; BUCKETS],
        }
    }
}

impl Captures {
    /// Tells `trigger` when something happens that the session waits for, but for resets, which it sees itself.
    pub(super) fn watch(
        self: &Arc<Self>,
        session: &Arc<Session>,
        spec: &CaptureSpec,
        trigger: &watch::Sender<Option<String>>,
    ) {
        let on = spec.wait.as_ref().map(|wait| wait.on.clone()).unwrap_or_default();
        let on: Vec<Trigger> = on.into_iter().filter(|on| *on != Trigger::Reset).collect();
        if on.is_empty() {
            return;
        }
        let (captures, session, trigger) = (Arc::downgrade(self), Arc::clone(session), trigger.clone());
        tokio::spawn(async move {
            let mut seen: VecDeque<Counted> = VecDeque::new();
            loop {
                let Some(captures) = captures.upgrade() else {
                    return;
                };
                if let Some(now) = captures.counted(&session) {
                    let before = seen.front().cloned().unwrap_or_else(|| now.clone());
                    let what = on.iter().find(|on| now.since(&before).is(on));
                    if let Some(what) = what {
                        trigger.send_replace(Some(what.to_string()));
                        return;
                    }
                    seen.push_back(now);
                    if seen.len() > LOOKS {
                        seen.pop_front();
                    }
                }
                drop(captures);
                tokio::select! {
                    () = session.stop.cancelled() => return,
                    // Also when the capture has ended by itself.
                    () = session.packets_tx.closed() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
    }

    /// What has been counted for the calls that a session chooses.
    fn counted(&self, session: &Session) -> Option<Counted> {
        let mut edges = self.parts.kernel.edges().ok()?;
        edges.retain(|sample| {
            let task = &sample.edge.task;
            let known = &self.parts.known;
            let (to, netns) = (&session.selector.to, self.parts.kernel.own_netns());
            let address = sample.edge.destination.socket_addr();
            let called = known.describe(to, netns, task, address, sample.edge.transport);
            session.selector.matches(&known.process(task), &called)
        });
        let decoded = self.calls.get().map_or_else(HashMap::new, |calls| {
            calls.decoded(edges.iter().map(|sample| sample.id))
        });
        let mut counted = Counted::default();
        for sample in &edges {
            counted.add(&sample.stats.full());
        }
        for decoded in decoded.values() {
            counted.calls += decoded.calls;
            counted.failed += decoded.failed;
        }
        Some(counted)
    }
}

impl Counted {
    fn add(&mut self, stats: &EdgeStats) {
        let failed: u64 = stats.failed.iter().sum();
        self.calls += failed;
        self.failed += failed;
        for (sum, count) in self.latency.iter_mut().zip(&stats.latency) {
            *sum += count;
        }
    }

    /// What was counted since.
    fn since(&self, before: &Self) -> Self {
        let mut counted = self.clone();
        counted.calls = self.calls.saturating_sub(before.calls);
        counted.failed = self.failed.saturating_sub(before.failed);
        for (now, before) in counted.latency.iter_mut().zip(&before.latency) {
            *now = now.saturating_sub(*before);
        }
        counted
    }

    fn is(&self, trigger: &Trigger) -> bool {
        match trigger {
            Trigger::Reset => false,
            Trigger::Errors(percent) => {
                self.failed > 0 && self.failed as f64 * 100.0 > self.calls as f64 * percent
            }
            Trigger::Latency(quantile, limit) => {
                let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
                self.quantile(*quantile).is_some_and(|latency| latency > limit)
            }
        }
    }

    /// A quantile in nanoseconds, within 3.2 %; none without calls.
    fn quantile(&self, quantile: Quantile) -> Option<u64> {
        let count: u64 = self.latency.iter().sum();
        let rank = (u128::from(count) * u128::from(quantile.percent())).div_ceil(100);
        let mut below = 0;
        let bucket = self.latency.iter().position(|&count| {
            below += u128::from(count);
            count > 0 && below >= rank
        })?;
        let (low, high) = bounds(bucket);
        Some(if bucket == BUCKETS - 1 {
            low
        } else {
            low.midpoint(high)
        })
    }
}

#[cfg(test)]
mod tests {
    use spike_common::histogram::bucket;

    use super::*;

    fn counted(calls: u64, failed: u64, latencies_ms: &[u64]) -> Counted {
        let mut counted = Counted {
            calls,
            failed,
            ..Counted::default()
        };
        for latency in latencies_ms {
            counted.latency[bucket(latency * 1_000_000) as usize] += 1;
        }
        counted
    }

    #[test]
    fn what_happened_since_is_judged() {
        let before = counted(1000, 0, &[1; 1000]);
        let is = |now: &Counted, trigger: &str| now.since(&before).is(&Trigger::parse(trigger).unwrap());
        let slow = counted(1100, 2, &[[1; 1000].as_slice(), &[1; 98], &[2000; 2]].concat());
        assert!(is(&slow, "errors>1%") && !is(&slow, "errors>2%"));
        assert!(is(&slow, "p99>1s") && !is(&slow, "p90>1s") && !is(&slow, "p99>3s"));
        assert!(
            !is(&before, "errors>0%") && !is(&before, "p50>0ms"),
            "nothing happened"
        );
    }
}
