//! Reads request bodies so that whatever is wrong in them is told with the name of its field.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::FieldError;

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON at all.
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    /// It is JSON of another shape.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Reads one JSON document; unknown and missing fields and wrong types are errors that name the field.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(value) => value,
        Err(error) if error.inner().is_data() => {
            return Err(name_field::<T>(body, &Failure::from(error)).into());
        }
        Err(error) => return Err(JsonError::Syntax(error.inner().to_string())),
    };
    reader
        .end()
        .map_err(|error| JsonError::Syntax(error.to_string()))?;
    Ok(value)
}

/// Where serde stopped and why, without the line and column.
#[derive(PartialEq)]
struct Failure {
    path: String,
    message: String,
}

impl From<serde_path_to_error::Error<serde_json::Error>> for Failure {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = match error.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        let text = error.inner().to_string();
        let message = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(message, _)| message);
        Self {
            path,
            message: message.to_owned(),
        }
    }
}

fn name_field<T: DeserializeOwned>(body: &[u8], failure: &Failure) -> FieldError {
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| failure.message.strip_prefix(start)?.split_once('`'))
        .map(|(name, _)| name.to_owned());
    let inner = named.or_else(|| tagged_culprit::<T>(body, failure));
    let error = match inner {
        // The path of an unknown field ends with its name already, unless the value is tagged.
        Some(name) if failure.path != name && !failure.path.ends_with(&format!(".{name}")) => {
            FieldError::new(name, &failure.message)
        }
        _ => FieldError::new("", &failure.message),
    };
    match failure.path.as_str() {
        "" => error,
        path => error.within(path),
    }
}

/// Finds the wrong field of an object with a `type` tag, for which serde forgets the path.
///
/// The field is the one that, alone beside the tag, fails in the same way.
fn tagged_culprit<T: DeserializeOwned>(body: &[u8], failure: &Failure) -> Option<String> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let pointer = match failure.path.as_str() {
        "" => String::new(),
        path => format!("/{}", path.replace(['.', '['], "/").replace(']', "")),
    };
    let object = document.pointer(&pointer)?.as_object()?;
    let tag = object.get("type")?;
    let unknown = tag.as_str().map(|tag| format!("unknown variant `{tag}`"));
    if unknown.is_some_and(|unknown| failure.message.starts_with(&unknown)) {
        return Some("type".to_owned());
    }
    let fails_alike = |name: &str, value: &Value| {
        let mut alone = document.clone();
        *alone.pointer_mut(&pointer)? = json!({"type": tag, name: value});
        let error = serde_path_to_error::deserialize::<_, T>(alone).err()?;
        (Failure::from(error) == *failure).then(|| name.to_owned())
    };
    object
        .iter()
        .filter(|(name, _)| *name != "type")
        .find_map(|(name, value)| fails_alike(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RawFault;

    fn field_of(body: &str) -> String {
        match parse::<RawFault>(body.as_bytes()) {
            Err(JsonError::Field(error)) => error.field,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (body, field) in [
            (r#"{"to":{"prot":80},"effect":{"type":"refuse"}}"#, "to.prot"),
            (r#"{"percnt":80,"effect":{"type":"refuse"}}"#, "percnt"),
            (r#"{"percent":"80","effect":{"type":"refuse"}}"#, "percent"),
            (
                r#"{"percent":8,"percent":9,"effect":{"type":"refuse"}}"#,
                "percent",
            ),
            (r#"{"from":{"pid":-1},"effect":{"type":"refuse"}}"#, "from.pid"),
            (r#"{"to":{"port":70000},"effect":{"type":"refuse"}}"#, "to.port"),
            (r#"{"effect":{"type":"latncy"}}"#, "effect.type"),
            (r#"{"effect":{"delay":"1s"}}"#, "effect.type"),
            (r#"{"effect":{"type":"latency"}}"#, "effect.delay"),
            (r#"{"effect":{"type":"latency","delay":200}}"#, "effect.delay"),
            (
                r#"{"effect":{"type":"latency","delay":"1s","jitter":200}}"#,
                "effect.jitter",
            ),
            (
                r#"{"effect":{"type":"latency","delay":"1s","direction":"up"}}"#,
                "effect.direction",
            ),
            (
                r#"{"effect":{"type":"latency","delay":"1s","dely":"1s"}}"#,
                "effect.dely",
            ),
            (r#"{"effect":{"type":"refuse","delay":"1s"}}"#, "effect.delay"),
            (r#"{"effect":"latency"}"#, "effect"),
            (
                r#"{"effects":[{"type":"reset"},{"type":"reset","aftr":"1s"}]}"#,
                "effects[1].aftr",
            ),
            (
                r#"{"effects":[{"type":"reset","percent":"5"}]}"#,
                "effects[0].percent",
            ),
            (r#"{"effects":[{"type":"rset"}]}"#, "effects[0].type"),
            ("null", ""),
        ] {
            assert_eq!(field_of(body), field, "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_apart() {
        for body in ["", "{", "{\"effect\":", "{}}", "nonsense", "\u{0}"] {
            let is_syntax = matches!(parse::<Value>(body.as_bytes()), Err(JsonError::Syntax(_)));
            assert!(is_syntax, "{body}");
        }
        assert!(matches!(parse::<Value>(b"\xff\xfe"), Err(JsonError::Syntax(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body in r#"\{("(from|to|effect|percent|ttl)":(\{("(type|port|delay)":["a-z0-9.-]{0,9},?){0,3}\}|[0-9e.-]{1,6}|null),?){0,4}\}?"#) {
            if let Ok(raw) = parse::<RawFault>(body.as_bytes()) {
                let _ = crate::model::Fault::try_from(&raw);
            }
        }
    }
}
