//! What a packet fault does and on which interfaces, as written and as checked.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Direction, FieldError, Rate, capture::is_interface_name, effect::time, units::format_duration};

/// Longest delay and jitter of packets: fq keeps packets for 10 s at most, and delays add up.
pub const MAX_PACKET_DELAY: Duration = Duration::from_secs(4);
/// Most neighbouring bits of a packet that are turned.
pub const MAX_BITS: u32 = 8;
/// Most interfaces of one fault.
pub const MAX_INTERFACES: usize = 64;

/// Packets are lost.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawLoss {
    /// Share of the packets that is lost, each by itself: above 0, at most 100. Either this or `gilbert_elliott`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 5.0)]
    pub percent: Option<f64>,
    /// Losses in bursts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gilbert_elliott: Option<GilbertElliott>,
    /// Which packets. Default: `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Interfaces, such as `eth0`, or `eth0@NETNS` in the network namespace of that name or process id. Default: the one
    /// by which this host reaches `to.cidr`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// The model of Gilbert and Elliott: losses depend on a state, good or bad, that may change with each packet. All
/// numbers are percent, as in tc-netem(8)'s `loss gemodel p r 1-h 1-k`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GilbertElliott {
    /// Chance of a change from good to bad: above 0, at most 100. Gaps are 100/p packets long on average.
    #[schema(example = 1.0)]
    pub p: f64,
    /// Chance of a change from bad to good: above 0, at most 100. Bursts are 100/r packets long on average.
    #[schema(example = 25.0)]
    pub r: f64,
    /// Share that is lost in the bad state, netem's `1-h`: above 0, at most 100. Default: 100.
    #[serde(default = "all")]
    pub bad_loss: f64,
    /// Share that is lost in the good state, netem's `1-k`: 0 to 100. Default: 0.
    #[serde(default)]
    pub good_loss: f64,
}

fn all() -> f64 {
    100.0
}

/// Packets come twice.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawDuplicate {
    /// Share of the packets that comes twice: above 0, at most 100.
    #[schema(example = 1.0)]
    pub percent: f64,
    /// Which packets. Default: `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Interfaces, see `loss`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// Bits of the payload are turned on the way.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPacketCorrupt {
    /// Share of the packets that is damaged: above 0, at most 100. Only TCP, UDP and ICMP packets with a payload are.
    #[schema(example = 1.0)]
    pub percent: f64,
    /// How many neighbouring bits are turned, 1 to 8. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 8)]
    pub bits: Option<u32>,
    /// What becomes of the checksum. Default: `wrong`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// Which packets. Default: `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Interfaces, see `loss`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// What becomes of the checksum of a damaged packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// It tells that the packet is damaged: who checks it drops the packet.
    Wrong,
    /// It fits the damaged packet: the application gets it.
    Fixed,
}

/// No packet passes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPartition {
    /// Which packets: `request` and `response` cut one way. Default: `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Interfaces, see `loss`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// Packets leave later. Needs the fq qdisc, as the next three do; `latency` is the same for bytes and needs nothing.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPacketDelay {
    /// How much later: above 0, at most 4s.
    #[schema(example = "100ms")]
    pub delay: String,
    /// Each delay is spread evenly over `delay` ± `jitter`, so that packets overtake each other; at most `delay`.
    /// Default: `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "20ms")]
    pub jitter: Option<String>,
    /// Interfaces by which they leave, see `loss`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// Packets leave up to some time later, so that they overtake each other.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPacketJitter {
    /// Each packet is held for a time spread evenly from 0 to this: above 0, at most 4s.
    #[schema(example = "20ms")]
    pub jitter: String,
    /// Interfaces by which they leave, see `loss`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// Some packets are overtaken by those after them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawReorder {
    /// Share of the packets that is held back: above 0, at most 100.
    #[schema(example = 10.0)]
    pub percent: f64,
    /// For how long: above 0, at most 4s.
    #[schema(example = "10ms")]
    pub delay: String,
    /// Interfaces by which they leave, see `loss`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// Packets leave no faster than a rate, which all of them share.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPacketRate {
    /// The rate, as in `bandwidth`, of whole packets with their headers. What would wait for more than 2 s is dropped.
    #[schema(example = "1mbit")]
    pub rate: String,
    /// Interfaces by which they leave, see `loss`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

/// A packet effect, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PacketEffect {
    /// What is done.
    pub kind: PacketKind,
    /// Which packets; what has to wait can only be what leaves, either way.
    pub direction: Direction,
    /// Interfaces without repetition; none means the one by which the destination is reached.
    pub interfaces: Vec<InterfaceName>,
}

