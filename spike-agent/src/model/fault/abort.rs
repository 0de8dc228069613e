//! When a fault removes itself because calls go worse than its operator wants.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::is_default;
use crate::model::{
    FieldError, RawEnd, Selector,
    effect::{MAX_DELAY, share, time},
    selector::WhenEmpty,
    units::format_duration,
};

/// How long a look back is unless said.
const DEFAULT_WINDOW: Duration = Duration::from_secs(5);
/// Longest look back.
const MAX_WINDOW: Duration = Duration::from_secs(600);
/// Fewest calls within a window that say something.
const DEFAULT_CALLS: u64 = 10;

/// Removes a fault when calls go worse than this, as written; at least one of `errors` and `p99` must be said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAbortWhen {
    /// Share of calls and attempts to connect that fail, in percent: above 0, at most 100; more end the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 100)]
    pub errors: Option<f64>,
    /// Latency that 99 % of the calls stay within: above 0, at most 1h; more ends the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2s")]
    pub p99: Option<String>,
    /// How long each look back is: from 1s to 10m. Default: `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "5s")]
    pub window: Option<String>,
    /// Fewest calls within a window that are judged, from 1. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub calls: Option<u64>,
    /// Who calls on the edges that are looked at. Default, with `to`: the calls of the fault.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: RawEnd,
    /// What is called on the edges that are looked at.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: RawEnd,
}

/// When a fault removes itself, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct AbortWhen {
    /// Share of failures in percent above which the fault ends.
    pub errors: Option<f64>,
    /// Latency of the 99th percentile above which the fault ends.
    pub p99: Option<Duration>,
    /// From 1 s to [`MAX_WINDOW`].
    pub window: Duration,
    /// Fewest calls within a window that are judged, from 1.
    pub calls: u64,
    /// The edges that are looked at; `None`: those of the fault.
    pub edges: Option<Selector>,
}

impl TryFrom<&RawAbortWhen> for AbortWhen {
    type Error = FieldError;

    fn try_from(raw: &RawAbortWhen) -> Result<Self, FieldError> {
        let errors = raw.errors.map(|errors| share("errors", errors)).transpose()?;
        let p99 = raw.p99.as_deref().map(|text| time("p99", text, MAX_DELAY));
        let p99 = p99.transpose()?;
        if p99 == Some(Duration::ZERO) {
            return Err(FieldError::new("p99", "must be above 0"));
        }
        if errors.is_none() && p99.is_none() {
            return Err(FieldError::new("", "says neither `errors` nor `p99`"));
        }
        let window = raw.window.as_deref().map(|text| time("window", text, MAX_WINDOW));
        let window = window.transpose()?.unwrap_or(DEFAULT_WINDOW);
        if window < Duration::from_secs(1) {
            return Err(FieldError::new("window", "must be at least 1s"));
        }
        if raw.calls == Some(0) {
            return Err(FieldError::new("calls", "must be from 1"));
        }
        let edges = Selector::from_raw(&raw.from, &raw.to, false, WhenEmpty::MeansAll)?;
        Ok(Self {
            errors,
            p99,
            window,
            calls: raw.calls.unwrap_or(DEFAULT_CALLS),
            edges: (!edges.is_empty()).then_some(edges),
        })
    }
}

impl From<&AbortWhen> for RawAbortWhen {
    fn from(abort: &AbortWhen) -> Self {
        let edges = abort.edges.as_ref();
        Self {
            errors: abort.errors,
            p99: abort.p99.map(format_duration),
            window: Some(format_duration(abort.window)),
            calls: Some(abort.calls),
            from: edges.map(|edges| RawEnd::from(&edges.from)).unwrap_or_default(),
            to: edges.map(|edges| RawEnd::from(&edges.to)).unwrap_or_default(),
        }
    }
}
