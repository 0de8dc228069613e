//! What a fault does to a call, as written and as checked.

mod step;
mod stream;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use step::{RawStep, Step, share};

use super::{
    FieldError, PacketEffect, Rate,
    packet_effect::{
        RawDuplicate, RawLoss, RawPacketCorrupt, RawPacketDelay, RawPacketJitter, RawPacketRate,
        RawPartition, RawReorder,
    },
    units::{format_duration, parse_duration},
};

/// Longest `delay` of a latency, a slicer or a slow close.
pub const MAX_DELAY: Duration = Duration::from_secs(3600);
/// Shortest `after` of a connect timeout: the kernel's first look at the time is when it sends a SYN again (RFC 6298).
pub const MIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest `after` of a reset or a timeout.
pub const MAX_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the caller to the server.
    Request,
    /// From the server to the caller.
    Response,
    /// Both ways, each by itself.
    Both,
}

impl Direction {
    /// Are bytes from the caller to the server meant?
    pub fn affects_request(self) -> bool {
        matches!(self, Self::Request | Self::Both)
    }

    /// Are bytes from the server to the caller meant?
    pub fn affects_response(self) -> bool {
        matches!(self, Self::Response | Self::Both)
    }

    /// Are bytes that go `way`, which is not both, meant?
    pub fn affects(self, way: Self) -> bool {
        self == Self::Both || self == way
    }
}

/// How single delays lie around `delay`, with `jitter` as their spread.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Evenly within `delay` ± `jitter`.
    #[default]
    Uniform,
    /// The normal distribution with mean `delay` and standard deviation `jitter`; what falls below 0 is 0.
    Normal,
    /// Never below `delay`, seldom far above: a Pareto distribution with mean `delay` + `jitter`, cut at 1h.
    Pareto,
}