/// What is done to packets, checked. Shares are percent: above 0, at most 100.
#[derive(Clone, Debug, PartialEq)]
pub enum PacketKind {
    /// Lost, each by itself.
    Loss(f64),
    /// Lost in bursts.
    BurstLoss(GilbertElliott),
    /// Come twice.
    Duplicate(f64),
    /// Damaged.
    Corrupt {
        /// Share.
        percent: f64,
        /// Bits turned, 1 to [`MAX_BITS`].
        bits: u32,
        /// What becomes of the checksum.
        checksum: Checksum,
    },
    /// All lost.
    Partition,
    /// Leave later.
    Delay {
        /// Above 0, at most [`MAX_PACKET_DELAY`].
        delay: Duration,
        /// At most `delay`.
        jitter: Duration,
    },
    /// Leave up to this much later: above 0, at most [`MAX_PACKET_DELAY`].
    Jitter(Duration),
    /// Some leave later.
    Reorder {
        /// Share.
        percent: f64,
        /// Above 0, at most [`MAX_PACKET_DELAY`].
        delay: Duration,
    },
    /// Leave no faster.
    Rate(Rate),
}

/// An interface, and the network namespace that it is in when that is not the agent's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName {
    /// Its name.
    pub name: String,
    /// A namespace's name below `/run/netns`, or the id of a process in it.
    pub netns: Option<String>,
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.netns {
            Some(netns) => write!(f, "@{netns}"),
            None => Ok(()),
        }
    }
}

impl InterfaceName {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, netns) = match text.split_once('@') {
            Some((name, netns)) => (name, Some(netns)),
            None => (text, None),
        };
        let is_netns = |netns: &str| {
            !matches!(netns, "" | "." | "..") && netns.len() <= 255 && !netns.contains(['/', '\0'])
        };
        if !is_interface_name(name) || !netns.is_none_or(is_netns) {
            return Err(format!(
                "`{text}` is neither an interface such as eth0 nor one in a network namespace such as eth0@NETNS, NETNS being a name below /run/netns or the id of a process"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            netns: netns.map(str::to_owned),
        })
    }
}

impl PacketEffect {
    /// The name that it has in JSON and on the command line.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            PacketKind::Loss(_) | PacketKind::BurstLoss(_) => "loss",
            PacketKind::Duplicate(_) => "duplicate",
            PacketKind::Corrupt { .. } => "packet_corrupt",
            PacketKind::Partition => "partition",
            PacketKind::Delay { .. } => "delay",
            PacketKind::Jitter(_) => "jitter",
            PacketKind::Reorder { .. } => "reorder",
            PacketKind::Rate(_) => "rate",
        }
    }

    /// It needs a queue that keeps packets until their time.
    pub fn waits(&self) -> bool {
        self.instead().is_some()
    }

    /// The effect on bytes that comes nearest to one that needs such a queue.
    pub fn instead(&self) -> Option<&'static str> {
        match self.kind {
            PacketKind::Delay { .. } | PacketKind::Jitter(_) | PacketKind::Reorder { .. } => Some("latency"),
            PacketKind::Rate(_) => Some("bandwidth"),
            _ => None,
        }
    }

    fn new(
        kind: PacketKind,
        direction: Option<Direction>,
        interfaces: &[String],
    ) -> Result<Self, FieldError> {
        if interfaces.len() > MAX_INTERFACES {
            let message = format_args!("must be at most {MAX_INTERFACES}");
            return Err(FieldError::new("interfaces", message));
        }
        let mut names = Vec::new();
        for (index, text) in interfaces.iter().enumerate() {
            let field = || format!("interfaces[{index}]");
            let name = InterfaceName::parse(text).map_err(|message| FieldError::new(field(), message))?;
            if names.contains(&name) {
                return Err(FieldError::new(field(), format_args!("`{text}` is named twice")));
            }
            names.push(name);
        }
        Ok(Self {
            kind,
            direction: direction.unwrap_or(Direction::Both),
            interfaces: names,
        })
    }

    fn interface_texts(&self) -> Vec<String> {
        self.interfaces.iter().map(InterfaceName::to_string).collect()
    }
}

/// Checks a share in percent, above 0.
fn share(field: &str, percent: f64) -> Result<f64, FieldError> {
    if percent > 0.0 && percent <= 100.0 {
        return Ok(percent);
    }
    let message = format_args!("must be above 0 and at most 100, got {percent}");
    Err(FieldError::new(field, message))
}

fn positive_time(field: &str, text: &str) -> Result<Duration, FieldError> {
    let time = time(field, text, MAX_PACKET_DELAY)?;
    if time.is_zero() {
        return Err(FieldError::new(field, "must be above 0"));
    }
    Ok(time)
}

