//! Cuts counts that only grow into steps: what happened since the last time.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{Counts, Flow, Step};
use crate::model::{edge::Counted, view::EdgeView};

/// How often, in milliseconds, the history is told again who an edge is between.
const TELL_AGAIN_MS: i64 = 3_600_000;

/// Remembers what was there at the end of the last step.
#[derive(Debug)]
pub struct Recorder {
    last_ms: i64,
    edges: HashMap<u64, Last>,
}

/// What was last told of an edge.
#[derive(Debug)]
struct Last {
    /// As it was then.
    counted: Counted,
    /// Hash of who it is between.
    identity: u64,
    /// When the history was told of that.
    told_ms: i64,
}

impl Recorder {
    /// Begins at a moment, when nothing was counted.
    pub fn new(now_ms: i64) -> Self {
        Self {
            last_ms: now_ms,
            edges: HashMap::new(),
        }
    }

    /// Is anything of an edge counted that was not at the end of the last step, or anything open? Only those need to be
    /// given to [`end`](Self::end).
    pub fn is_changed(&self, id: u64, counted: &Counted) -> bool {
        let last = self.edges.get(&id);
        last.is_none_or(|last| last.counted != *counted) || counted.stats.has_open()
    }

    /// What happened since the end of the last step, which goes on.
    pub fn so_far(&self, flows: &[Flow], now_ms: i64) -> Step {
        let edges = flows.iter().map(|flow| {
            let before = self.edges.get(&flow.id).map(|last| {
                let Counted { stats, decoded } = &last.counted;
                Counts::new(&stats.full(), decoded.as_ref())
            });
            (flow.id, flow.counts.since(&before.unwrap_or_default()))
        });
        Step {
            from_ms: self.last_ms,
            to_ms: now_ms.max(self.last_ms + 1),
            edges: edges.filter(|(_, counts)| !counts.is_nothing()).collect(),
        }
    }

    /// Ends the step; also tells of each edge in it that is new, has changed or was not told for an hour.
    pub fn end(&mut self, flows: &[Flow], now_ms: i64) -> (Step, Vec<(u64, EdgeView)>) {
        let step = self.so_far(flows, now_ms);
        let mut of_step = step.edges.iter().map(|(id, _)| *id).peekable();
        let mut news = Vec::new();
        for flow in flows {
            // In the same order.
            let is_in_step = of_step.next_if_eq(&flow.id).is_some();
            let identity = hash(&flow.view);
            let (is_known, told_ms) = match self.edges.get(&flow.id) {
                Some(last) => (last.identity == identity, last.told_ms),
                None if is_in_step => (false, now_ms),
                None => continue,
            };
            let is_news = !is_known || (is_in_step && now_ms >= told_ms + TELL_AGAIN_MS);
            if is_news {
                news.push((flow.id, identity_of(&flow.view)));
            }
            let last = Last {
                counted: flow.counted.clone(),
                identity,
                told_ms: if is_news { now_ms } else { told_ms },
            };
            self.edges.insert(flow.id, last);
        }
        self.last_ms = step.to_ms;
        (step, news)
    }
}

/// An edge without its counts.
fn identity_of(view: &EdgeView) -> EdgeView {
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

/// Of an edge without its counts.
fn hash(view: &EdgeView) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&view.caller, &view.peer, &view.destination).hash(&mut hasher);
    (view.role, &view.protocol).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use spike_common::edge::EdgeStats;

    use super::*;
    use crate::model::edge::{Compact, Decoded};

    fn flow(id: u64, calls: u64, protocol: &str) -> Flow {
        let stats = EdgeStats {
            calls,
            ..EdgeStats::default()
        };
        Flow {
            id,
            view: EdgeView {
                id: format!("{id:016x}"),
                protocol: protocol.to_owned(),
                calls,
                ..EdgeView::default()
            },
            counts: Counts::new(&stats, None),
            counted: Counted {
                stats: Compact::from(&stats),
                decoded: None,
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
        let (step, news) = recorder.end(&[flow(1, 5, "tcp"), flow(2, 0, "tcp")], 200);
        assert_eq!((step.from_ms, step.to_ms, calls(&step)), (100, 200, vec![(1, 5)]));
        assert_eq!(news.len(), 1);
        assert_eq!((news[0].0, news[0].1.calls), (1, 0), "who, not how much");

        assert_eq!(calls(&recorder.so_far(&[flow(1, 9, "tcp")], 250)), [(1, 4)]);
        let (step, news) = recorder.end(&[flow(1, 9, "tcp"), flow(2, 1, "tcp")], 300);
        assert_eq!((step.from_ms, calls(&step)), (200, vec![(1, 4), (2, 1)]));
        assert_eq!(news.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2]);

        let (_, news) = recorder.end(&[flow(1, 10, "http"), flow(2, 1, "tcp")], 400);
        assert_eq!(
            news.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [1],
            "it has changed"
        );
        let (step, news) = recorder.end(&[flow(1, 11, "http")], 400 + TELL_AGAIN_MS);
        assert_eq!((calls(&step), news.len()), (vec![(1, 1)], 1));
        // The clock went back.
        let (step, _) = recorder.end(&[flow(1, 12, "http")], 0);
        assert!(step.from_ms < step.to_ms);
    }

    #[test]
    fn what_decoding_finds_out_late_is_in_the_next_step() {
        let mut recorder = Recorder::new(100);
        let before = flow(1, 5, "tcp");
        assert!(recorder.is_changed(1, &before.counted));
        recorder.end(std::slice::from_ref(&before), 200);
        assert!(!recorder.is_changed(1, &before.counted));

        let mut after = flow(1, 5, "http");
        let decoded = Decoded {
            calls: 5,
            ..Decoded::default()
        };
        after.counted.decoded = Some(decoded);
        after.counts = Counts::new(&after.counted.stats.full(), Some(&decoded));
        assert!(recorder.is_changed(1, &after.counted));
        let (step, news) = recorder.end(std::slice::from_ref(&after), 300);
        let decoded = step.edges[0].1.decoded.map(|decoded| decoded.calls);
        assert_eq!((step.edges[0].1.calls, decoded), (0, Some(5)));
        assert_eq!(news[0].1.protocol, "http");
        assert!(!recorder.is_changed(1, &after.counted));
    }

    #[test]
    fn an_edge_with_open_connections_is_in_every_step() {
        let recorder = Recorder::new(100);
        let of = |opened, closed| Counted {
            stats: Compact::from(&EdgeStats {
                opened,
                closed,
                ..EdgeStats::default()
            }),
            decoded: None,
        };
        assert!(of(2, 1).stats.has_open() && recorder.is_changed(1, &of(2, 1)));
        assert!(!of(2, 2).stats.has_open());
    }
}
