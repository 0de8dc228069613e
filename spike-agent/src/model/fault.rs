//! A fault: which calls, what is done to them, and its limits.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Effect, FieldError, RawEffect, RawEnd, Selector, effect::time, selector::WhenEmpty,
    units::format_duration,
};

/// How long a fault lives unless it says otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10 * 60);
/// Longest life of a fault.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest name of a fault, in bytes.
pub const MAX_NAME: usize = 64;

/// A fault as written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a fault: an object with `effect`")]
#[schema(example = json!({
    "name": "slow", "from": {"process": "curl"}, "to": {"port": 8080},
    "effect": {"type": "latency", "delay": "200ms", "jitter": "50ms", "direction": "response"},
    "percent": 50.0, "seed": 7, "ttl": "10m"
}))]
pub struct RawFault {
    /// Its name: 1 to 64 letters, digits, `.`, `_` and `-`. Default: made from the effect, such as `latency-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-zA-Z0-9._-]{1,64}$")]
    pub name: Option<String>,
    /// Who calls.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: RawEnd,
    /// What is called.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: RawEnd,
    /// Must be said when neither `from` nor `to` chooses anything: all calls of the host are meant.
    #[serde(default, skip_serializing_if = "is_default")]
    pub everything: bool,
    /// What is done to the calls.
    pub effect: RawEffect,
    /// Share of the matching connections that is affected: above 0, at most 100. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 100)]
    pub percent: Option<f64>,
    /// Start of the choices by chance, for a run that can be repeated. Default: random, and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Time until the fault removes itself: above 0, at most 24h. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10m")]
    pub ttl: Option<String>,
    /// Most connections affected at one time, from 1; more pass unharmed. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_active: Option<u32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A fault, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// 1 to [`MAX_NAME`] of `[a-zA-Z0-9._-]`; empty only until the book names it.
    pub name: String,
    /// Which calls.
    pub selector: Selector,
    /// What is done to them.
    pub effect: Effect,
    /// Share of the matching connections that is affected: above 0, at most 100.
    pub percent: f64,
    /// Start of the choices by chance.
    pub seed: u64,
    /// Time until it removes itself: above 0, at most [`MAX_TTL`].
    pub ttl: Duration,
    /// Most connections affected at one time, from 1.
    pub max_active: Option<u32>,
}

impl TryFrom<&RawFault> for Fault {
    type Error = FieldError;

    fn try_from(raw: &RawFault) -> Result<Self, FieldError> {
        let percent = raw.percent.unwrap_or(100.0);
        if !(percent > 0.0 && percent <= 100.0) {
            return Err(FieldError::new(
                "percent",
                format_args!("must be above 0 and at most 100, got {percent}"),
            ));
        }
        let ttl = raw
            .ttl
            .as_deref()
            .map(|ttl| time("ttl", ttl, MAX_TTL))
            .transpose()?
            .unwrap_or(DEFAULT_TTL);
        if ttl.is_zero() {
            return Err(FieldError::new("ttl", "must be above 0"));
        }
        if raw.max_active == Some(0) {
            return Err(FieldError::new("max_active", "must be from 1"));
        }
        let effect = Effect::try_from(&raw.effect).map_err(|error| error.within("effect"))?;
        if raw.max_active.is_some() && effect.packet().is_some() {
            let message = "counts connections, which a packet fault does not; leave it out";
            return Err(FieldError::new("max_active", message));
        }
        Ok(Self {
            name: raw
                .name
                .as_deref()
                .map(parse_name)
                .transpose()?
                .unwrap_or_default(),
            selector: Selector::from_raw(&raw.from, &raw.to, raw.everything, WhenEmpty::Refuse)?,
            effect,
            percent,
            seed: raw.seed.unwrap_or_else(random_seed),
            ttl,
            max_active: raw.max_active,
        })
    }
}

impl From<&Fault> for RawFault {
    fn from(fault: &Fault) -> Self {
        Self {
            name: (!fault.name.is_empty()).then(|| fault.name.clone()),
            from: RawEnd::from(&fault.selector.from),
            to: RawEnd::from(&fault.selector.to),
            everything: fault.selector.everything,
            effect: RawEffect::from(&fault.effect),
            percent: Some(fault.percent),
            seed: Some(fault.seed),
            ttl: Some(format_duration(fault.ttl)),
            max_active: fault.max_active,
        }
    }
}

