//! The address of the HTTP API, which never leaves the host.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, de};

/// Where the HTTP API listens for TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere; the Unix socket remains.
    Off,
    /// At this loopback address.
    At(SocketAddr),
}

impl Default for Listen {
    fn default() -> Self {
        Self::At((Ipv4Addr::LOCALHOST, 7390).into())
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("`{text}` is neither an address with a port such as 127.0.0.1:7390 nor `off`")
        })?;
        if address.ip().to_canonical().is_loopback() {
            return Ok(Self::At(address));
        }
        Err(format!(
            "`{text}` is not a loopback address: whoever reaches the API can break this host's calls; listen on \
             127.0.0.1:7390 or [::1]:7390 and reach it from elsewhere through ssh -L"
        ))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        for text in ["off", "127.0.0.1:7390", "127.0.0.2:0", "[::1]:80"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in [
            "0.0.0.0:7390",
            "[::]:7390",
            "10.0.0.1:80",
            "localhost:80",
            "127.0.0.1",
            "",
            "[::ffff:1.2.3.4]:1",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
