//! How the answer to a request that was sent again is judged.

use std::time::{Duration, Instant};

use super::{Shared, plan::Step};
use crate::replay::parts::{Difference, Parts};

/// What became of a request that was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// From 0, in recorded order.
    pub number: usize,
    /// The call: `GET /users/7`.
    pub label: String,
    /// The same for all of its kind.
    pub kind: String,
    /// When it was to be sent, after the start of the recording as it is sent.
    pub due: Duration,
    /// How much later it was sent.
    pub late: Duration,
    /// From its last byte to the first of the answer; none without an answer.
    pub latency: Option<Duration>,
    /// The same in the recording.
    pub recorded: Option<Duration>,
    /// Where the answer differs from the recorded one.
    pub differences: Vec<Difference>,
    /// Why there is no answer.
    pub error: Option<String>,
}

impl Outcome {
    /// Whether the answer was as it should be.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty() && self.error.is_none()
    }
}

impl Shared {
    /// Judges an answer, with its latency, or says why there is none.
    pub(super) fn judge(
        &self,
        step: &Step,
        due: Instant,
        sent: Option<Instant>,
        answer: Result<(Parts, Duration), String>,
    ) -> Outcome {
        let exchange = &step.exchange;
        let mut outcome = Outcome {
            number: step.number,
            label: exchange.label.clone(),
            kind: exchange.kind.clone(),
            due: step.due,
            late: sent.map_or(Duration::ZERO, |sent| sent.saturating_duration_since(due)),
            latency: None,
            recorded: exchange.waited,
            differences: Vec::new(),
            error: None,
        };
        match answer {
            Ok((parts, latency)) => {
                outcome.latency = Some(latency);
                self.carry(&exchange.response, &parts);
                // What was not recorded to its end can't be compared.
                if exchange.whole {
                    let noise = &self.options.noise;
                    outcome.differences = noise.differences(&exchange.kind, &exchange.response, &parts);
                    let carried = &self.options.changes.carry;
                    outcome
                        .differences
                        .retain(|difference| !carried.contains(&difference.part));
                }
            }
            Err(why) => outcome.error = Some(why),
        }
        outcome
    }

    /// Keeps new values of the parts that are carried on.
    fn carry(&self, recorded: &Parts, came: &Parts) {
        for part in &self.options.changes.carry {
            let plain = |parts: &Parts| parts.get(part).map(|value| value.trim_matches('"').to_owned());
            let (Some(old), Some(new)) = (plain(recorded), plain(came)) else {
                continue;
            };
            if old != new && !old.is_empty() {
                let mut carried = self
                    .carried
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                carried.retain(|(known, _)| *known != old);
                carried.push((old, new));
            }
        }
    }
}