impl TryFrom<&RawLoss> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawLoss) -> Result<Self, FieldError> {
        let kind = match (raw.percent, raw.gilbert_elliott) {
            (Some(percent), None) => PacketKind::Loss(share("percent", percent)?),
            (None, Some(model)) => {
                let within = |error: FieldError| error.within("gilbert_elliott");
                share("p", model.p).map_err(within)?;
                share("r", model.r).map_err(within)?;
                share("bad_loss", model.bad_loss).map_err(within)?;
                if !(0.0..=100.0).contains(&model.good_loss) {
                    let message = format_args!("must be from 0 to 100, got {}", model.good_loss);
                    return Err(within(FieldError::new("good_loss", message)));
                }
                PacketKind::BurstLoss(model)
            }
            _ => {
                let message = "say how many are lost, by `percent` or by `gilbert_elliott`, not both";
                return Err(FieldError::new("percent", message));
            }
        };
        Self::new(kind, raw.direction, &raw.interfaces)
    }
}

impl TryFrom<&RawDuplicate> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawDuplicate) -> Result<Self, FieldError> {
        let kind = PacketKind::Duplicate(share("percent", raw.percent)?);
        Self::new(kind, raw.direction, &raw.interfaces)
    }
}

impl TryFrom<&RawPacketCorrupt> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawPacketCorrupt) -> Result<Self, FieldError> {
        let bits = raw.bits.unwrap_or(1);
        if !(1..=MAX_BITS).contains(&bits) {
            let message = format_args!("must be from 1 to {MAX_BITS}, got {bits}");
            return Err(FieldError::new("bits", message));
        }
        let kind = PacketKind::Corrupt {
            percent: share("percent", raw.percent)?,
            bits,
            checksum: raw.checksum.unwrap_or(Checksum::Wrong),
        };
        Self::new(kind, raw.direction, &raw.interfaces)
    }
}

impl TryFrom<&RawPartition> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawPartition) -> Result<Self, FieldError> {
        Self::new(PacketKind::Partition, raw.direction, &raw.interfaces)
    }
}

impl TryFrom<&RawPacketDelay> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawPacketDelay) -> Result<Self, FieldError> {
        let delay = positive_time("delay", &raw.delay)?;
        let jitter = raw.jitter.as_deref().unwrap_or("0s");
        let jitter = time("jitter", jitter, MAX_PACKET_DELAY)?;
        if jitter > delay {
            return Err(FieldError::new("jitter", "must be at most `delay`"));
        }
        Self::new(PacketKind::Delay { delay, jitter }, None, &raw.interfaces)
    }
}

impl TryFrom<&RawPacketJitter> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawPacketJitter) -> Result<Self, FieldError> {
        let kind = PacketKind::Jitter(positive_time("jitter", &raw.jitter)?);
        Self::new(kind, None, &raw.interfaces)
    }
}

impl TryFrom<&RawReorder> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawReorder) -> Result<Self, FieldError> {
        let kind = PacketKind::Reorder {
            percent: share("percent", raw.percent)?,
            delay: positive_time("delay", &raw.delay)?,
        };
        Self::new(kind, None, &raw.interfaces)
    }
}

impl TryFrom<&RawPacketRate> for PacketEffect {
    type Error = FieldError;

    fn try_from(raw: &RawPacketRate) -> Result<Self, FieldError> {
        let rate = Rate::parse(&raw.rate).map_err(|message| FieldError::new("rate", message))?;
        Self::new(PacketKind::Rate(rate), None, &raw.interfaces)
    }
}

