//! What came of requests that were sent again, for people and for programs.

mod chart;
mod html;
mod junit;
mod text;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

pub use html::html;
pub use junit::junit;
pub use text::text;

use super::{Options, Outcome};

/// What came of all requests.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where they were sent.
    pub target: String,
    /// How many were sent, or should have been.
    pub requests: usize,
    /// Answered as recorded.
    pub same: usize,
    /// Answered, but otherwise.
    pub different: usize,
    /// Not answered.
    pub failed: usize,
    /// From the start to the last answer, in milliseconds.
    pub took_ms: f64,
    /// How late requests were sent, in milliseconds.
    pub late_ms: Quantiles,
    /// Time to the first byte of the answers, in milliseconds.
    pub latency_ms: Quantiles,
    /// The same in the recording.
    pub recorded_latency_ms: Quantiles,
    /// By kind of call.
    pub kinds: Vec<Kind>,
    /// All requests, in recorded order.
    pub calls: Vec<Call>,
    /// What of the recording was not sent, and why.
    pub left_out: Vec<String>,
}

/// Quantiles of times in milliseconds; 0 where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half of them are at most so long.
    pub p50: f64,
    /// Nine in ten.
    pub p90: f64,
    /// Ninety-nine in a hundred.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// The calls of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Kind {
    /// `GET /users/{id}`.
    pub kind: String,
    /// How many.
    pub requests: usize,
    /// Of them, answered otherwise or not.
    pub wrong: usize,
    /// Time to the first byte, in milliseconds.
    pub latency_ms: Quantiles,
    /// The same in the recording.
    pub recorded_latency_ms: Quantiles,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// From 0, in recorded order.
    pub number: usize,
    /// The call.
    pub call: String,
    /// Of its kind.
    pub kind: String,
    /// When it was to be sent, in milliseconds after the first.
    pub due_ms: f64,
    /// How much later it was sent.
    pub late_ms: f64,
    /// Time to the first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// The same in the recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_latency_ms: Option<f64>,
    /// Where the answer differs, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        mut outcomes: Vec<Outcome>,
        left_out: Vec<String>,
        took: Duration,
    ) -> Self {
        outcomes.sort_by_key(|outcome| outcome.number);
        let mut kinds = BTreeMap::<&str, Vec<&Outcome>>::new();
        for outcome in &outcomes {
            kinds.entry(&outcome.kind).or_default().push(outcome);
        }
        let kinds = kinds.into_iter().map(|(kind, all)| Kind {
            kind: kind.to_owned(),
            requests: all.len(),
            wrong: all.iter().filter(|outcome| !outcome.is_same()).count(),
            latency_ms: Quantiles::of(all.iter().filter_map(|outcome| outcome.latency)),
            recorded_latency_ms: Quantiles::of(all.iter().filter_map(|outcome| outcome.recorded)),
        });
        Self {
            target: options.target.to_string(),
            requests: outcomes.len(),
            same: outcomes.iter().filter(|outcome| outcome.is_same()).count(),
            different: outcomes
                .iter()
                .filter(|outcome| !outcome.differences.is_empty())
                .count(),
            failed: outcomes.iter().filter(|outcome| outcome.error.is_some()).count(),
            took_ms: millis(took),
            late_ms: Quantiles::of(outcomes.iter().map(|outcome| outcome.late)),
            latency_ms: Quantiles::of(outcomes.iter().filter_map(|outcome| outcome.latency)),
            recorded_latency_ms: Quantiles::of(outcomes.iter().filter_map(|outcome| outcome.recorded)),
            kinds: kinds.collect(),
            calls: outcomes.iter().map(Call::new).collect(),
            left_out,
        }
    }

    /// Whether every answer was as recorded.
    pub fn is_same(&self) -> bool {
        self.same == self.requests
    }

    /// The calls that were answered otherwise or not.
    pub fn wrong(&self) -> impl Iterator<Item = &Call> {
        self.calls
            .iter()
            .filter(|call| call.error.is_some() || !call.differences.is_empty())
    }
}

impl Call {
    fn new(outcome: &Outcome) -> Self {
        Self {
            number: outcome.number,
            call: outcome.label.clone(),
            kind: outcome.kind.clone(),
            due_ms: millis(outcome.due),
            late_ms: millis(outcome.late),
            latency_ms: outcome.latency.map(millis),
            recorded_latency_ms: outcome.recorded.map(millis),
            differences: outcome.differences.iter().map(ToString::to_string).collect(),
            error: outcome.error.clone(),
        }
    }
}

impl Quantiles {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort();
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            let found = times.get(rank.saturating_sub(1));
            found.copied().map_or(0.0, millis)
        };
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

fn millis(time: Duration) -> f64 {
    // Microseconds are enough, and shorter to read.
    (time.as_secs_f64() * 1e6).round() / 1e3
}
