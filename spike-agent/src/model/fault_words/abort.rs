//! `--abort-when`: when a fault removes itself, as `key=value` words.

use std::str::FromStr;

use crate::model::{FieldError, fault::RawAbortWhen};

/// Reads `errors=20,p99=2s,window=5s,calls=10`; the agent checks the values.
pub(super) fn read(words: &str) -> Result<RawAbortWhen, FieldError> {
    let mut abort = RawAbortWhen::default();
    for word in words.split(',') {
        let Some((key, value)) = word.split_once('=') else {
            let message = format!("`{word}` is not key=value, such as errors=20");
            return Err(FieldError::new("abort_when", message));
        };
        match key {
            "errors" => abort.errors = Some(number(key, value)?),
            "p99" => abort.p99 = Some(value.to_owned()),
            "window" => abort.window = Some(value.to_owned()),
            "calls" => abort.calls = Some(number(key, value)?),
            _ => {
                let message = "no such key: it takes errors, p99, window and calls";
                return Err(FieldError::new(key, message).within("abort_when"));
            }
        }
    }
    Ok(abort)
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, FieldError> {
    value.parse().map_err(|_| {
        FieldError::new(key, format_args!("`{value}` is not a number in range")).within("abort_when")
    })
}
