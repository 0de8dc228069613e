//! Packet effects in words.

use clap::{Args, Subcommand};

use super::Common;
use crate::model::{
    Direction, FieldError, RawEffect,
    packet_effect::{
        Checksum, GilbertElliott, RawDuplicate, RawLoss, RawPacketCorrupt, RawPacketDelay, RawPacketJitter,
        RawPacketRate, RawPartition, RawReorder,
    },
};

#[derive(Clone, Debug, Subcommand)]
pub(super) enum PacketWords {
    /// Lose packets on an interface
    Loss {
        /// Share of the packets that is lost, each by itself, above 0
        #[arg(
            long,
            value_name = "PERCENT",
            allow_negative_numbers = true,
            required_unless_present = "gemodel"
        )]
        percent_loss: Option<f64>,
        /// Losses in bursts, by the model of Gilbert and Elliott: the chances in percent of a change from good to bad
        /// and back with each packet, then the shares lost while bad [default: 100] and while good [default: 0]
        #[arg(long, value_name = "P,R[,1-H[,1-K]]", conflicts_with = "percent_loss")]
        gemodel: Option<String>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        common: Common,
    },
    /// Have packets come twice
    Duplicate {
        /// Share of the packets that comes twice, above 0
        #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
        percent_duplicate: f64,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        common: Common,
    },
    /// Turn bits of packets' payloads
    PacketCorrupt {
        /// Share of the packets that is damaged, above 0
        #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
        percent_corrupt: f64,
        /// How many neighbouring bits are turned, 1 to 8 [default: 1]
        #[arg(long)]
        bits: Option<u32>,
        /// Let checksums tell the damage, or make them fit it [default: wrong]
        #[arg(long, value_enum)]
        checksum: Option<Checksum>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        common: Common,
    },
    /// Let no packet pass, both ways or one
    Partition {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        common: Common,
    },
    /// Have packets leave later (needs the fq qdisc; latency needs nothing)
    Delay {
        /// How much later packets leave, such as 100ms (at most 4s)
        #[arg(long, value_name = "TIME")]
        delay: String,
        /// Spread each delay evenly over DELAY ± this, so that packets overtake each other
        #[arg(long, value_name = "TIME")]
        jitter: Option<String>,
        #[command(flatten)]
        leaving: Leaving,
        #[command(flatten)]
        common: Common,
    },
    /// Have packets leave up to some time later (needs the fq qdisc)
    Jitter {
        /// Hold each packet for a time spread evenly from 0 to this (at most 4s)
        #[arg(long, value_name = "TIME")]
        jitter: String,
        #[command(flatten)]
        leaving: Leaving,
        #[command(flatten)]
        common: Common,
    },
    /// Have some packets overtaken by those after them (needs the fq qdisc)
    Reorder {
        /// Share of the packets that is held back, above 0
        #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
        percent_reorder: f64,
        /// For how long, such as 10ms (at most 4s)
        #[arg(long, value_name = "TIME")]
        delay: String,
        #[command(flatten)]
        leaving: Leaving,
        #[command(flatten)]
        common: Common,
    },
    /// Have packets leave no faster than a rate (needs the fq qdisc; bandwidth needs nothing)
    Rate {
        /// Rate of all chosen packets together, such as 1mbit or 100KB/s
        #[arg(long, value_name = "RATE")]
        rate: String,
        #[command(flatten)]
        leaving: Leaving,
        #[command(flatten)]
        common: Common,
    },
}

/// Where packets are met.
#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// Which packets: to the called end, or from it [default: both]
    #[arg(long, value_enum)]
    direction: Option<Direction>,
    #[command(flatten)]
    leaving: Leaving,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Leaving {
    /// Interface, or one in a network namespace given by its name or by a process in it; may be given several times
    /// [default: the one by which the address of --to is reached]
    #[arg(long = "interface", short = 'i', value_name = "NAME[@NETNS]")]
    interfaces: Vec<String>,
}

impl PacketWords {
    /// The effect, and what all faults have.
    pub(super) fn split(self) -> Result<(RawEffect, Common), FieldError> {
        Ok(match self {
            Self::Loss {
                percent_loss,
                gemodel,
                place,
                common,
            } => (
                RawEffect::Loss(RawLoss {
                    percent: percent_loss,
                    gilbert_elliott: gemodel.as_deref().map(read_model).transpose()?,
                    direction: place.direction,
                    interfaces: place.leaving.interfaces,
                }),
                common,
            ),
            Self::Duplicate {
                percent_duplicate: percent,
                place,
                common,
            } => (
                RawEffect::Duplicate(RawDuplicate {
                    percent,
                    direction: place.direction,
                    interfaces: place.leaving.interfaces,
                }),
                common,
            ),
            Self::PacketCorrupt {
                percent_corrupt: percent,
                bits,
                checksum,
                place,
                common,
            } => (
                RawEffect::PacketCorrupt(RawPacketCorrupt {
                    percent,
                    bits,
                    checksum,
                    direction: place.direction,
                    interfaces: place.leaving.interfaces,
                }),
                common,
            ),
            Self::Partition { place, common } => (
                RawEffect::Partition(RawPartition {
                    direction: place.direction,
                    interfaces: place.leaving.interfaces,
                }),
                common,
            ),
            Self::Delay {
                delay,
                jitter,
                leaving: Leaving { interfaces },
                common,
            } => (
                RawEffect::Delay(RawPacketDelay {
                    delay,
                    jitter,
                    interfaces,
                }),
                common,
            ),
            Self::Jitter {
                jitter,
                leaving: Leaving { interfaces },
                common,
            } => (RawEffect::Jitter(RawPacketJitter { jitter, interfaces }), common),
            Self::Reorder {
                percent_reorder: percent,
                delay,
                leaving: Leaving { interfaces },
                common,
            } => (
                RawEffect::Reorder(RawReorder {
                    percent,
                    delay,
                    interfaces,
                }),
                common,
            ),
            Self::Rate {
                rate,
                leaving: Leaving { interfaces },
                common,
            } => (RawEffect::Rate(RawPacketRate { rate, interfaces }), common),
        })
    }
}

/// Reads `P,R[,1-H[,1-K]]`.
fn read_model(text: &str) -> Result<GilbertElliott, FieldError> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[p, r, ref rest @ ..]) if rest.len() <= 2 => Ok(GilbertElliott {
            p,
            r,
            bad_loss: rest.first().copied().unwrap_or(100.0),
            good_loss: rest.get(1).copied().unwrap_or(0.0),
        }),
        _ => {
            let message =
                format_args!("`{text}` is not two to four percentages with commas, such as 1,25,100,0");
            Err(FieldError::new("gemodel", message))
        }
    }
}
