//! A stub: which recording answers which calls, and how; as written and as checked.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    FieldError, RawEnd, Selector,
    effect::time,
    fault::{DEFAULT_TTL, MAX_NAME, MAX_TTL},
    selector::WhenEmpty,
};

/// Largest factor of recorded waits.
const MAX_PACE: f64 = 1000.0;

/// A stub as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a stub: an object with `file`")]
#[schema(example = json!({"file": "/srv/payments.spike", "to": {"port": 8080}, "latency": "recorded", "miss": "fail"}))]
pub struct RawStub {
    /// The recording, by its absolute path on the agent's host. The client must own it, or be root.
    pub file: String,
    /// 1 to 64 letters, digits, `-`, `_` and `.`. Default: made by the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whose connections are answered. Default: everyone's.
    #[serde(default)]
    pub from: RawEnd,
    /// Connections to what are answered. Default: to the servers that are in the recording.
    #[serde(default)]
    pub to: RawEnd,
    /// `recorded`, `none`, or recorded waits times a factor, such as `2x`, at most `1000x`. Default: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2x")]
    pub latency: Option<String>,
    /// What becomes of a request that was not recorded. Default: `fail`.
    #[serde(default)]
    pub miss: OnMiss,
    /// How long it is remembered which answers were given. Default: `session`.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Headers of HTTP that a request is also found by, such as `accept`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Parts of requests that don't count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noise: Vec<NoiseRule>,
    /// Time after which it ends by itself, at most 24h. Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10m")]
    pub ttl: Option<String>,
    /// It also ends with the client that starts it; only on the Unix socket.
    #[serde(default)]
    pub attached: bool,
}

/// What becomes of a request that was not recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// The caller gets an error of the protocol that explains it
    #[default]
    Fail,
    /// The real server is asked
    Pass,
    /// The real server is asked; its answer is given to the next such request, and added to the recording
    Record,
}

/// How long it is remembered which answers were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// As long as the stub
    #[default]
    Session,
    /// As long as a connection: each begins with the first answers
    Connection,
}

/// A part of calls that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseRule {
    /// Whose words.
    pub side: RuleSide,
    /// Kind of the calls, such as `GET /users/{id}`; `*` stands for anything.
    #[serde(default = "anything")]
    pub call: String,
    /// Name of the part, such as `body.created_at`; `*` stands for anything.
    pub part: String,
}

/// Whose words a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleSide {
    /// The caller's.
    Request,
    /// The server's.
    Response,
    /// Those of both.
    Both,
}

fn anything() -> String {
    "*".to_owned()
}

/// A stub, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct StubSpec {
    /// The recording; absolute.
    pub file: PathBuf,
    /// None to have one made.
    pub name: Option<String>,
    /// Whose connections; its called end is empty when the recording says which.
    pub selector: Selector,
    /// Factor of recorded waits, from 0.
    pub pace: f64,
    /// What becomes of a request that was not recorded.
    pub on_miss: OnMiss,
    /// How long it is remembered which answers were given.
    pub lifetime: Lifetime,
    /// In small letters.
    pub headers: Vec<String>,
    /// Parts that don't count.
    pub noise: Vec<NoiseRule>,
    /// Above 0, at most 24 h.
    pub ttl: Duration,
}

impl TryFrom<&RawStub> for StubSpec {
    type Error = FieldError;

    fn try_from(raw: &RawStub) -> Result<Self, FieldError> {
        let file = PathBuf::from(&raw.file);
        if !file.is_absolute() {
            return Err(FieldError::new(
                "file",
                format_args!("`{}` is not an absolute path", raw.file),
            ));
        }
        if let Some(name) = &raw.name {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
                let message = "must be 1 to 64 letters, digits, `-`, `_` and `.`";
                return Err(FieldError::new("name", message));
            }
        }
        if let Some(rule) = raw.noise.iter().find(|rule| rule.part.is_empty()) {
            let message = format!("a rule for `{}` names no part", rule.call);
            return Err(FieldError::new("noise", message));
        }
        let ttl = raw
            .ttl
            .as_deref()
            .map(|ttl| time("ttl", ttl, MAX_TTL))
            .transpose()?;
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(FieldError::new("ttl", "must be above 0"));
        }
        Ok(Self {
            file,
            name: raw.name.clone(),
            selector: Selector::from_raw(&raw.from, &raw.to, false, WhenEmpty::MeansAll)?,
            pace: pace(raw.latency.as_deref().unwrap_or("none"))?,
            on_miss: raw.miss,
            lifetime: raw.lifetime,
            headers: raw.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            noise: raw.noise.clone(),
            ttl: ttl.unwrap_or(DEFAULT_TTL),
        })
    }
}

/// Reads the factor of recorded waits.
fn pace(text: &str) -> Result<f64, FieldError> {
    let factor = match text {
        "none" => Some(0.0),
        "recorded" => Some(1.0),
        text => text.strip_suffix('x').and_then(|number| number.parse().ok()),
    };
    factor
        .filter(|factor| (0.0..=MAX_PACE).contains(factor))
        .ok_or_else(|| {
            let message =
                format!("`{text}` is neither `recorded` nor `none` nor a factor up to 1000x, such as 2x");
            FieldError::new("latency", message)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<StubSpec, FieldError> {
        StubSpec::try_from(&serde_json::from_str::<RawStub>(text).unwrap())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let spec = check(r#"{"file":"/a","headers":["Accept"]}"#).unwrap();
        assert_eq!(
            (spec.pace, spec.on_miss, spec.ttl),
            (0.0, OnMiss::Fail, DEFAULT_TTL)
        );
        assert!(spec.selector.is_empty() && spec.headers == ["accept"]);
        for (latency, factor) in [("recorded", 1.0), ("2x", 2.0), ("0.5x", 0.5)] {
            let spec = check(&format!(r#"{{"file":"/a","latency":"{latency}"}}"#)).unwrap();
            assert_eq!(spec.pace, factor);
        }
    }

    #[test]
    fn the_wrong_field_is_named() {
        for (text, field) in [
            (r#"{"file":"a"}"#, "file"),
            (r#"{"file":"/a","name":"x y"}"#, "name"),
            (r#"{"file":"/a","latency":"-1x"}"#, "latency"),
            (r#"{"file":"/a","latency":"NaNx"}"#, "latency"),
            (r#"{"file":"/a","latency":"fast"}"#, "latency"),
            (r#"{"file":"/a","ttl":"25h"}"#, "ttl"),
            (r#"{"file":"/a","to":{"port":0}}"#, "to.port"),
            (r#"{"file":"/a","noise":[{"side":"both","part":""}]}"#, "noise"),
        ] {
            assert_eq!(check(text).unwrap_err().field, field, "{text}");
        }
        assert!(serde_json::from_str::<RawStub>(r#"{"file":"/a","tо":{}}"#).is_err());
    }
}