/// What is done to the chosen calls, as written. Times are text with a unit (`200ms`, `1m30s`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RawEffect {
    /// Bytes arrive later.
    Latency {
        /// How much later: above 0, at most 1h.
        #[schema(example = "200ms")]
        delay: String,
        /// How far single delays spread, at most `delay`; what it means, `distribution` says. Default: `0s`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "50ms")]
        jitter: Option<String>,
        /// How single delays spread. Default: `uniform`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        distribution: Option<Distribution>,
        /// Which bytes. Default: `response`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// The connection is torn down with a TCP reset.
    Reset {
        /// Time from its opening until then, at most 24h. Default: `0s`, before any byte passes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "2s")]
        after: Option<String>,
    },
    /// The connection opens, and then no byte passes.
    Timeout {
        /// Time from its opening until it is closed, at most 24h. Default: it stays open while the fault is armed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "30s")]
        after: Option<String>,
        /// Which bytes. Default: `both`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// The attempt to connect fails at once with ECONNREFUSED.
    Refuse {},
    /// Bytes pass no faster than a rate.
    Bandwidth {
        /// Rate of each connection and direction: bits (`64kbit`, `1mbit`, powers of ten as in tc(8)) or bytes
        /// (`100KB/s`, `1MiB/s`).
        #[schema(example = "1mbit")]
        rate: String,
        /// Which bytes. Default: `both`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// The attempt to connect fails with EHOSTUNREACH, as when a router knows no way to the destination.
    Unreachable {},
    /// Nobody answers the attempt to connect, until it fails with ETIMEDOUT.
    ConnectTimeout {
        /// Time until then, 1s to 24h. Default: as long as the caller's kernel tries (`tcp_syn_retries`: about 2 min).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "5s")]
        after: Option<String>,
    },
    /// The attempt to connect takes longer: the destination is asked, and its answer arrives, that much later.
    ConnectDelay {
        /// How much later: above 0, at most 1h.
        #[schema(example = "200ms")]
        delay: String,
        /// Each delay is spread evenly over `delay` ± `jitter`; at most `delay`. Default: `0s`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "50ms")]
        jitter: Option<String>,
    },
    /// UDP datagrams arrive later. `percent` is of the datagrams.
    UdpDelay {
        /// How much later: above 0, at most 1h.
        #[schema(example = "200ms")]
        delay: String,
        /// Each delay is spread evenly over `delay` ± `jitter`, and datagrams may overtake each other; at most
        /// `delay`. Default: `0s`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "50ms")]
        jitter: Option<String>,
        /// Which datagrams. Default: `response`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// UDP datagrams are lost. `percent` is of the datagrams.
    UdpDrop {
        /// Which datagrams. Default: `response`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// UDP datagrams arrive twice. `percent` is of the datagrams.
    UdpDuplicate {
        /// Which datagrams. Default: `response`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// The end of a direction arrives later; its bytes do not.
    SlowClose {
        /// How much later: above 0, at most 1h.
        #[schema(example = "2s")]
        delay: String,
        /// Whose end. Default: `both`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// Bytes arrive in small pieces.
    Slicer {
        /// Average size of a piece: from 1 byte to 1MiB.
        #[schema(example = "64B")]
        size: String,
        /// Sizes are spread evenly over `size` ± `variation`; below `size`. Default: `0B`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "32B")]
        variation: Option<String>,
        /// Pause after each piece, at most 1h. Default: `0s`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(example = "10ms")]
        delay: Option<String>,
        /// Which bytes. Default: `response`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// The connection is closed after a number of bytes.
    LimitData {
        /// How many bytes pass before; all of a direction that was already open count.
        #[schema(example = "10KiB")]
        bytes: String,
        /// Which bytes are counted, each direction by itself. Default: `response`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// Some bytes arrive with one bit flipped.
    Corrupt {
        /// Share of the bytes in percent: above 0, at most 100.
        #[schema(exclusive_minimum = 0, maximum = 100, example = 0.1)]
        share: f64,
        /// Which bytes. Default: `response`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// Packets are lost.
    Loss(RawLoss),
    /// Packets come twice.
    Duplicate(RawDuplicate),
    /// Packets are damaged.
    PacketCorrupt(RawPacketCorrupt),
    /// No packet passes.
    Partition(RawPartition),
    /// Packets leave later; needs the fq qdisc.
    Delay(RawPacketDelay),
    /// Packets leave up to some time later; needs the fq qdisc.
    Jitter(RawPacketJitter),
    /// Some packets are overtaken by those after them; needs the fq qdisc.
    Reorder(RawReorder),
    /// Packets leave no faster than a rate; needs the fq qdisc.
    Rate(RawPacketRate),
}

/// What is done to the chosen calls, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Bytes arrive later.
    Latency {
        /// Above 0, at most [`MAX_DELAY`].
        delay: Duration,
        /// The spread of single delays; at most `delay`.
        jitter: Duration,
        /// What `jitter` means.
        distribution: Distribution,
        /// Which bytes.
        direction: Direction,
    },
    /// The connection is torn down with a TCP reset.
    Reset {
        /// Time from its opening until then; 0 means before any byte passes.
        after: Duration,
    },
    /// The connection opens, and then no byte passes.
    Timeout {
        /// Time from its opening until it is closed; `None` keeps it open while the fault is armed.
        after: Option<Duration>,
        /// Which bytes.
        direction: Direction,
    },
    /// The attempt to connect fails at once with ECONNREFUSED.
    Refuse,
    /// Bytes pass no faster than a rate.
    Bandwidth {
        /// Rate of each connection and direction.
        rate: Rate,
        /// Which bytes.
        direction: Direction,
    },
    /// The attempt to connect fails with EHOSTUNREACH.
    Unreachable,
    /// Nobody answers the attempt to connect.
    ConnectTimeout {
        /// Time until ETIMEDOUT, from [`MIN_CONNECT_TIMEOUT`]; `None` leaves it to the caller's kernel.
        after: Option<Duration>,
    },
    /// The attempt to connect takes longer.
    ConnectDelay {
        /// Above 0, at most [`MAX_DELAY`].
        delay: Duration,
        /// Spread evenly over `delay` ± `jitter`; at most `delay`.
        jitter: Duration,
    },
    /// UDP datagrams arrive later.
    UdpDelay {
        /// Above 0, at most [`MAX_DELAY`].
        delay: Duration,
        /// Spread evenly over `delay` ± `jitter`; at most `delay`.
        jitter: Duration,
        /// Which datagrams.
        direction: Direction,
    },
    /// UDP datagrams are lost.
    UdpDrop {
        /// Which datagrams.
        direction: Direction,
    },
    /// UDP datagrams arrive twice.
    UdpDuplicate {
        /// Which datagrams.
        direction: Direction,
    },
    /// The end of a direction arrives later.
    SlowClose {
        /// Above 0, at most [`MAX_DELAY`].
        delay: Duration,
        /// Whose end.
        direction: Direction,
    },
    /// Bytes arrive in small pieces.
    Slicer {
        /// Average size of a piece in bytes, from 1 to [`stream::MAX_SLICE`].
        size: u32,
        /// Sizes are spread evenly over `size` ± this; below `size`.
        variation: u32,
        /// Pause after each piece, at most [`MAX_DELAY`].
        delay: Duration,
        /// Which bytes.
        direction: Direction,
    },
    /// The connection is closed after a number of bytes.
    LimitData {
        /// How many pass before.
        bytes: u64,
        /// Which bytes are counted.
        direction: Direction,
    },
    /// Some bytes arrive with one bit flipped.
    Corrupt {
        /// Share of the bytes in percent: above 0, at most 100.
        share: f64,
        /// Which bytes.
        direction: Direction,
    },
    /// Something is done to packets on an interface.
    Packet(PacketEffect),
}

impl Effect {
    /// True for an effect on UDP datagrams; the others are on TCP connections.
    pub fn is_on_datagrams(&self) -> bool {
        matches!(
            self,
            Self::UdpDelay { .. } | Self::UdpDrop { .. } | Self::UdpDuplicate { .. }
        )
    }

    /// The name that it has in JSON and on the command line.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Reset { .. } => "reset",
            Self::Timeout { .. } => "timeout",
            Self::Refuse => "refuse",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::ConnectDelay { .. } => "connect_delay",
            Self::UdpDelay { .. } => "udp_delay",
            Self::UdpDrop { .. } => "udp_drop",
            Self::UdpDuplicate { .. } => "udp_duplicate",
            Self::SlowClose { .. } => "slow_close",
            Self::Slicer { .. } => "slicer",
            Self::LimitData { .. } => "limit_data",
            Self::Corrupt { .. } => "corrupt",
            Self::Packet(effect) => effect.kind(),
        }
    }

    /// What is done to packets, if it is that: then neither the connect hook nor the proxy has a part in it.
    pub fn packet(&self) -> Option<&PacketEffect> {
        match self {
            Self::Packet(effect) => Some(effect),
            _ => None,
        }
    }

    /// True when the connect hook alone carries it out, with no proxy in the way.
    pub fn is_decided_in_kernel(&self) -> bool {
        matches!(self, Self::Refuse)
    }

    /// True when it works on the bytes of a connection within the proxy, so that others can come before and after it.
    pub fn is_of_streams(&self) -> bool {
        matches!(
            self,
            Self::Latency { .. }
                | Self::Reset { .. }
                | Self::Timeout { .. }
                | Self::Bandwidth { .. }
                | Self::SlowClose { .. }
                | Self::Slicer { .. }
                | Self::LimitData { .. }
                | Self::Corrupt { .. }
        )
    }
}

impl TryFrom<&RawEffect> for Effect {
    type Error = FieldError;

    fn try_from(raw: &RawEffect) -> Result<Self, FieldError> {
        match raw {
            RawEffect::Latency {
                delay,
                jitter,
                distribution,
                direction,
            } => stream::latency(delay, jitter.as_deref(), *distribution, *direction),
            RawEffect::Reset { after } => Ok(Self::Reset {
                after: optional_time("after", after.as_deref(), MAX_AFTER)?.unwrap_or_default(),
            }),
            RawEffect::Timeout { after, direction } => Ok(Self::Timeout {
                after: optional_time("after", after.as_deref(), MAX_AFTER)?,
                direction: direction.unwrap_or(Direction::Both),
            }),
            RawEffect::Refuse {} => Ok(Self::Refuse),
            RawEffect::Bandwidth { rate, direction } => Ok(Self::Bandwidth {
                rate: Rate::parse(rate).map_err(|message| FieldError::new("rate", message))?,
                direction: direction.unwrap_or(Direction::Both),
            }),
            RawEffect::Unreachable {} => Ok(Self::Unreachable),
            RawEffect::ConnectTimeout { after } => {
                let after = optional_time("after", after.as_deref(), MAX_AFTER)?;
                if after.is_some_and(|after| after < MIN_CONNECT_TIMEOUT) {
                    let message = "must be from 1s: the caller's kernel looks at the time no sooner";
                    return Err(FieldError::new("after", message));
                }
                Ok(Self::ConnectTimeout { after })
            }
            RawEffect::ConnectDelay { delay, jitter } => {
                let (delay, jitter) = delay_and_jitter(delay, jitter.as_deref())?;
                Ok(Self::ConnectDelay { delay, jitter })
            }
            RawEffect::UdpDelay {
                delay,
                jitter,
                direction,
            } => {
                let (delay, jitter) = delay_and_jitter(delay, jitter.as_deref())?;
                Ok(Self::UdpDelay {
                    delay,
                    jitter,
                    direction: direction.unwrap_or(Direction::Response),
                })
            }
            RawEffect::UdpDrop { direction } => Ok(Self::UdpDrop {
                direction: direction.unwrap_or(Direction::Response),
            }),
            RawEffect::UdpDuplicate { direction } => Ok(Self::UdpDuplicate {
                direction: direction.unwrap_or(Direction::Response),
            }),
            RawEffect::SlowClose { delay, direction } => stream::slow_close(delay, *direction),
            RawEffect::Slicer {
                size,
                variation,
                delay,
                direction,
            } => stream::slicer(size, variation.as_deref(), delay.as_deref(), *direction),
            RawEffect::LimitData { bytes, direction } => stream::limit_data(bytes, *direction),
            RawEffect::Corrupt {
                share: percent,
                direction,
            } => Ok(Self::Corrupt {
                share: share("share", *percent)?,
                direction: direction.unwrap_or(Direction::Response),
            }),
            RawEffect::Loss(raw) => Ok(Self::Packet(raw.try_into()?)),
            RawEffect::Duplicate(raw) => Ok(Self::Packet(raw.try_into()?)),
            RawEffect::PacketCorrupt(raw) => Ok(Self::Packet(raw.try_into()?)),
            RawEffect::Partition(raw) => Ok(Self::Packet(raw.try_into()?)),
            RawEffect::Delay(raw) => Ok(Self::Packet(raw.try_into()?)),
            RawEffect::Jitter(raw) => Ok(Self::Packet(raw.try_into()?)),
            RawEffect::Reorder(raw) => Ok(Self::Packet(raw.try_into()?)),
            RawEffect::Rate(raw) => Ok(Self::Packet(raw.try_into()?)),
        }
    }
}

impl From<&Effect> for RawEffect {
    fn from(effect: &Effect) -> Self {
        match effect {
            Effect::Latency {
                delay,
                jitter,
                distribution,
                direction,
            } => Self::Latency {
                delay: format_duration(*delay),
                jitter: unless_zero(*jitter),
                distribution: (*distribution != Distribution::Uniform).then_some(*distribution),
                direction: Some(*direction),
            },
            Effect::Reset { after } => Self::Reset {
                after: unless_zero(*after),
            },
            Effect::Timeout { after, direction } => Self::Timeout {
                after: after.map(format_duration),
                direction: (*direction != Direction::Both).then_some(*direction),
            },
            Effect::Refuse => Self::Refuse {},
            Effect::Bandwidth { rate, direction } => Self::Bandwidth {
                rate: rate.to_string(),
                direction: Some(*direction),
            },
            Effect::Unreachable => Self::Unreachable {},
            Effect::ConnectTimeout { after } => Self::ConnectTimeout {
                after: after.map(format_duration),
            },
            Effect::ConnectDelay { delay, jitter } => Self::ConnectDelay {
                delay: format_duration(*delay),
                jitter: unless_zero(*jitter),
            },
            Effect::UdpDelay {
                delay,
                jitter,
                direction,
            } => Self::UdpDelay {
                delay: format_duration(*delay),
                jitter: unless_zero(*jitter),
                direction: Some(*direction),
            },
            Effect::UdpDrop { direction } => Self::UdpDrop {
                direction: Some(*direction),
            },
            Effect::UdpDuplicate { direction } => Self::UdpDuplicate {
                direction: Some(*direction),
            },
            Effect::SlowClose { delay, direction } => Self::SlowClose {
                delay: format_duration(*delay),
                direction: Some(*direction),
            },
            Effect::Slicer {
                size,
                variation,
                delay,
                direction,
            } => Self::Slicer {
                size: format!("{size}B"),
                variation: (*variation > 0).then(|| format!("{variation}B")),
                delay: unless_zero(*delay),
                direction: Some(*direction),
            },
            Effect::LimitData { bytes, direction } => Self::LimitData {
                bytes: format!("{bytes}B"),
                direction: Some(*direction),
            },
            Effect::Corrupt { share, direction } => Self::Corrupt {
                share: *share,
                direction: Some(*direction),
            },
            Effect::Packet(effect) => Self::from(effect),
        }
    }
}

fn delay_and_jitter(delay: &str, jitter: Option<&str>) -> Result<(Duration, Duration), FieldError> {
    let delay = time("delay", delay, MAX_DELAY)?;
    let jitter = optional_time("jitter", jitter, MAX_DELAY)?.unwrap_or_default();
    if delay.is_zero() {
        return Err(FieldError::new("delay", "must be above 0"));
    }
    if jitter > delay {
        return Err(FieldError::new("jitter", "must be at most `delay`"));
    }
    Ok((delay, jitter))
}

fn unless_zero(time: Duration) -> Option<String> {
    (!time.is_zero()).then(|| format_duration(time))
}

/// Reads a time of at most `max`; the error names `field`.
pub(super) fn time(field: &str, text: &str, max: Duration) -> Result<Duration, FieldError> {
    let time = parse_duration(text).map_err(|message| FieldError::new(field, message))?;
    if time > max {
        let max = format_duration(max);
        return Err(FieldError::new(
            field,
            format_args!("must be at most {max}, got {text}"),
        ));
    }
    Ok(time)
}

fn optional_time(field: &str, text: Option<&str>, max: Duration) -> Result<Option<Duration>, FieldError> {
    text.map(|text| time(field, text, max)).transpose()
}
