//! How finely and how much of the map's history is kept.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::model::units::{parse_bytes, parse_duration};

/// Length of a step unless it is told otherwise.
pub(super) const DEFAULT_STEP: Duration = Duration::from_secs(10);
/// Size of the file unless it is told otherwise.
pub(super) const DEFAULT_SIZE: u64 = 256 << 20;

/// A history of less holds no day of even a few edges.
const LEAST_SIZE: u64 = 1 << 20;

/// Length of a step: 1 s to 60 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step(pub(super) Duration);

/// Size of the file in bytes; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let step = parse_duration(text)?;
        if (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&step) {
            Ok(Self(step))
        } else {
            Err(format!("`{text}` is not within 1s to 60s"))
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(0));
        }
        let size = parse_bytes(text)?;
        if size >= LEAST_SIZE {
            Ok(Self(size))
        } else {
            Err(format!("`{text}` is less than 1MiB; write `off` for no history"))
        }
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}
