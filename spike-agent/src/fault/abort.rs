//! Judges whether calls go worse than a fault's operator wants.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::model::{AbortWhen, Tally, units::format_duration};

/// What was seen of the edges that a fault's `abort_when` is about.
#[derive(Debug, Default)]
pub struct Watched {
    looks: VecDeque<(Instant, Tally)>,
}

impl Watched {
    /// Takes a look at `at` in, and tells why the fault is to end, if it is.
    pub fn look(&mut self, abort: &AbortWhen, at: Instant, now: Tally) -> Option<String> {
        // The youngest look that is a window old stays, to compare with.
        while self
            .looks
            .get(1)
            .is_some_and(|(then, _)| at - *then >= abort.window)
        {
            self.looks.pop_front();
        }
        let lately = self.looks.front().map(|(_, then)| now.since(then));
        self.looks.push_back((at, now));
        lately.and_then(|lately| judge(abort, &lately))
    }
}

/// Why calls like these are to end the fault; none when they are not.
fn judge(abort: &AbortWhen, lately: &Tally) -> Option<String> {
    let share = |bad: u64, all: u64| {
        let share = bad as f64 / all.max(1) as f64 * 100.0;
        (all >= abort.calls).then_some(share)
    };
    let within = format_duration(abort.window);
    if let Some(most) = abort.errors {
        let connections = share(lately.failed + lately.reset, lately.opened + lately.failed);
        let calls = share(lately.decoded_failed, lately.decoded);
        for (what, share) in [("connections", connections), ("calls", calls)] {
            if let Some(share) = share.filter(|share| *share > most) {
                return Some(format!(
                    "{share:.1} % of {what} failed within {within}, more than {most} %"
                ));
            }
        }
    }
    let most = abort.p99?;
    let p99 = Duration::from_nanos(lately.p99_ns().filter(|_| lately.calls() >= abort.calls)?);
    (p99 > most).then(|| {
        let (p99, most) = (
            Duration::from_micros(p99.as_micros() as u64),
            format_duration(most),
        );
        format!(
            "the 99th percentile of latency was {} within {within}, above {most}",
            format_duration(p99)
        )
    })
}

#[cfg(test)]
mod tests {
    use spike_common::{edge::EdgeStats, histogram::bucket};

    use super::*;

    fn abort(errors: Option<f64>, p99_ms: Option<u64>) -> AbortWhen {
        AbortWhen {
            errors,
            p99: p99_ms.map(Duration::from_millis),
            window: Duration::from_secs(2),
            calls: 10,
            edges: None,
        }
    }

    /// So many connections, of which some were reset, and calls of so many milliseconds.
    fn tally(opened: u64, reset: u64, calls: u64, ms: u64) -> Tally {
        let mut stats = EdgeStats {
            opened,
            reset,
            ..EdgeStats::default()
        };
        stats.latency[bucket(ms * 1_000_000) as usize] = calls;
        let mut tally = Tally::default();
        tally.add(&stats, (0, 0));
        tally
    }

    #[test]
    fn errors_and_latency_are_judged_once_there_are_enough_calls() {
        for (opened, reset, calls, ms, is_worse) in [
            (100, 21, 0, 1, true),
            (100, 20, 0, 1, false),
            (9, 9, 0, 1, false),
            (0, 0, 10, 100, true),
            (0, 0, 9, 100, false),
            (0, 0, 1000, 40, false),
        ] {
            let reason = judge(&abort(Some(20.0), Some(50)), &tally(opened, reset, calls, ms));
            assert_eq!(reason.is_some(), is_worse, "{reason:?}");
        }
        let reason = judge(&abort(Some(20.0), None), &tally(100, 50, 0, 1)).unwrap();
        assert_eq!(reason, "50.0 % of connections failed within 2s, more than 20 %");
    }

    #[test]
    fn only_what_came_lately_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (abort, mut watched) = (abort(Some(20.0), None), Watched::default());
        // What was before the fault does not count against it.
        assert_eq!(watched.look(&abort, at(0), tally(100, 100, 0, 1)), None);
        assert_eq!(watched.look(&abort, at(1), tally(200, 100, 0, 1)), None);
        assert_eq!(watched.look(&abort, at(2), tally(300, 100, 0, 1)), None);
        assert_eq!(
            watched.look(&abort, at(3), tally(320, 130, 0, 1)),
            Some("25.0 % of connections failed within 2s, more than 20 %".to_owned())
        );
        assert!(watched.look(&abort, at(4), tally(330, 140, 0, 1)).is_some());
    }
}
