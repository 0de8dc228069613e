//! Cuts counts that only grow into steps: what happened since the last time.

use std::collections::HashMap;

use super::{Counts, Flow, Step};
use crate::model::view::EdgeView;

/// How often, in milliseconds, the history is told again who an edge is between.
const TELL_AGAIN_MS: i64 = 3_600_000;

/// Remembers what was there at the end of the last step.
#[derive(Debug)]
pub struct Recorder {
    last_ms: i64,
    before: HashMap<u64, Counts>,
    told: HashMap<u64, (EdgeView, i64)>,
}

impl Recorder {
    /// Begins at a moment, when nothing was counted.
    pub fn new(now_ms: i64) -> Self {
        Self {
            last_ms: now_ms,
            before: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// What happened since the end of the last step, which goes on.
    pub fn so_far(&self, flows: &[Flow], now_ms: i64) -> Step {
        let nothing = Counts::default();
        let edges = flows.iter().map(|flow| {
            let before = self.before.get(&flow.id).unwrap_or(&nothing);
            (flow.id, flow.counts.since(before))
        });
        Step {
            from_ms: self.last_ms,
            to_ms: now_ms.max(self.last_ms + 1),
            edges: edges.filter(|(_, counts)| !counts.is_nothing()).collect(),
        }
    }

    /// Ends the step; also tells of each edge in it that is new, has changed or was not told for an hour.
    pub fn end(&mut self, flows: Vec<Flow>, now_ms: i64) -> (Step, Vec<(u64, EdgeView)>) {
        let step = self.so_far(&flows, now_ms);
        let active: std::collections::HashSet<u64> = step.edges.iter().map(|(id, _)| *id).collect();
        let mut news = Vec::new();
        let mut told = HashMap::with_capacity(flows.len());
        for flow in &flows {
            let identity = identity(&flow.view);
            let entry = match self.told.remove(&flow.id) {
                Some(entry) if entry.0 == identity && now_ms < entry.1 + TELL_AGAIN_MS => Some(entry),
                other if !active.contains(&flow.id) => other,
                _ => {
                    news.push((flow.id, identity.clone()));
                    Some((identity, now_ms))
                }
            };
            told.extend(entry.map(|entry| (flow.id, entry)));
        }
        self.told = told;
        self.before = flows.into_iter().map(|flow| (flow.id, flow.counts)).collect();
        self.last_ms = step.to_ms;
        (step, news)
    }
}

/// An edge without its counts.
fn identity(view: &EdgeView) -> EdgeView {
    EdgeView {
        id: view.id.clone(),
        caller: view.caller.clone(),
        peer: view.peer.clone(),
        destination: view.destination.clone(),
        role: view.role,
        protocol: view.protocol.clone(),
        ..EdgeView::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(id: u64, calls: u64, protocol: &str) -> Flow {
        Flow {
            id,
            view: EdgeView {
                id: format!("{id:016x}"),
                protocol: protocol.to_owned(),
                calls,
                ..EdgeView::default()
            },
            counts: Counts {
                calls,
                ..Counts::default()
            },
        }
    }

    #[test]
    fn steps_have_what_happened_in_them() {
        let mut recorder = Recorder::new(100);
        let calls = |step: &Step| -> Vec<(u64, u64)> {
            step.edges
                .iter()
                .map(|(id, counts)| (*id, counts.calls))
                .collect()
        };
        let (step, news) = recorder.end(vec![flow(1, 5, "tcp"), flow(2, 0, "tcp")], 200);
        assert_eq!((step.from_ms, step.to_ms, calls(&step)), (100, 200, vec![(1, 5)]));
        assert_eq!(news.len(), 1);
        assert_eq!((news[0].0, news[0].1.calls), (1, 0), "who, not how much");

        assert_eq!(calls(&recorder.so_far(&[flow(1, 9, "tcp")], 250)), [(1, 4)]);
        let (step, news) = recorder.end(vec![flow(1, 9, "tcp"), flow(2, 1, "tcp")], 300);
        assert_eq!((step.from_ms, calls(&step)), (200, vec![(1, 4), (2, 1)]));
        assert_eq!(news.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2]);

        let (_, news) = recorder.end(vec![flow(1, 10, "http"), flow(2, 1, "tcp")], 400);
        assert_eq!(
            news.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [1],
            "it has changed"
        );
        let (step, news) = recorder.end(vec![flow(1, 11, "http")], 400 + TELL_AGAIN_MS);
        assert_eq!((calls(&step), news.len()), (vec![(1, 1)], 1));
        // The clock went back.
        let (step, _) = recorder.end(vec![flow(1, 12, "http")], 0);
        assert!(step.from_ms < step.to_ms);
    }
}
