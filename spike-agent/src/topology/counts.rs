//! What happened on an edge in a stretch of time: can be added up, and taken from each other.

use serde::{Deserialize, Serialize};
use spike_common::edge::{EdgeStats, FAILURES, Failure};

use super::latency::Histogram;
use crate::model::{
    edge::Decoded,
    view::{EdgeDecodingView, EdgeView, FailuresView},
};

/// The counts of one edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Counts {
    /// Connections opened.
    pub opened: u64,
    /// Attempts to connect that failed, by [`Failure`].
    pub failed: [u64; FAILURES],
    /// Connections torn down with a reset.
    pub reset: u64,
    /// Connections open at the end; not a sum.
    pub open: u64,
    /// Requests that were followed by a response.
    pub calls: u64,
    /// Bytes from the caller.
    pub bytes_out: u64,
    /// Bytes to the caller.
    pub bytes_in: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Sum of round-trip times in microseconds.
    pub rtt_sum: u64,
    /// How many of them.
    pub rtt_count: u64,
    /// Sum of latencies in nanoseconds.
    pub latency_sum: u64,
    /// The latencies.
    pub latency: Histogram,
    /// What decoding found out.
    pub decoded: Option<DecodedCounts>,
}

/// What decoding found out about an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DecodedCounts {
    /// Calls that were decoded.
    pub calls: u64,
    /// Of these, the failed ones.
    pub failed: u64,
    /// Segments that the decoder was given.
    pub segments: u64,
    /// Segments that were lost on the way to it.
    pub lost_segments: u64,
    /// Calls whose end could not be told.
    pub lost_calls: u64,
    /// Messages that are not what the protocol says.
    pub undecodable: u64,
    /// How often the decoder had to find the way again.
    pub resyncs: u64,
}

impl Counts {
    /// The counts since the agent's start, as the kernel and decoding have them; nothing is said to be open.
    pub fn new(stats: &EdgeStats, decoded: Option<&Decoded>) -> Self {
        Self {
            opened: stats.opened,
            failed: stats.failed,
            reset: stats.reset,
            open: 0,
            calls: stats.calls,
            bytes_out: stats.bytes_out,
            bytes_in: stats.bytes_in,
            retransmits: stats.retransmits,
            rtt_sum: stats.rtt_sum,
            rtt_count: stats.rtt_count,
            latency_sum: stats.latency_sum,
            latency: Histogram::from(stats),
            decoded: decoded.map(|decoded| DecodedCounts {
                calls: decoded.calls,
                failed: decoded.failed,
                segments: stats.sampled,
                lost_segments: stats.unsampled,
                lost_calls: decoded.lost_calls,
                undecodable: decoded.undecodable,
                resyncs: decoded.resyncs,
            }),
        }
    }

