//! One port or a range of ports, written as a number or as `8000-8100`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A port (`8080`) or a range of ports with both ends in it (`"8000-8100"`), as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a port from 1 to 65535 or a range such as \"8000-8100\""
)]
pub enum RawPort {
    /// A single port.
    #[schema(example = 8080)]
    Number(u16),
    /// A port or a range in text.
    #[schema(example = "8000-8100")]
    Text(String),
}

/// Ports from `first` to `last`, both included; `1 <= first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port, the same as `first` for a single port.
    pub last: u16,
}

impl PortRange {
    /// Is `port` in the range?
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl TryFrom<&RawPort> for PortRange {
    type Error = String;

    fn try_from(raw: &RawPort) -> Result<Self, String> {
        let range = match raw {
            RawPort::Number(port) => Some((*port, *port)),
            RawPort::Text(text) => match text.split_once('-') {
                Some((first, last)) => first.trim().parse().ok().zip(last.trim().parse().ok()),
                None => text.trim().parse().ok().map(|port| (port, port)),
            },
        };
        match range {
            Some((first, last)) if first >= 1 && first <= last => Ok(Self { first, last }),
            _ => Err("must be a port from 1 to 65535 or a rising range such as 8000-8100".to_owned()),
        }
    }
}

impl From<PortRange> for RawPort {
    fn from(range: PortRange) -> Self {
        match range {
            PortRange { first, last } if first == last => Self::Number(first),
            PortRange { first, last } => Self::Text(format!("{first}-{last}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read() {
        let read = |text: &str| PortRange::try_from(&RawPort::Text(text.to_owned()));
        assert_eq!(read("80"), Ok(PortRange { first: 80, last: 80 }));
        assert_eq!(
            read("8000-8100"),
            Ok(PortRange {
                first: 8000,
                last: 8100
            })
        );
        assert_eq!(
            RawPort::from(PortRange { first: 1, last: 2 }),
            RawPort::Text("1-2".to_owned())
        );
        for text in ["", "0", "0-3", "3-2", "65536", "1-", "-1", "a", "1-2-3", "+1-2-"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
