//! Decides what the armed faults do to one UDP datagram; the proxy carries it out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    book::{Active, ArmedFault},
    chance::{take, takes_step},
    delays::Delays,
};
use crate::model::{Called, Caller, Direction, Distribution, Effect};

/// What becomes of one datagram.
#[derive(Debug)]
pub struct Fate {
    /// How many of it arrive: 0 when it is lost.
    pub copies: u32,
    /// When they arrive; `None` for at once.
    pub at: Option<Instant>,
    /// The end of the fault that delays it last: it then arrives at once.
    pub removed: CancellationToken,
    /// Keeps the datagram counted with each fault until it has arrived.
    pub active: Vec<Active>,
}

impl Fate {
    /// Asks each fault in order about a datagram between `caller` and `destination`.
    ///
    /// `direction` is the datagram's, [`Direction::Request`] or [`Direction::Response`]. Each affected datagram has its
    /// own chance, which comes from the fault's seed and how many datagrams it has seen.
    pub fn of(
        faults: &[Arc<ArmedFault>],
        caller: &Caller,
        destination: impl Called + Copy,
        direction: Direction,
    ) -> Self {
        let mut fate = Self {
            copies: 1,
            at: None,
            removed: CancellationToken::new(),
            active: Vec::new(),
        };
        let mut delay = Duration::ZERO;
        for armed in faults {
            // Such an effect is always the only one.
            let Some(step) = armed.fault.effects.first() else {
                continue;
            };
            let way = match step.effect {
                Effect::UdpDelay { direction, .. }
                | Effect::UdpDrop { direction }
                | Effect::UdpDuplicate { direction } => direction,
                _ => continue,
            };
            let is_meant = way == Direction::Both || way == direction;
            if !is_meant || armed.removed.is_cancelled() || !armed.fault.selector.matches(caller, destination)
            {
                continue;
            }
            let Some((number, active)) = take(armed) else {
                continue;
            };
            if !takes_step(armed.fault.seed, 0, number, step.percent) {
                continue;
            }
            match step.effect {
                Effect::UdpDelay {
                    delay: middle,
                    jitter,
                    ..
                } => {
                    let delays = Delays {
                        delay: middle,
                        jitter,
                        distribution: Distribution::Uniform,
                        seed: armed.fault.seed,
                    };
                    delay += delays.at(number);
                    fate.removed = armed.removed.clone();
                }
                Effect::UdpDrop { .. } => fate.copies = 0,
                Effect::UdpDuplicate { .. } => fate.copies *= 2,
                _ => {}
            }
            fate.active.push(active);
            if fate.copies == 0 {
                break;
            }
        }
        fate.at = (!delay.is_zero()).then(|| Instant::now() + delay);
        fate
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        fault::book::Book,
        model::{Fault, RawFault},
    };

    fn book(effects: &[&str]) -> Book {
        let book = Book::default();
        for effect in effects {
            let text = format!(r#"{{"everything":true,"seed":7,{effect}}}"#);
            let raw = serde_json::from_str::<RawFault>(&text).unwrap();
            book.add(Fault::try_from(&raw).unwrap()).unwrap();
        }
        book
    }

    fn fate(book: &Book, direction: Direction) -> Fate {
        let address: SocketAddr = "10.0.0.1:53".parse().unwrap();
        Fate::of(&book.list(), &Caller::default(), address, direction)
    }

    #[test]
    fn effects_are_chained_and_keep_to_their_direction() {
        let book = book(&[
            r#""effect":{"type":"udp_delay","delay":"1s","direction":"request"}"#,
            r#""effect":{"type":"udp_delay","delay":"2s","direction":"both"}"#,
            r#""effect":{"type":"udp_duplicate"}"#,
            r#""effect":{"type":"latency","delay":"1h"}"#,
        ]);
        let request = fate(&book, Direction::Request);
        let left = request.at.unwrap() - Instant::now();
        assert!(
            (Duration::from_millis(2900)..=Duration::from_secs(3)).contains(&left),
            "{left:?}"
        );
        assert_eq!((request.copies, request.active.len()), (1, 2));
        let response = fate(&book, Direction::Response);
        assert_eq!((response.copies, response.active.len()), (2, 2));
        book.clear();
        assert!(response.removed.is_cancelled());
        let free = fate(&book, Direction::Response);
        assert_eq!((free.copies, free.at, free.active.len()), (1, None, 0));
    }

    #[test]
    fn a_share_of_the_datagrams_is_lost_the_same_each_time() {
        let lost = || {
            let book = book(&[r#""effect":{"type":"udp_drop"},"percent":30"#]);
            let lost: Vec<bool> = (0..1000)
                .map(|_| fate(&book, Direction::Response).copies == 0)
                .collect();
            let count = lost.iter().filter(|lost| **lost).count();
            assert!((230..370).contains(&count), "{count}");
            assert_eq!(fate(&book, Direction::Request).copies, 1);
            lost
        };
        assert_eq!(lost(), lost());
    }
}
