//! Toxics: what they look like to Toxiproxy's clients, and which effect of a fault each is.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::model::{
    Direction, Distribution, Effect, Rate, Step,
    effect::{MAX_AFTER, MAX_DELAY},
};

/// Attributes of each type of toxic, which are all whole numbers; what is not said is 0.
const TYPES: [(&str, &[&str]); 8] = [
    ("latency", &["latency", "jitter"]),
    ("bandwidth", &["rate"]),
    ("slow_close", &["delay"]),
    ("timeout", &["timeout"]),
    ("reset_peer", &["timeout"]),
    ("slicer", &["average_size", "size_variation", "delay"]),
    ("limit_data", &["bytes"]),
    ("noop", &[]),
];

/// Which way the bytes go that a toxic is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    Upstream,
    Downstream,
}

/// A toxic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Toxic {
    attributes: Map<String, Value>,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    stream: Stream,
    /// Share of the connections that it takes, from 0 to 1.
    toxicity: f64,
}

/// A toxic, or a change of one, as it is asked for. Unknown fields are passed over, as Toxiproxy does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    stream: String,
    toxicity: Option<f64>,
    attributes: Map<String, Value>,
}

impl Toxic {
    /// Makes one; without a name it is called by its type and stream.
    pub(super) fn new(wanted: Wanted) -> Result<Self, ApiError> {
        let stream = match wanted.stream.to_lowercase().as_str() {
            "" | "downstream" => Stream::Downstream,
            "upstream" => Stream::Upstream,
            _ => return Err(ApiError::invalid_stream()),
        };
        let found = TYPES.iter().find(|(kind, _)| *kind == wanted.kind);
        let (kind, names) = *found.ok_or_else(ApiError::invalid_type)?;
        let name = match (wanted.name.is_empty(), stream) {
            (false, _) => wanted.name.clone(),
            (true, Stream::Upstream) => format!("{kind}_upstream"),
            (true, Stream::Downstream) => format!("{kind}_downstream"),
        };
        let mut toxic = Self {
            attributes: names.iter().map(|name| ((*name).to_owned(), 0.into())).collect(),
            name,
            kind,
            stream,
            toxicity: 1.0,
        };
        toxic.change(wanted)?;
        Ok(toxic)
    }

    /// Changes attributes and toxicity; all else stays as it is.
    pub(super) fn change(&mut self, wanted: Wanted) -> Result<(), ApiError> {
        for (name, value) in &mut self.attributes {
            if let Some(new) = wanted.attributes.get(name).filter(|new| !new.is_null()) {
                let number = new.as_i64();
                *value = number
                    .ok_or_else(|| ApiError::bad_body(format_args!("{name} is {new}, not a whole number")))?
                    .into();
            }
        }
        if let Some(toxicity) = wanted.toxicity {
            self.toxicity = toxicity;
        }
        Ok(())
    }

    /// Does it hold the bytes back for as long as it is there, so that its removal has to close the connections?
    pub(super) fn closes_when_removed(&self) -> bool {
        self.kind == "timeout"
    }

    /// The effect of a fault that it is, none while its attributes say that it does nothing.
    pub(super) fn step(&self) -> Option<Step> {
        let direction = match self.stream {
            Stream::Upstream => Direction::Request,
            Stream::Downstream => Direction::Response,
        };
        let effect = self.effect(direction)?;
        Some(Step {
            effect,
            percent: (self.toxicity * 100.0).clamp(0.0, 100.0),
        })
    }

    fn effect(&self, direction: Direction) -> Option<Effect> {
        let number = |name: &str| {
            let value = self.attributes.get(name).and_then(Value::as_i64);
            value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
        };
        let time = |name: &str| Duration::from_millis(number(name)).min(MAX_DELAY);
        let effect = match self.kind {
            "latency" => Effect::Latency {
                delay: time("latency"),
                jitter: time("jitter"),
                distribution: Distribution::Uniform,
                direction,
            },
            // Kilobytes a second; none is a standstill.
            "bandwidth" => match Rate::from_bytes_per_second(number("rate").saturating_mul(1000)) {
                Some(rate) => Effect::Bandwidth { rate, direction },
                None if number("rate") == 0 => Effect::Timeout {
                    after: None,
                    direction,
                },
                None => return None,
            },
            "slow_close" => Effect::SlowClose {
                delay: time("delay"),
                direction,
            },
            "timeout" => Effect::Timeout {
                after: Some(Duration::from_millis(number("timeout")).min(MAX_AFTER))
                    .filter(|after| !after.is_zero()),
                direction,
            },
            "reset_peer" => Effect::Reset {
                after: Duration::from_millis(number("timeout")).min(MAX_AFTER),
            },
            "slicer" => {
                let size = u32::try_from(number("average_size").clamp(1, 1 << 20)).unwrap_or(1);
                let variation = u32::try_from(number("size_variation")).unwrap_or(u32::MAX);
                Effect::Slicer {
                    size,
                    variation: variation.min(size - 1),
                    delay: Duration::from_micros(number("delay")).min(MAX_DELAY),
                    direction,
                }
            }
            "limit_data" => Effect::LimitData {
                bytes: number("bytes"),
                direction,
            },
            _ => return None,
        };
        let is_nothing = match &effect {
            Effect::Latency { delay, jitter, .. } => delay.is_zero() && jitter.is_zero(),
            Effect::SlowClose { delay, .. } => delay.is_zero(),
            _ => false,
        };
        (!is_nothing).then_some(effect)
    }
}
