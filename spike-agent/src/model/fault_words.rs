//! A fault in words: the arguments of `spike fault add` and the string of `spike exec --fault`.

mod abort;
mod edge;
mod end;
mod packet;

use clap::{Args, Parser, Subcommand};

pub use edge::{edge_words, to_words};
pub use end::EndWords;
use packet::PacketWords;

use super::{Direction, Distribution, Existing, FieldError, RawEffect, RawFault, RawStep};

/// A fault in words: an effect and, after it, its options.
#[derive(Clone, Debug, Args)]
pub struct FaultWords {
    #[command(subcommand)]
    effect: EffectWords,
}

#[derive(Clone, Debug, Subcommand)]
enum EffectWords {
    /// Delay bytes
    Latency {
        /// How much later bytes arrive, such as 200ms (at most 1h)
        #[arg(long, value_name = "TIME")]
        delay: String,
        /// How far single delays spread, at most DELAY
        #[arg(long, value_name = "TIME")]
        jitter: Option<String>,
        /// How they spread: evenly over DELAY ± JITTER; normal with JITTER as standard deviation; or pareto, never
        /// below DELAY and on average JITTER above it [default: uniform]
        #[arg(long, value_enum)]
        distribution: Option<Distribution>,
        /// Which bytes [default: response]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Tear connections down with a TCP reset
    Reset {
        /// Time from a connection's opening until then [default: 0s]
        #[arg(long, value_name = "TIME")]
        after: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Let connections open, then let no byte pass
    Timeout {
        /// Time from a connection's opening until it is closed [default: never]
        #[arg(long, value_name = "TIME")]
        after: Option<String>,
        /// Which bytes [default: both]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Fail attempts to connect with ECONNREFUSED
    Refuse {
        #[command(flatten)]
        common: Common,
    },
    /// Limit how fast bytes pass
    Bandwidth {
        /// Rate of each connection and direction, such as 64kbit, 1mbit, 100KB/s or 1MiB/s
        #[arg(long, value_name = "RATE")]
        rate: String,
        /// Which bytes [default: both]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Fail attempts to connect with EHOSTUNREACH
    Unreachable {
        #[command(flatten)]
        common: Common,
    },
    /// Leave attempts to connect without an answer, until they fail with ETIMEDOUT
    #[command(name = "connect_timeout", alias = "connect-timeout")]
    ConnectTimeout {
        /// Time until ETIMEDOUT, from 1s [default: as long as the caller's kernel tries]
        #[arg(long, value_name = "TIME")]
        after: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Delay the handshake of connections
    #[command(name = "connect_delay", alias = "connect-delay")]
    ConnectDelay {
        /// How much later connections are established, such as 200ms (at most 1h)
        #[arg(long, value_name = "TIME")]
        delay: String,
        /// Spread each delay evenly over DELAY ± this
        #[arg(long, value_name = "TIME")]
        jitter: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Delay UDP datagrams
    #[command(name = "udp_delay", alias = "udp-delay")]
    UdpDelay {
        /// How much later datagrams arrive, such as 200ms (at most 1h)
        #[arg(long, value_name = "TIME")]
        delay: String,
        /// Spread each delay evenly over DELAY ± this
        #[arg(long, value_name = "TIME")]
        jitter: Option<String>,
        /// Which datagrams [default: response]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Let the end of a direction arrive later, but not its bytes
    #[command(name = "slow_close", alias = "slow-close")]
    SlowClose {
        /// How much later, such as 2s (at most 1h)
        #[arg(long, value_name = "TIME")]
        delay: String,
        /// Whose end [default: both]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Lose UDP datagrams
    #[command(name = "udp_drop", alias = "udp-drop")]
    UdpDrop {
        /// Which datagrams [default: response]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Let bytes arrive in small pieces
    Slicer {
        /// Average size of a piece, such as 64B (at most 1MiB)
        #[arg(long, value_name = "BYTES")]
        size: String,
        /// Spread sizes evenly over SIZE ± this
        #[arg(long, value_name = "BYTES")]
        variation: Option<String>,
        /// Pause after each piece [default: 0s]
        #[arg(long, value_name = "TIME")]
        delay: Option<String>,
        /// Which bytes [default: response]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Deliver UDP datagrams twice
    #[command(name = "udp_duplicate", alias = "udp-duplicate")]
    UdpDuplicate {
        /// Which datagrams [default: response]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Close connections after a number of bytes
    #[command(name = "limit_data", alias = "limit-data")]
    LimitData {
        /// How many bytes pass before, such as 10KiB
        #[arg(long, value_name = "BYTES")]
        bytes: String,
        /// Which bytes are counted [default: response]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    /// Flip one bit of some bytes
    Corrupt {
        /// Share of the bytes in percent, above 0
        #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
        share: f64,
        /// Which bytes [default: response]
        #[arg(long, value_enum)]
        direction: Option<Direction>,
        #[command(flatten)]
        common: Common,
    },
    #[command(flatten)]
    Packet(PacketWords),
}

#[derive(Clone, Debug, Args)]
struct Common {
    #[command(flatten)]
    ends: EndWords,
    /// Mean all calls of this host; needed when neither --from nor --to is given
    #[arg(long)]
    everything: bool,
    /// Share of the matching connections that is affected, above 0 [default: 100]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    percent: Option<f64>,
    /// Start of the choices by chance, for a run that can be repeated [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Time until the fault removes itself (at most 24h) [default: 10m]
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Most connections affected at one time [default: no limit]
    #[arg(long, value_name = "COUNT")]
    max_active: Option<u32>,
    /// Its name: letters, digits, `.`, `_` and `-` [default: made from the effect]
    #[arg(long)]
    name: Option<String>,
    /// Another effect that bytes pass after this one, with its options and --percent; may be repeated
    #[arg(long, value_name = "EFFECT")]
    then: Vec<String>,
    /// What becomes of matching connections that are open already [default: keep]
    #[arg(long, value_enum)]
    existing: Option<Existing>,
    /// Only count what it would do
    #[arg(long)]
    dry_run: bool,
    /// Remove it by itself when calls go worse: errors=PERCENT, p99=TIME, window=TIME, calls=COUNT
    #[arg(long, value_name = "KEY=VALUE[,..]")]
    abort_when: Option<String>,
}

/// Why words are no fault.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// A quote is not closed.
    #[error("a quote or a backslash is left open")]
    Quoting,
    /// The words are not those of `spike fault add`.
    #[error("{0}")]
    Words(String),
    /// A selector is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// What is wrong, without the usage that clap adds below; help that was asked for stays whole.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    if !error.use_stderr() || !text.starts_with("error: ") {
        return text;
    }
    let lines = text.trim_start_matches("error: ").lines().map(str::trim);
    lines
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

impl FaultWords {
    /// Reads the words of `spike fault add` from one string, split as a shell does.
    pub fn parse_str(text: &str) -> Result<Self, WordsError> {
        #[derive(Parser)]
        #[command(name = "--fault", about = None, no_binary_name = true, disable_help_subcommand = true)]
        struct Line {
            #[command(flatten)]
            words: FaultWords,
        }
        let words = shlex::split(text).ok_or(WordsError::Quoting)?;
        let line = Line::try_parse_from(words);
        line.map(|line| line.words)
            .map_err(|error| WordsError::Words(first_paragraph(&error)))
    }

    /// The fault as the API takes it; its values are checked by the agent.
    pub fn to_raw(&self) -> Result<RawFault, FieldError> {
        let (effect, common) = self.effect.clone().split()?;
        let (effect, effects) = if common.then.is_empty() {
            (Some(effect), Vec::new())
        } else {
            let first = RawStep {
                percent: None,
                effect,
            };
            let then = common.then.iter().map(|words| step(words));
            let steps = std::iter::once(Ok(first)).chain(then);
            (None, steps.collect::<Result<_, _>>()?)
        };
        Ok(RawFault {
            name: common.name,
            from: common.ends.from()?,
            to: common.ends.to()?,
            everything: common.everything,
            effect,
            effects,
            percent: common.percent,
            seed: common.seed,
            ttl: common.ttl,
            max_active: common.max_active,
            existing: common.existing.unwrap_or_default(),
            dry_run: common.dry_run,
            abort_when: common.abort_when.as_deref().map(abort::read).transpose()?,
            relay: None,
        })
    }
}

/// An effect of `--then`: only it and its share can be said there.
fn step(words: &str) -> Result<RawStep, FieldError> {
    let within = |message: String| FieldError::new("then", message);
    let words = FaultWords::parse_str(words).map_err(|error| within(error.to_string()))?;
    let raw = words.to_raw()?;
    let said = RawFault {
        effect: None,
        percent: None,
        ..raw.clone()
    };
    match raw.effect {
        Some(effect) if said == RawFault::default() => Ok(RawStep {
            percent: raw.percent,
            effect,
        }),
        _ => Err(within(
            "takes an effect, its own options and --percent; the rest belongs to the whole fault".to_owned(),
        )),
    }
}

impl EffectWords {
    /// The effect, and what belongs to the fault.
    fn split(self) -> Result<(RawEffect, Common), FieldError> {
        Ok(match self {
            Self::Latency {
                delay,
                jitter,
                distribution,
                direction,
                common,
            } => (
                RawEffect::Latency {
                    delay,
                    jitter,
                    distribution,
                    direction,
                },
                common,
            ),
            Self::Reset { after, common } => (RawEffect::Reset { after }, common),
            Self::Timeout {
                after,
                direction,
                common,
            } => (RawEffect::Timeout { after, direction }, common),
            Self::Refuse { common } => (RawEffect::Refuse {}, common),
            Self::Bandwidth {
                rate,
                direction,
                common,
            } => (RawEffect::Bandwidth { rate, direction }, common),
            Self::SlowClose {
                delay,
                direction,
                common,
            } => (RawEffect::SlowClose { delay, direction }, common),
            Self::Slicer {
                size,
                variation,
                delay,
                direction,
                common,
            } => (
                RawEffect::Slicer {
                    size,
                    variation,
                    delay,
                    direction,
                },
                common,
            ),
            Self::LimitData {
                bytes,
                direction,
                common,
            } => (RawEffect::LimitData { bytes, direction }, common),
            Self::Corrupt {
                share,
                direction,
                common,
            } => (RawEffect::Corrupt { share, direction }, common),
            Self::Unreachable { common } => (RawEffect::Unreachable {}, common),
            Self::ConnectTimeout { after, common } => (RawEffect::ConnectTimeout { after }, common),
            Self::ConnectDelay {
                delay,
                jitter,
                common,
            } => (RawEffect::ConnectDelay { delay, jitter }, common),
            Self::UdpDelay {
                delay,
                jitter,
                direction,
                common,
            } => (
                RawEffect::UdpDelay {
                    delay,
                    jitter,
                    direction,
                },
                common,
            ),
            Self::UdpDrop { direction, common } => (RawEffect::UdpDrop { direction }, common),
            Self::UdpDuplicate { direction, common } => (RawEffect::UdpDuplicate { direction }, common),
            Self::Packet(words) => words.split()?,
        })
    }
}

#[cfg(test)]
mod tests;
