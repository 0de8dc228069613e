//! The last decoded calls, for what counts alone do not tell: which call caused which.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::model::edge::MOST_EDGES;

/// Calls that are kept: some 3 MB.
const CALLS: usize = 32_768;
/// Distinct requests whose names are kept; with more, all are forgotten and learnt again.
const NAMES: usize = 8_192;

/// A decoded call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentCall {
    /// Number of its edge.
    pub edge: u64,
    /// First byte of the request, nanoseconds of the hooks' clock.
    pub start_ns: u64,
    /// Last byte of the call.
    pub end_ns: u64,
    /// Operation and target, such as `GET /users/{id}`.
    pub what: Arc<str>,
    /// Whether it failed.
    pub failed: bool,
    /// The trace that it is part of.
    pub trace: Option<u128>,
}

/// What calls have told of their edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What sort of credentials were sent in clear text, such as `HTTP Basic`.
    pub credentials: Option<&'static str>,
    /// When the server's certificate expires, in seconds since 1970.
    pub certificate_ends: Option<i64>,
}

/// The last calls, and what all have told.
#[derive(Debug, Default)]
pub struct Recent {
    calls: VecDeque<RecentCall>,
    names: HashSet<Arc<str>>,
    /// Where a name is put together.
    text: String,
    facts: BTreeMap<u64, Facts>,
}

impl Recent {
    /// Adds a call, in place of the oldest when there is no more room.
    pub fn add(&mut self, call: RecentCall) {
        if self.calls.len() == CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// A request's name: the same text is kept once.
    pub fn name(&mut self, operation: &str, target: &str) -> Arc<str> {
        self.text.clear();
        self.text.push_str(operation);
        if !target.is_empty() {
            self.text.push(' ');
            self.text.push_str(target);
        }
        if let Some(known) = self.names.get(self.text.as_str()) {
            return Arc::clone(known);
        }
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        let name: Arc<str> = self.text.as_str().into();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// Notes what a call told of its edge.
    pub fn learn(&mut self, edge: u64, facts: &Facts) {
        if self.facts.len() >= MOST_EDGES && !self.facts.contains_key(&edge) {
            return;
        }
        let known = self.facts.entry(edge).or_default();
        known.credentials = facts.credentials.or(known.credentials);
        known.certificate_ends = facts.certificate_ends.or(known.certificate_ends);
    }

    /// The calls that lie within a stretch of the hooks' clock, in the order in which they ended.
    pub fn between(&self, from_ns: u64, to_ns: u64) -> Vec<RecentCall> {
        let within = |call: &&RecentCall| call.start_ns >= from_ns && call.end_ns <= to_ns;
        self.calls.iter().filter(within).cloned().collect()
    }

    /// What calls have told of their edges.
    pub fn facts(&self) -> BTreeMap<u64, Facts> {
        self.facts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_calls_are_kept_and_facts_stay() {
        let mut recent = Recent::default();
        let what = recent.name("GET", "/");
        assert_eq!((&*what, &*recent.name("PING", "")), ("GET /", "PING"));
        assert!(Arc::ptr_eq(&what, &recent.name("GET", "/")));
        for number in 0..CALLS as u64 + 10 {
            recent.add(RecentCall {
                edge: 1,
                start_ns: number,
                end_ns: number + 5,
                what: Arc::clone(&what),
                failed: false,
                trace: None,
            });
        }
        let all = recent.between(0, u64::MAX);
        assert_eq!((all.len(), all[0].start_ns), (CALLS, 10));
        assert_eq!(recent.between(100, 110).len(), 6);
        let facts = |credentials, certificate_ends| Facts {
            credentials,
            certificate_ends,
        };
        recent.learn(1, &facts(Some("HTTP Basic"), None));
        recent.learn(1, &facts(None, Some(5)));
        assert_eq!(recent.facts()[&1], facts(Some("HTTP Basic"), Some(5)));
    }
}
