//! Where metrics and spans are pushed to.

use std::{fmt, str::FromStr, time::Duration};

use hyper::{
    Uri,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde::{Deserialize, de};

/// How often metrics are pushed unless it is told otherwise.
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest and the longest time between two pushes.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// A collector, and how to push to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The collector.
    pub endpoint: Endpoint,
    /// Time between two pushes of metrics.
    pub interval: Duration,
    /// Sent with each push.
    pub headers: Vec<Header>,
}

/// Base URL of a collector that speaks OTLP over HTTP; signals have their paths below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// A header, such as one that names a tenant or has a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

/// Time between two pushes, with a unit: 1 s to 1 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval(pub(super) Duration);

impl Endpoint {
    /// Where a signal goes: `v1/metrics` or `v1/traces`.
    pub fn signal(&self, path: &str) -> Option<Uri> {
        let base = self.0.path().trim_end_matches('/');
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(format!("{base}/{path}").parse().ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Whether it is reached through TLS.
    pub fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "`{text}` {what}; it must be the base URL of a collector's OTLP over HTTP, such as \
                 http://127.0.0.1:4318"
            )
        };
        let uri: Uri = text
            .parse()
            .map_err(|error| wrong(&format!("is no URL: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("is neither http:// nor https://"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(wrong("names no host"));
        }
        if authority.as_str().contains('@') {
            return Err(wrong(
                "has a user or password in it, which belong into --otlp-header",
            ));
        }
        let port = authority
            .as_str()
            .strip_prefix(authority.host())
            .unwrap_or_default();
        if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("has no valid port"));
        }
        if uri.query().is_some() {
            return Err(wrong("has a query"));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form NAME=VALUE"))?;
        let name: HeaderName = name
            .trim()
            .parse()
            .map_err(|_| format!("`{name}` is no name of a header"))?;
        if [
            CONTENT_TYPE,
            RETRY_AFTER,
            hyper::header::HOST,
            hyper::header::CONTENT_LENGTH,
        ]
        .contains(&name)
        {
            return Err(format!("the header {name} is not yours to set"));
        }
        // The value may be a secret, so that errors don't show it.
        let mut value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("the value of the header {name} has a character that no header may have"))?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }
}

/// Without the value, which may be a secret.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let interval = humantime::parse_duration(text).map_err(|error| format!("`{text}`: {error}"))?;
        if INTERVALS.contains(&interval) {
            Ok(Self(interval))
        } else {
            Err(format!("`{text}` is not within 1s to 1h"))
        }
    }
}

macro_rules! from_text {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
from_text!(Endpoint, Header, Interval);

#[cfg(test)]
mod tests {
    use super::{Endpoint, Header, Interval};

    #[test]
    fn signals_have_their_paths_below_the_base() {
        for (base, wanted) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://[::1]/otlp/", "https://[::1]/otlp/v1/traces"),
            ("http://collector/a/b", "http://collector/a/b/v1/traces"),
        ] {
            let endpoint: Endpoint = base.parse().unwrap();
            assert_eq!(endpoint.signal("v1/traces").unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn a_wrong_url_is_told_why() {
        for (text, wanted) in [
            ("", "no URL"),
            ("127.0.0.1:4318", "neither http"),
            ("grpc://127.0.0.1:4317", "neither http"),
            ("/v1/traces", "neither http"),
            ("http://", "no URL"),
            ("http://:4318", "host"),
            ("http://user:secret@collector:4318", "--otlp-header"),
            ("http://collector:0", "port"),
            ("http://collector:99999", "port"),
            ("http://collector/?tenant=1", "query"),
            ("http://collector:4318/a b", "no URL"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn headers_and_intervals_are_checked() {
        let header: Header = "Authorization=Basic YTpi==".parse().unwrap();
        assert_eq!(
            (header.name.as_str(), header.value.to_str().unwrap()),
            ("authorization", "Basic YTpi==")
        );
        assert!(!format!("{header:?}").contains("YTpi"));
        for text in [
            "Authorization",
            "a b=c",
            "=c",
            "x=a\nb",
            "content-type=text/plain",
        ] {
            assert!(text.parse::<Header>().is_err(), "{text}");
        }
        assert!("15s".parse::<Interval>().is_ok());
        for text in ["15", "0s", "999ms", "2h", "-1s", "often"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
