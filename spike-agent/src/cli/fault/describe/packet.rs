//! Packet effects in words that a person reads.

use crate::model::{Direction, RawEffect, packet_effect::Checksum};

/// A packet effect as `loss 5% request on eth0`; none for an effect of another kind.
pub(super) fn effect(effect: &RawEffect) -> Option<String> {
    let (what, way, interfaces) = match effect {
        RawEffect::Loss(loss) => {
            let what = match (loss.percent, loss.gilbert_elliott) {
                (_, Some(model)) => format!(
                    "loss gemodel {},{},{},{}",
                    model.p, model.r, model.bad_loss, model.good_loss
                ),
                (percent, None) => format!("loss {}%", percent.unwrap_or_default()),
            };
            (what, loss.direction, &loss.interfaces)
        }
        RawEffect::Duplicate(raw) => {
            let what = format!("duplicate {}%", raw.percent);
            (what, raw.direction, &raw.interfaces)
        }
        RawEffect::PacketCorrupt(raw) => {
            let bits = match raw.bits {
                None | Some(1) => String::new(),
                Some(bits) => format!(" {bits} bits"),
            };
            let checksum = match raw.checksum {
                Some(Checksum::Fixed) => " checksum fixed",
                _ => "",
            };
            let what = format!("packet_corrupt {}%{bits}{checksum}", raw.percent);
            (what, raw.direction, &raw.interfaces)
        }
        RawEffect::Partition(raw) => ("partition".to_owned(), raw.direction, &raw.interfaces),
        RawEffect::Delay(raw) => {
            let jitter = raw.jitter.as_ref().map(|jitter| format!(" ±{jitter}"));
            let what = format!("delay {}{}", raw.delay, jitter.unwrap_or_default());
            (what, None, &raw.interfaces)
        }
        RawEffect::Jitter(raw) => (format!("jitter {}", raw.jitter), None, &raw.interfaces),
        RawEffect::Reorder(raw) => {
            let what = format!("reorder {}% by {}", raw.percent, raw.delay);
            (what, None, &raw.interfaces)
        }
        RawEffect::Rate(raw) => (format!("rate {}", raw.rate), None, &raw.interfaces),
        _ => return None,
    };
    let way = match way {
        Some(Direction::Request) => " request",
        Some(Direction::Response) => " response",
        // Both ways are what packet faults mean unless they say otherwise.
        Some(Direction::Both) | None => "",
    };
    let place = match interfaces.join(",") {
        none if none.is_empty() => none,
        names => format!(" on {names}"),
    };
    Some(what + way + &place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fault_words::FaultWords;

    #[test]
    fn a_packet_effect_reads_like_its_words() {
        for (words, wanted) in [
            ("loss --percent-loss 5 -i eth0", "loss 5% on eth0"),
            (
                "loss --gemodel 1,25 -i eth0@blue -i lo --direction request",
                "loss gemodel 1,25,100,0 request on eth0@blue,lo",
            ),
            ("duplicate --percent-duplicate 1", "duplicate 1%"),
            (
                "packet-corrupt --percent-corrupt 1 --bits 3 --checksum fixed",
                "packet_corrupt 1% 3 bits checksum fixed",
            ),
            ("partition --direction response", "partition response"),
            ("delay --delay 10ms --jitter 2ms", "delay 10ms ±2ms"),
            ("jitter --jitter 2ms", "jitter 2ms"),
            ("reorder --percent-reorder 10 --delay 5ms", "reorder 10% by 5ms"),
            ("rate --rate 1mbit", "rate 1mbit"),
        ] {
            let fault = FaultWords::parse_str(words).unwrap().to_raw().unwrap();
            assert_eq!(effect(fault.effect.as_ref().unwrap()).unwrap(), wanted);
        }
    }
}