impl From<&PacketEffect> for super::RawEffect {
    fn from(effect: &PacketEffect) -> Self {
        let interfaces = effect.interface_texts();
        let direction = Some(effect.direction);
        match effect.kind {
            PacketKind::Loss(percent) => Self::Loss(RawLoss {
                percent: Some(percent),
                gilbert_elliott: None,
                direction,
                interfaces,
            }),
            PacketKind::BurstLoss(model) => Self::Loss(RawLoss {
                percent: None,
                gilbert_elliott: Some(model),
                direction,
                interfaces,
            }),
            PacketKind::Duplicate(percent) => Self::Duplicate(RawDuplicate {
                percent,
                direction,
                interfaces,
            }),
            PacketKind::Corrupt {
                percent,
                bits,
                checksum,
            } => Self::PacketCorrupt(RawPacketCorrupt {
                percent,
                bits: Some(bits),
                checksum: Some(checksum),
                direction,
                interfaces,
            }),
            PacketKind::Partition => Self::Partition(RawPartition {
                direction,
                interfaces,
            }),
            PacketKind::Delay { delay, jitter } => Self::Delay(RawPacketDelay {
                delay: format_duration(delay),
                jitter: (!jitter.is_zero()).then(|| format_duration(jitter)),
                interfaces,
            }),
            PacketKind::Jitter(jitter) => Self::Jitter(RawPacketJitter {
                jitter: format_duration(jitter),
                interfaces,
            }),
            PacketKind::Reorder { percent, delay } => Self::Reorder(RawReorder {
                percent,
                delay: format_duration(delay),
                interfaces,
            }),
            PacketKind::Rate(rate) => Self::Rate(RawPacketRate {
                rate: rate.to_string(),
                interfaces,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Effect, Fault, RawEffect, RawFault};

    fn effect(body: &str) -> Result<PacketEffect, FieldError> {
        let raw: RawEffect = serde_json::from_str(body).unwrap();
        match Effect::try_from(&raw)? {
            Effect::Packet(effect) => Ok(effect),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_normalised_form_means_the_same() {
        for body in [
            r#"{"type":"loss","percent":0.5,"interfaces":["eth0","eth0@blue"]}"#,
            r#"{"type":"loss","gilbert_elliott":{"p":1,"r":25}}"#,
            r#"{"type":"loss","gilbert_elliott":{"p":1,"r":25,"bad_loss":50,"good_loss":0.1},"direction":"request"}"#,
            r#"{"type":"duplicate","percent":100}"#,
            r#"{"type":"packet_corrupt","percent":1,"bits":3,"checksum":"fixed"}"#,
            r#"{"type":"partition"}"#,
            r#"{"type":"partition","direction":"response"}"#,
            r#"{"type":"delay","delay":"4s","jitter":"4s"}"#,
            r#"{"type":"jitter","jitter":"1ms"}"#,
            r#"{"type":"reorder","percent":10,"delay":"5ms"}"#,
            r#"{"type":"rate","rate":"1mbit"}"#,
        ] {
            let checked = effect(body).unwrap();
            let raw = RawEffect::from(&checked);
            assert_eq!(Effect::try_from(&raw), Ok(Effect::Packet(checked)), "{body}");
            let again: RawEffect = serde_json::from_str(&serde_json::to_string(&raw).unwrap()).unwrap();
            assert_eq!(again, raw, "{body}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (body, field) in [
            (r#"{"type":"loss"}"#, "percent"),
            (
                r#"{"type":"loss","percent":1,"gilbert_elliott":{"p":1,"r":1}}"#,
                "percent",
            ),
            (r#"{"type":"loss","percent":0}"#, "percent"),
            (r#"{"type":"loss","percent":101}"#, "percent"),
            (
                r#"{"type":"loss","gilbert_elliott":{"p":0,"r":1}}"#,
                "gilbert_elliott.p",
            ),
            (
                r#"{"type":"loss","gilbert_elliott":{"p":1,"r":1,"good_loss":101}}"#,
                "gilbert_elliott.good_loss",
            ),
            (r#"{"type":"packet_corrupt","percent":1,"bits":9}"#, "bits"),
            (r#"{"type":"delay","delay":"5s"}"#, "delay"),
            (r#"{"type":"delay","delay":"0s"}"#, "delay"),
            (r#"{"type":"delay","delay":"1s","jitter":"2s"}"#, "jitter"),
            (r#"{"type":"reorder","percent":1,"delay":"1"}"#, "delay"),
            (r#"{"type":"rate","rate":"1"}"#, "rate"),
            (r#"{"type":"partition","interfaces":["a/b"]}"#, "interfaces[0]"),
            (r#"{"type":"partition","interfaces":["a@"]}"#, "interfaces[0]"),
            (r#"{"type":"partition","interfaces":["a@../x"]}"#, "interfaces[0]"),
            (r#"{"type":"partition","interfaces":["a","a"]}"#, "interfaces[1]"),
        ] {
            assert_eq!(effect(body).unwrap_err().field, field, "{body}");
        }
        for unknown in [
            r#"{"type":"loss","percent":1,"interface":"eth0"}"#,
            r#"{"type":"partition","percent":1}"#,
            r#"{"type":"loss","gilbert_elliott":{"p":1,"r":1,"h":1}}"#,
        ] {
            assert!(serde_json::from_str::<RawEffect>(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn what_counts_connections_is_refused() {
        let body = r#"{"to":{"port":80},"effect":{"type":"partition"},"max_active":1}"#;
        let raw: RawFault = serde_json::from_str(body).unwrap();
        assert_eq!(Fault::try_from(&raw).unwrap_err().field, "max_active");
    }
}
