//! Moments as operators write them: `now`, `10m-ago`, `2026-01-02T03:04:05Z`.

use std::time::{Duration, SystemTime};

use super::{FieldError, units::parse_duration};

/// How long the window before a moment is, unless said.
const WINDOW: Duration = Duration::from_secs(60);

/// Which stretch of time is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// From the agent's start until now.
    SinceStart,
    /// From one moment to another; the second may be now.
    Between(SystemTime, SystemTime),
}

impl Window {
    /// Reads `at` and `since` of a request: `since` is how long, `at` is when it ends; now, and a minute, unless said.
    ///
    /// # Errors
    /// Of the field that is wrong.
    pub fn parse(at: Option<&str>, since: Option<&str>, now: SystemTime) -> Result<Self, FieldError> {
        if at.is_none() && since.is_none() {
            return Ok(Self::SinceStart);
        }
        let end = match at {
            Some(text) => moment(text, now).map_err(|error| FieldError::new("at", error))?,
            None => now,
        };
        let length = match since {
            Some(text) => parse_duration(text).map_err(|error| FieldError::new("since", error))?,
            None => WINDOW,
        };
        if length.is_zero() {
            return Err(FieldError::new("since", "is no time at all; such as 5m"));
        }
        Ok(Self::Between(
            end.checked_sub(length).unwrap_or(SystemTime::UNIX_EPOCH),
            end,
        ))
    }
}

/// Reads a moment that is not in the future.
///
/// # Errors
/// With what would be right.
pub fn moment(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    let found = if let Some(ago) = text.strip_suffix("-ago").or_else(|| text.strip_suffix(" ago")) {
        now.checked_sub(parse_duration(ago)?)
    } else {
        humantime::parse_rfc3339_weak(text).ok()
    };
    let found = found
        .ok_or_else(|| format!("`{text}` is no moment such as now, 10m-ago or 2026-01-02T03:04:05Z (UTC)"))?;
    if found > now {
        return Err(format!("`{text}` is in the future"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn moments_are_read() {
        let now = at(1_000_000_000);
        for (text, wanted) in [
            ("now", now),
            ("10m-ago", at(999_999_400)),
            ("1h30m-ago", at(999_994_600)),
            ("2001-09-09T01:46:39Z", at(999_999_999)),
            ("2001-09-09 01:46:39", at(999_999_999)),
        ] {
            assert_eq!(moment(text, now), Ok(wanted), "{text}");
        }
        for (text, says) in [
            ("2001-09-09T01:46:41Z", "in the future"),
            ("yesterday", "10m-ago"),
            ("10-ago", "10"),
            ("", "10m-ago"),
        ] {
            let error = moment(text, now).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_window_ends_where_it_is_said_to() {
        let now = at(1_000);
        let parse = |at, since| Window::parse(at, since, now);
        assert_eq!(parse(None, None), Ok(Window::SinceStart));
        assert_eq!(parse(None, Some("5m")), Ok(Window::Between(at(700), now)));
        assert_eq!(
            parse(Some("100s-ago"), None),
            Ok(Window::Between(at(840), at(900)))
        );
        assert_eq!(
            parse(Some("100s-ago"), Some("10s")),
            Ok(Window::Between(at(890), at(900)))
        );
        assert_eq!(parse(Some("soon"), None).unwrap_err().field, "at");
        assert_eq!(parse(None, Some("5")).unwrap_err().field, "since");
        assert_eq!(parse(None, Some("0s")).unwrap_err().field, "since");
    }
}
