//! Requests that were not recorded, each kind once with a count, so that a busy caller does not fill the memory.

use std::sync::{Mutex, PoisonError};

use super::Nearest;

/// Different misses that are kept; more are only counted.
const MISSES_LIMIT: usize = 1000;

/// A request that was not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Address and port of the server that was asked.
    pub server: String,
    /// The request.
    pub label: String,
    /// What the recording has that is most like it.
    pub nearest: Option<Nearest>,
    /// Why it could not be answered, when it is not that nothing is recorded.
    pub note: Option<String>,
    /// How often it came.
    pub count: u64,
}

#[derive(Debug, Default)]
pub(super) struct Misses(Mutex<Vec<Miss>>);

impl Misses {
    pub(super) fn add(&self, miss: Miss) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&mut Miss| {
            (&known.server, &known.label, &known.nearest, &known.note)
                == (&miss.server, &miss.label, &miss.nearest, &miss.note)
        };
        if let Some(known) = all.iter_mut().find(same) {
            known.count += 1;
        } else if all.len() < MISSES_LIMIT {
            all.push(miss);
        }
    }

    pub(super) fn list(&self) -> Vec<Miss> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Miss {
    /// In words, for a person and for the caller that gets an error.
    pub fn explain(&self) -> String {
        let mut text = format!("no recorded answer to {}", self.label);
        if let Some(note) = &self.note {
            text = format!("{text} ({note})");
        }
        match &self.nearest {
            None => {}
            Some(nearest) if nearest.differences.is_empty() => {
                text.push_str("; it is recorded, but its answer is not there to its end");
            }
            Some(nearest) => {
                text = format!("{text}; nearest: {}", nearest.label);
                for difference in nearest.differences.iter().take(8) {
                    text = format!("{text}; {difference}");
                }
            }
        }
        text
    }
}
