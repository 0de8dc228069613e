//! Where recorded requests are sent.

use std::{fmt, str::FromStr};

use tokio::net::TcpStream;

/// Where recorded requests are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err("TLS is not spoken here: send to the service's port without it".to_owned());
        }
        let is_url = text.starts_with("http://");
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if rest.contains('/') {
            return Err(format!("`{text}` has a path: recorded requests have theirs"));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, port.parse().ok()),
            _ if is_url => (rest, Some(80)),
            _ => (rest, None),
        };
        let port = port.filter(|port| *port != 0 && !host.is_empty());
        let port = port.ok_or_else(|| {
            format!("`{text}` is neither host:port nor a URL such as http://localhost:8080")
        })?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Target {
    /// Connects to it.
    pub(super) async fn connect(&self) -> Result<TcpStream, String> {
        let connected = TcpStream::connect(self.to_string()).await;
        let stream = connected.map_err(|error| format!("connect to {self}: {error}"))?;
        // Each request goes out in its time.
        stream
            .set_nodelay(true)
            .map_err(|error| format!("set TCP_NODELAY: {error}"))?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_addresses_are_read() {
        for (text, shown) in [
            ("http://localhost", "localhost:80"),
            ("http://localhost:8080/", "localhost:8080"),
            ("127.0.0.1:6379", "127.0.0.1:6379"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        for text in [
            "localhost",
            "https://x",
            "http://x/path",
            ":80",
            "x:0",
            "x:99999",
            "",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
