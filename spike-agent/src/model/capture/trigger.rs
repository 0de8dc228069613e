//! What a capture can wait for: a reset, a share of errors, a latency.

use std::{fmt, time::Duration};

use crate::model::units::{format_duration, parse_duration};

/// Something that happens to the chosen connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trigger {
    /// A connection is reset.
    Reset,
    /// More than this share of the calls of the last seconds failed, in percent, 0 to below 100.
    Errors(f64),
    /// A quantile of the latencies of the last seconds is above this.
    Latency(Quantile, Duration),
}

/// Which of the latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// The median.
    P50,
    /// 90 percent are faster.
    P90,
    /// 99 percent are faster.
    P99,
}

impl Quantile {
    const ALL: [(&str, Self); 3] = [("p50", Self::P50), ("p90", Self::P90), ("p99", Self::P99)];

    /// Out of 100 calls so many are at most as slow.
    pub const fn percent(self) -> u64 {
        match self {
            Self::P50 => 50,
            Self::P90 => 90,
            Self::P99 => 99,
        }
    }
}

impl Trigger {
    /// Reads `reset`, `errors>PERCENT%`, `p50>TIME`, `p90>TIME` or `p99>TIME`; space is free.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted =
            || format!("`{text}` is not one of `reset`, `errors>1%`, `p50>TIME`, `p90>TIME`, `p99>1s`");
        let Some((what, limit)) = text.split_once('>') else {
            return if text.trim() == "reset" {
                Ok(Self::Reset)
            } else {
                Err(wanted())
            };
        };
        let (what, limit) = (what.trim(), limit.trim());
        if what == "errors" {
            let share = limit
                .strip_suffix('%')
                .and_then(|number| number.trim().parse().ok());
            return match share {
                Some(share) if (0.0..100.0).contains(&share) => Ok(Self::Errors(share)),
                _ => Err(format!("`{limit}` is not a share from 0% to below 100%")),
            };
        }
        let named = Quantile::ALL.iter().find(|(name, _)| *name == what);
        let (_, quantile) = named.ok_or_else(wanted)?;
        Ok(Self::Latency(*quantile, parse_duration(limit)?))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("reset"),
            Self::Errors(share) => write!(f, "errors>{share}%"),
            Self::Latency(quantile, limit) => {
                write!(f, "p{}>{}", quantile.percent(), format_duration(*limit))
            }
        }
    }
}
