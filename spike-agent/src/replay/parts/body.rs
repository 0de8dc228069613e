//! Bodies as parts: JSON by its fields, forms by theirs, everything else whole.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Parts, text_of};

/// JSON in more levels is one value.
const DEPTH_LIMIT: usize = 32;

/// Adds what a body says under `name`. `kind` is its media type, if one was said.
pub(in crate::replay) fn add_body(parts: &mut Parts, name: &str, kind: Option<&str>, body: &[u8]) {
    if body.is_empty() {
        return;
    }
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    if kind.starts_with("application/x-www-form-urlencoded")
        && let Ok(text) = str::from_utf8(body)
    {
        return add_pairs(parts, name, text);
    }
    if let Some(boundary) = boundary(&kind, body) {
        // Chosen anew for each message.
        let text = text_of(body).replace(&boundary, "boundary");
        return parts.push(name, text);
    }
    let may_be_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    if may_be_json && let Ok(value) = serde_json::from_slice::<Value>(body) {
        return add_json(parts, name, &value, 0);
    }
    parts.push(name, text_of(body));
}

/// Adds the `name=value` pairs of a query or a form.
pub(in crate::replay) fn add_pairs(parts: &mut Parts, name: &str, text: &str) {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        parts.push(format!("{name}.{}", decoded(key)), decoded(value));
    }
}

fn add_json(parts: &mut Parts, name: &str, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if depth < DEPTH_LIMIT && !fields.is_empty() => {
            for (key, value) in fields {
                add_json(parts, &format!("{name}.{key}"), value, depth + 1);
            }
        }
        Value::Array(items) if depth < DEPTH_LIMIT && !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                add_json(parts, &format!("{name}.{index}"), value, depth + 1);
            }
        }
        // Strings keep their quotes: "1" is not 1.
        value => parts.push(name, value.to_string()),
    }
}

/// The boundary of a body in several parts.
fn boundary(kind: &str, body: &[u8]) -> Option<String> {
    if !kind.starts_with("multipart/") {
        return None;
    }
    let line = body.strip_prefix(b"--")?.split(|b| *b == b'\r').next()?;
    let boundary = str::from_utf8(line).ok().filter(|line| !line.is_empty())?;
    Some(boundary.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Option<&str>, body: &[u8]) -> Vec<(String, String)> {
        let mut parts = Parts::default();
        add_body(&mut parts, "body", kind, body);
        let all = parts.only(|_, _| true);
        all.iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn json_is_told_by_its_fields_whatever_their_order() {
        let a = of(
            Some("application/json"),
            br#"{"b": [1, "1", {}], "a": {"c": null}}"#,
        );
        let b = of(None, br#" {"a":{"c":null},"b":[1,"1",{}]}"#);
        assert_eq!(a, b);
        assert_eq!(
            a,
            [
                pair("body.a.c", "null"),
                pair("body.b.0", "1"),
                pair("body.b.1", "\"1\""),
                pair("body.b.2", "{}")
            ]
        );
    }

    #[test]
    fn forms_are_told_by_their_fields_and_the_rest_whole() {
        let form = of(
            Some("application/x-www-form-urlencoded; charset=utf-8"),
            b"a=1+2&b=%C3%A9&c",
        );
        assert_eq!(
            form,
            [pair("body.a", "1 2"), pair("body.b", "é"), pair("body.c", "")]
        );
        assert_eq!(of(None, b"{ no json"), [pair("body", "{ no json")]);
        assert!(of(None, b"").is_empty());
    }

    #[test]
    fn the_boundary_of_parts_makes_no_difference() {
        let body = |boundary: &str| {
            let text = format!("--{boundary}\r\nContent-Disposition: x\r\n\r\nv\r\n--{boundary}--\r\n");
            of(
                Some(&format!("multipart/form-data; boundary={boundary}")),
                text.as_bytes(),
            )
        };
        assert_eq!(body("abc"), body("xyzw"));
    }
}