    /// Attempts to connect that failed, for whatever reason.
    pub fn failures(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Whether nothing happened, and nothing is open.
    pub fn is_nothing(&self) -> bool {
        self.open == 0 && self.is_idle()
    }

    /// Whether nothing happened.
    pub fn is_idle(&self) -> bool {
        self.opened + self.failures() + self.reset + self.calls == 0
            && self.bytes_out + self.bytes_in + self.retransmits == 0
            && self.decoded.unwrap_or_default() == DecodedCounts::default()
    }

    /// Adds what happened later, or on another edge at the same time with `open` summed up by the caller.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.failed.iter_mut().zip(other.failed) {
            *sum += count;
        }
        self.open = other.open;
        for (sum, count) in [
            (&mut self.opened, other.opened),
            (&mut self.reset, other.reset),
            (&mut self.calls, other.calls),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.retransmits, other.retransmits),
            (&mut self.rtt_sum, other.rtt_sum),
            (&mut self.rtt_count, other.rtt_count),
            (&mut self.latency_sum, other.latency_sum),
        ] {
            *sum = sum.saturating_add(count);
        }
        self.latency.add(&other.latency);
        if let Some(decoded) = &other.decoded {
            let sum = self.decoded.get_or_insert_default();
            sum.each(decoded, u64::saturating_add);
        }
    }

    /// What happened since the counts were `before`; all of it, when they have started anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.opened < before.opened || self.calls < before.calls || self.bytes_in < before.bytes_in {
            return self.clone();
        }
        let mut failed = self.failed;
        for (count, was) in failed.iter_mut().zip(before.failed) {
            *count = count.saturating_sub(was);
        }
        let decoded = self.decoded.map(|mut decoded| {
            decoded.each(&before.decoded.unwrap_or_default(), u64::saturating_sub);
            decoded
        });
        Self {
            opened: self.opened - before.opened,
            failed,
            reset: self.reset.saturating_sub(before.reset),
            open: self.open,
            calls: self.calls - before.calls,
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
            bytes_in: self.bytes_in - before.bytes_in,
            retransmits: self.retransmits.saturating_sub(before.retransmits),
            rtt_sum: self.rtt_sum.saturating_sub(before.rtt_sum),
            rtt_count: self.rtt_count.saturating_sub(before.rtt_count),
            latency_sum: self.latency_sum.saturating_sub(before.latency_sum),
            latency: self.latency.since(&before.latency),
            decoded,
        }
    }

    /// The mean latency in nanoseconds.
    pub fn mean_ns(&self) -> Option<u64> {
        self.latency_sum.checked_div(self.latency.count())
    }

    /// The share, 0 to 1, of attempts that came to nothing: of connections that could not be opened, and of calls that
    /// failed; where no call was decoded, of connections that were reset. None when nothing was tried.
    pub fn error_share(&self) -> Option<f64> {
        let share = |part: u64, whole: u64| {
            if whole == 0 {
                0.0
            } else {
                (part as f64 / whole as f64).min(1.0)
            }
        };
        let attempts = self.opened + self.failures();
        let decoded = self.decoded.unwrap_or_default();
        if attempts + self.calls + decoded.calls == 0 {
            return None;
        }
        let to_connect = share(self.failures(), attempts);
        let of_calls = if decoded.calls > 0 {
            share(decoded.failed, decoded.calls)
        } else {
            share(self.reset, self.opened.max(self.reset))
        };
        Some(1.0 - (1.0 - to_connect) * (1.0 - of_calls))
    }

    /// Puts the counts into an edge of the map.
    pub fn fill(&self, view: &mut EdgeView) {
        let count = |failure: Failure| self.failed[failure as usize];
        view.opened = self.opened;
        view.failed = self.failures();
        view.failures = FailuresView {
            refused: count(Failure::Refused),
            timed_out: count(Failure::TimedOut),
            unreachable: count(Failure::Unreachable),
            aborted: count(Failure::Aborted),
            other: count(Failure::Other),
        };
        view.reset = self.reset;
        view.open = self.open;
        view.calls = self.calls;
        view.bytes_out = self.bytes_out;
        view.bytes_in = self.bytes_in;
        view.latency = self.latency.view(self.latency_sum);
        view.retransmits = self.retransmits;
        view.rtt_us = self.rtt_sum.checked_div(self.rtt_count);
        view.decoding = self.decoded.as_ref().map(DecodedCounts::view);
    }
}

impl DecodedCounts {
    fn each(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        for (own, others) in [
            (&mut self.calls, other.calls),
            (&mut self.failed, other.failed),
            (&mut self.segments, other.segments),
            (&mut self.lost_segments, other.lost_segments),
            (&mut self.lost_calls, other.lost_calls),
            (&mut self.undecodable, other.undecodable),
            (&mut self.resyncs, other.resyncs),
        ] {
            *own = with(*own, others);
        }
    }

    fn view(&self) -> EdgeDecodingView {
        let share = |part: u64, lost: u64| {
            if part + lost == 0 {
                1.0
            } else {
                part as f64 / (part + lost) as f64
            }
        };
        let confidence =
            share(self.segments, self.lost_segments) * share(self.calls, self.lost_calls + self.undecodable);
        EdgeDecodingView {
            calls: self.calls,
            failed: self.failed,
            segments: self.segments,
            lost_segments: self.lost_segments,
            lost_calls: self.lost_calls,
            undecodable: self.undecodable,
            resyncs: self.resyncs,
            confidence_percent: (confidence * 1000.0).round() / 10.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(opened: u64, refused: u64, calls: u64) -> Counts {
        Counts {
            opened,
            failed: [refused, 0, 0, 0, 0],
            calls,
            bytes_in: calls * 10,
            ..Counts::default()
        }
    }

    #[test]
    fn a_difference_is_what_happened_between() {
        let (before, now) = (counts(3, 1, 10), counts(5, 4, 30));
        assert_eq!(now.since(&before), counts(2, 3, 20));
        let mut sum = before.clone();
        sum.add(&now.since(&before));
        assert_eq!(sum, now);
        // The kernel dropped the edge and began a new one.
        assert_eq!(counts(1, 0, 2).since(&now), counts(1, 0, 2));
        assert!(now.since(&now).is_nothing());
    }

    #[test]
    fn errors_are_of_connections_and_of_calls() {
        assert_eq!(counts(0, 0, 0).error_share(), None);
        assert_eq!(counts(3, 1, 0).error_share(), Some(0.25));
        let failing = Counts {
            decoded: Some(DecodedCounts {
                calls: 10,
                failed: 5,
                ..DecodedCounts::default()
            }),
            ..counts(1, 1, 10)
        };
        assert_eq!(failing.error_share(), Some(0.75));
        let reset = Counts {
            reset: 1,
            ..counts(4, 0, 9)
        };
        assert_eq!(reset.error_share(), Some(0.25));
    }
}
