//! What a capture of packets records, as written and as checked.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FieldError, RawEnd, Selector, effect::time, selector::WhenEmpty, units::format_duration};

/// Bytes kept of each packet unless the capture says otherwise, and the most that may be asked for.
pub const MAX_SNAPLEN: u32 = 262_144;
/// Fewest bytes kept of each packet: room for the headers.
pub const MIN_SNAPLEN: u32 = 64;
/// Longest capture.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// A capture as written. Without `from` and `to` every packet of the interfaces is taken.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a capture: an object, {} for all packets")]
#[schema(example = json!({"from": {"process": "curl"}, "to": {"port": 8080}, "interfaces": ["lo"], "duration": "10s"}))]
pub struct RawCapture {
    /// Who opened the connection.
    #[serde(default)]
    pub from: RawEnd,
    /// Where it was opened to.
    #[serde(default)]
    pub to: RawEnd,
    /// May be said when neither `from` nor `to` chooses anything; it changes nothing.
    #[serde(default)]
    pub everything: bool,
    /// Names of the interfaces. Default: every interface that is up.
    #[serde(default)]
    #[schema(example = json!(["lo", "eth0"]))]
    pub interfaces: Vec<String>,
    /// Bytes kept of each packet, 64 to 262144. Default: 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 64, maximum = 262_144)]
    pub snaplen: Option<u32>,
    /// Packets after which the capture ends, from 1. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub count: Option<u64>,
    /// Time after which the capture ends, above 0 and at most 24h. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10s")]
    pub duration: Option<String>,
}

/// A capture, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptureSpec {
    /// Which connections; an empty selector means every packet.
    pub selector: Selector,
    /// Interface names without repetition; none means every interface that is up.
    pub interfaces: Vec<String>,
    /// Bytes kept of each packet, [`MIN_SNAPLEN`] to [`MAX_SNAPLEN`].
    pub snaplen: u32,
    /// Packets after which the capture ends, from 1.
    pub count: Option<u64>,
    /// Time after which the capture ends: above 0, at most [`MAX_DURATION`].
    pub duration: Option<Duration>,
}

impl TryFrom<&RawCapture> for CaptureSpec {
    type Error = FieldError;

    fn try_from(raw: &RawCapture) -> Result<Self, FieldError> {
        let snaplen = raw.snaplen.unwrap_or(MAX_SNAPLEN);
        if !(MIN_SNAPLEN..=MAX_SNAPLEN).contains(&snaplen) {
            let message = format_args!("must be from {MIN_SNAPLEN} to {MAX_SNAPLEN} bytes, got {snaplen}");
            return Err(FieldError::new("snaplen", message));
        }
        if raw.count == Some(0) {
            return Err(FieldError::new("count", "must be from 1"));
        }
        let duration = raw
            .duration
            .as_deref()
            .map(|text| time("duration", text, MAX_DURATION))
            .transpose()?;
        if duration.is_some_and(|duration| duration.is_zero()) {
            return Err(FieldError::new("duration", "must be above 0"));
        }
        let mut seen = BTreeSet::new();
        for (index, name) in raw.interfaces.iter().enumerate() {
            let field = format!("interfaces[{index}]");
            if !is_interface_name(name) {
                let message = format_args!(
                    "`{name}` is not the name of an interface: 1 to 15 bytes without `/` or space"
                );
                return Err(FieldError::new(field, message));
            }
            if !seen.insert(name) {
                return Err(FieldError::new(field, format_args!("`{name}` is named twice")));
            }
        }
        Ok(Self {
            selector: Selector::from_raw(&raw.from, &raw.to, raw.everything, WhenEmpty::MeansAll)?,
            interfaces: raw.interfaces.clone(),
            snaplen,
            count: raw.count,
            duration,
        })
    }
}

impl From<&CaptureSpec> for RawCapture {
    fn from(spec: &CaptureSpec) -> Self {
        Self {
            from: RawEnd::from(&spec.selector.from),
            to: RawEnd::from(&spec.selector.to),
            everything: spec.selector.everything,
            interfaces: spec.interfaces.clone(),
            snaplen: Some(spec.snaplen),
            count: spec.count,
            duration: spec.duration.map(format_duration),
        }
    }
}

/// The kernel's own rule for names of interfaces.
pub(super) fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name
            .chars()
            .any(|c| matches!(c, '/' | ':' | '\0') || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(body: &str) -> Result<CaptureSpec, FieldError> {
        CaptureSpec::try_from(&serde_json::from_str::<RawCapture>(body).unwrap())
    }

    #[test]
    fn an_empty_capture_takes_everything() {
        let spec = capture("{}").unwrap();
        assert!(spec.selector.is_empty() && spec.interfaces.is_empty());
        assert_eq!(
            (spec.snaplen, spec.count, spec.duration),
            (MAX_SNAPLEN, None, None)
        );
    }

    #[test]
    fn the_normalised_form_means_the_same() {
        let body = r#"{"from":{"pid":1},"to":{"port":"1-9"},"interfaces":["lo"],"snaplen":64,"count":1,"duration":"1s"}"#;
        let spec = capture(body).unwrap();
        assert_eq!(CaptureSpec::try_from(&RawCapture::from(&spec)), Ok(spec));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (body, field) in [
            (r#"{"snaplen":63}"#, "snaplen"),
            (r#"{"snaplen":262145}"#, "snaplen"),
            (r#"{"count":0}"#, "count"),
            (r#"{"duration":"0s"}"#, "duration"),
            (r#"{"duration":"5"}"#, "duration"),
            (r#"{"interfaces":["lo","lo"]}"#, "interfaces[1]"),
            (r#"{"interfaces":[""]}"#, "interfaces[0]"),
            (r#"{"interfaces":["a/b"]}"#, "interfaces[0]"),
            (r#"{"to":{"pid":0}}"#, "to.pid"),
        ] {
            assert_eq!(capture(body).unwrap_err().field, field, "{body}");
        }
    }
}
