//! A fault in words: the arguments of `spike fault add` and the string of `spike exec --fault`.

mod edge;
mod end;
mod packet;

use clap::{Args, Parser, Subcommand};

pub use edge::{edge_words, to_words};
pub use end::EndWords;
use packet::PacketWords;

use super::{Direction, FieldError, RawEffect, RawFault};

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
        /// Spread each delay evenly over DELAY ± this
        #[arg(long, value_name = "TIME")]
        jitter: Option<String>,
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
    /// Lose UDP datagrams
    #[command(name = "udp_drop", alias = "udp-drop")]
    UdpDrop {
        /// Which datagrams [default: response]
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
        let (effect, common) = match self.effect.clone() {
            EffectWords::Latency {
                delay,
                jitter,
                direction,
                common,
            } => (
                RawEffect::Latency {
                    delay,
                    jitter,
                    direction,
                },
                common,
            ),
            EffectWords::Reset { after, common } => (RawEffect::Reset { after }, common),
            EffectWords::Timeout { after, common } => (RawEffect::Timeout { after }, common),
            EffectWords::Refuse { common } => (RawEffect::Refuse {}, common),
            EffectWords::Bandwidth {
                rate,
                direction,
                common,
            } => (RawEffect::Bandwidth { rate, direction }, common),
            EffectWords::Unreachable { common } => (RawEffect::Unreachable {}, common),
            EffectWords::ConnectTimeout { after, common } => (RawEffect::ConnectTimeout { after }, common),
            EffectWords::ConnectDelay {
                delay,
                jitter,
                common,
            } => (RawEffect::ConnectDelay { delay, jitter }, common),
            EffectWords::UdpDelay {
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
            EffectWords::UdpDrop { direction, common } => (RawEffect::UdpDrop { direction }, common),
            EffectWords::UdpDuplicate { direction, common } => {
                (RawEffect::UdpDuplicate { direction }, common)
            }
            EffectWords::Packet(words) => words.to_raw()?,
        };
        Ok(RawFault {
            name: common.name,
            from: common.ends.from()?,
            to: common.ends.to()?,
            everything: common.everything,
            effect,
            percent: common.percent,
            seed: common.seed,
            ttl: common.ttl,
            max_active: common.max_active,
        })
    }
}

#[cfg(test)]
mod tests;
