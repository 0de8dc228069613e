//! From when on `spike analyze` speaks up: the `[analysis]` section of the configuration.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::units::parse_duration;

/// When something on the map is a finding.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Thresholds {
    /// Edges with fewer calls, or attempts to connect, in the time that is looked at are not judged by their shares.
    pub least_calls: u64,
    /// Calls in a row, each waiting for the next.
    pub chain_length: usize,
    /// p99 of the first call of a chain.
    #[serde(deserialize_with = "time")]
    pub slow_chain: Duration,
    /// Services that one calls.
    pub fan_out: usize,
    /// Calls that one call causes on one edge.
    pub chatty: f64,
    /// The same request, repeated for one call.
    pub repeated: f64,
    /// Retries among the calls of an edge, in percent.
    pub retry_percent: f64,
    /// Calls of one edge among all, in percent.
    pub hot_percent: f64,
    /// And so many of them each second.
    pub hot_rate: f64,
    /// An open connection without a byte.
    #[serde(deserialize_with = "time")]
    pub idle: Duration,
    /// How many times more one instance gets, or takes, than another.
    pub uneven: f64,
    /// Attempts that come to nothing, in percent.
    pub error_percent: f64,
    /// Connections for a hundred calls.
    pub connect_percent: f64,
    /// Time until a certificate expires.
    #[serde(deserialize_with = "time")]
    pub certificate: Duration,
    /// Services that call one which has a single instance.
    pub shared_by: usize,
    /// Services that are reached through one which has a single instance, and not in another way.
    pub cut_off: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            least_calls: 20,
            chain_length: 6,
            slow_chain: Duration::from_secs(1),
            fan_out: 10,
            chatty: 10.0,
            repeated: 5.0,
            retry_percent: 20.0,
            hot_percent: 60.0,
            hot_rate: 100.0,
            idle: Duration::from_secs(300),
            uneven: 3.0,
            error_percent: 1.0,
            connect_percent: 50.0,
            certificate: Duration::from_secs(14 * 86_400),
            shared_by: 3,
            cut_off: 2,
        }
    }
}

impl Thresholds {
    /// Refuses what would make everything a finding.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), String> {
        for (key, is_wrong) in [
            ("chain-length", self.chain_length < 2),
            ("fan-out", self.fan_out < 2),
            ("chatty", self.chatty.is_nan() || self.chatty <= 1.0),
            ("repeated", self.repeated.is_nan() || self.repeated <= 1.0),
            ("uneven", self.uneven.is_nan() || self.uneven <= 1.0),
            ("shared-by", self.shared_by == 0),
            ("cut-off", self.cut_off == 0),
        ] {
            if is_wrong {
                return Err(format!(
                    "analysis.{key} is too small: every service would be a finding"
                ));
            }
        }
        for (key, percent) in [
            ("retry-percent", self.retry_percent),
            ("hot-percent", self.hot_percent),
            ("error-percent", self.error_percent),
            ("connect-percent", self.connect_percent),
        ] {
            if !(percent > 0.0 && percent <= 100.0) {
                return Err(format!(
                    "analysis.{key} is {percent}, not above 0 and at most 100"
                ));
            }
        }
        Ok(())
    }
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}
