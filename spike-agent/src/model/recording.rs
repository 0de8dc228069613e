//! What a recording records, as written and as checked.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FieldError, RawEnd, Selector, selector::WhenEmpty, units::parse_bytes};

/// A recording as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a recording: an object")]
#[schema(example = json!({"from": {"process": "shop"}, "to": {"port": 5432}, "output": "/tmp/shop.spike"}))]
pub struct RawRecording {
    /// Who opens the connections.
    #[serde(default)]
    pub from: RawEnd,
    /// Where they go to.
    #[serde(default)]
    pub to: RawEnd,
    /// Records all connections of this host, when neither `from` nor `to` chooses any.
    #[serde(default)]
    pub everything: bool,
    /// Absolute path of a file that does not exist yet. Only for root on the Unix socket, and with the token. Default: a
    /// file in the agent's own directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/tmp/shop.spike")]
    pub output: Option<String>,
    /// Of what one side says in one go no more than so much is kept, such as `1MB`; heads count. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1MB")]
    pub body_limit: Option<String>,
    /// What else is a secret: `header=NAME` and `field=NAME`, where the name may have `*`. `none` alone keeps all secrets
    /// readable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["header=x-session", "field=iban"]))]
    pub redact: Vec<String>,
    /// Connections wait while the file is behind. Else what does not fit is not recorded, and counted.
    #[serde(default)]
    pub backpressure: bool,
}

/// A recording, checked, but for its rules of redaction.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingSpec {
    /// Which connections.
    pub selector: Selector,
    /// As it was written.
    pub raw: RawRecording,
    /// In bytes.
    pub body_limit: Option<u64>,
}

impl TryFrom<&RawRecording> for RecordingSpec {
    type Error = FieldError;

    fn try_from(raw: &RawRecording) -> Result<Self, FieldError> {
        let body_limit = raw.body_limit.as_deref().map(parse_bytes).transpose();
        if raw.output.as_deref().is_some_and(|path| !path.starts_with('/')) {
            return Err(FieldError::new("output", "must be an absolute path"));
        }
        Ok(Self {
            selector: Selector::from_raw(&raw.from, &raw.to, raw.everything, WhenEmpty::Refuse)?,
            raw: raw.clone(),
            body_limit: body_limit.map_err(|message| FieldError::new("body_limit", message))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_checked() {
        let read = |text: &str| RecordingSpec::try_from(&serde_json::from_str::<RawRecording>(text).unwrap());
        let spec = read(r#"{"to":{"port":80},"body_limit":"1kB","output":"/tmp/a"}"#).unwrap();
        assert_eq!(spec.body_limit, Some(1000));
        for (text, field) in [
            ("{}", "from"),
            (r#"{"to":{"port":80},"output":"a"}"#, "output"),
            (r#"{"to":{"port":80},"body_limit":"many"}"#, "body_limit"),
        ] {
            assert_eq!(read(text).unwrap_err().field, field);
        }
        assert!(serde_json::from_str::<RawRecording>(r#"{"form":{}}"#).is_err());
    }
}