fn parse_name(name: &str) -> Result<String, FieldError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_path_step = matches!(name, "." | "..");
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_allowed) && !is_path_step {
        return Ok(name.to_owned());
    }
    Err(FieldError::new(
        "name",
        "must be 1 to 64 letters, digits, `.`, `_` and `-`",
    ))
}

/// Short enough to be typed again, and exact in JSON readers that keep numbers as doubles.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> Result<Fault, FieldError> {
        Fault::try_from(&serde_json::from_str::<RawFault>(body).unwrap())
    }

    #[test]
    fn defaults_are_filled_in() {
        let fault = fault(r#"{"to":{"port":80},"effect":{"type":"latency","delay":"200ms"}}"#).unwrap();
        assert_eq!(
            (fault.percent, fault.ttl, fault.max_active),
            (100.0, DEFAULT_TTL, None)
        );
        let delay = Duration::from_millis(200);
        let jitter = Duration::ZERO;
        assert_eq!(
            fault.effect,
            Effect::Latency {
                delay,
                jitter,
                direction: crate::model::Direction::Response
            }
        );
        assert!(fault.seed <= u64::from(u32::MAX));
    }

    #[test]
    fn the_normalised_form_means_the_same() {
        for effect in [
            r#"{"type":"latency","delay":"1h","jitter":"3ms","direction":"both"}"#,
            r#"{"type":"reset"}"#,
            r#"{"type":"reset","after":"90s"}"#,
            r#"{"type":"timeout"}"#,
            r#"{"type":"timeout","after":"0s"}"#,
            r#"{"type":"refuse"}"#,
            r#"{"type":"bandwidth","rate":"64kbit"}"#,
            r#"{"type":"unreachable"}"#,
            r#"{"type":"connect_timeout"}"#,
            r#"{"type":"connect_timeout","after":"5s"}"#,
            r#"{"type":"connect_delay","delay":"1s","jitter":"3ms"}"#,
            r#"{"type":"udp_delay","delay":"1s","direction":"both"}"#,
            r#"{"type":"udp_drop"}"#,
            r#"{"type":"udp_duplicate"}"#,
        ] {
            let fault = fault(&format!(r#"{{"everything":true,"effect":{effect}}}"#)).unwrap();
            assert_eq!(Fault::try_from(&RawFault::from(&fault)), Ok(fault), "{effect}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (rest, field) in [
            (r#""effect":{"type":"latency","delay":"200"}"#, "effect.delay"),
            (r#""effect":{"type":"latency","delay":"0s"}"#, "effect.delay"),
            (r#""effect":{"type":"latency","delay":"61m"}"#, "effect.delay"),
            (
                r#""effect":{"type":"latency","delay":"1s","jitter":"2s"}"#,
                "effect.jitter",
            ),
            (r#""effect":{"type":"reset","after":"25h"}"#, "effect.after"),
            (
                r#""effect":{"type":"connect_timeout","after":"900ms"}"#,
                "effect.after",
            ),
            (
                r#""effect":{"type":"connect_delay","delay":"0s"}"#,
                "effect.delay",
            ),
            (r#""effect":{"type":"bandwidth","rate":"0B/s"}"#, "effect.rate"),
            (r#""effect":{"type":"refuse"},"percent":0"#, "percent"),
            (r#""effect":{"type":"refuse"},"percent":100.1"#, "percent"),
            (r#""effect":{"type":"refuse"},"percent":-5"#, "percent"),
            (r#""effect":{"type":"refuse"},"ttl":"0s""#, "ttl"),
            (r#""effect":{"type":"refuse"},"ttl":"25h""#, "ttl"),
            (r#""effect":{"type":"refuse"},"max_active":0"#, "max_active"),
            (r#""effect":{"type":"refuse"},"name":"""#, "name"),
            (r#""effect":{"type":"refuse"},"name":"a/b""#, "name"),
            (r#""effect":{"type":"refuse"},"name":"..""#, "name"),
        ] {
            let body = format!(r#"{{"to":{{"port":80}},{rest}}}"#);
            assert_eq!(fault(&body).unwrap_err().field, field, "{body}");
        }
    }
}
