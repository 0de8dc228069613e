//! Decides what the armed faults do to one connection; the proxy carries it out.

use std::sync::atomic::Ordering;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future;
use tokio_util::sync::CancellationToken;

use super::{
    bandwidth::Bandwidth,
    book::{Active, ArmedFault},
    chance::{self, Spread},
    latency::Latency,
    stage::Stage,
    stall::Stall,
    timer,
};
use crate::model::{Called, Caller, Direction, Effect};

/// What is done to one connection.
#[derive(Debug, Default)]
pub struct Plan {
    /// It is reset before the server is asked.
    pub resets_at_once: bool,
    /// How the attempt to connect fails, with nobody asked. Where the attempt cannot be held it is reset, or for a
    /// time-out held still, once it was accepted.
    pub fails: Option<ConnectFailure>,
    /// The ends of the faults that leave the attempt without an answer.
    pub silences: Vec<CancellationToken>,
    /// Times before which the server is not asked.
    pub connects: Vec<End>,
    /// What bytes to the server go through, in the order of the faults.
    pub request: Vec<Stage>,
    /// What bytes to the caller go through, in the order of the faults.
    pub response: Vec<Stage>,
    /// When it is reset.
    pub ends: Vec<End>,
    /// The ends of the faults that hold it still.
    pub stalls: Vec<CancellationToken>,
    /// Keeps the connection counted with each fault.
    pub active: Vec<Active>,
}

/// How an attempt to connect fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// ECONNREFUSED.
    Refused,
    /// EHOSTUNREACH.
    Unreachable,
    /// ETIMEDOUT.
    TimedOut {
        /// Time from the attempt until then; `None` leaves it to the caller's kernel.
        after: Option<Duration>,
    },
}

/// Whether the connect hook alone decides this fault for this caller: what was invoked by another name than its
/// executable's is left to the agent.
fn is_decided_in_kernel(armed: &ArmedFault, caller: &Caller) -> bool {
    let process = &armed.fault.selector.from.process;
    armed.decided_in_kernel.load(Ordering::Relaxed)
        && process
            .as_ref()
            .is_none_or(|pattern| pattern.matches(&caller.exe))
}

/// A time at which a connection is reset, unless the fault is removed before.
#[derive(Debug)]
pub struct End {
    at: Instant,
    removed: CancellationToken,
}

impl Plan {
    /// Asks each fault in order about a connection that `caller` opened to `destination` at `opened`. The first that
    /// resets it at once is the last that is asked.
    pub fn new(
        faults: &[Arc<ArmedFault>],
        caller: &Caller,
        destination: impl Called + Copy,
        opened: Instant,
    ) -> Self {
        let mut plan = Self::default();
        for armed in faults {
            if armed.removed.is_cancelled()
                || armed.fault.effect.is_on_datagrams()
                || is_decided_in_kernel(armed, caller)
                || armed.fault.effect.packet().is_some()
                || armed.decided_in_kernel.load(Ordering::Relaxed)
                || !armed.fault.selector.matches(caller, destination)
            {
                continue;
            }
            if let Some(taken) = chance::take(armed) {
                plan.add(armed, taken.connection, opened);
                plan.active.push(taken.active);
            }
            if plan.resets_at_once || plan.fails.is_some() {
                break;
            }
        }
        plan
    }

    fn add(&mut self, armed: &ArmedFault, connection: u64, opened: Instant) {
        let removed = &armed.removed;
        let seed = armed.fault.seed ^ connection;
        match armed.fault.effect {
            // Of datagrams there is no connection.
            Effect::UdpDelay { .. } | Effect::UdpDrop { .. } | Effect::UdpDuplicate { .. } => {}
            Effect::Unreachable => {
                self.fails = Some(ConnectFailure::Unreachable);
                self.resets_at_once = true;
            }
            Effect::ConnectTimeout { after } => {
                self.fails = Some(ConnectFailure::TimedOut { after });
                self.silences.push(removed.clone());
            }
            Effect::ConnectDelay { delay, jitter } => self.connects.push(End {
                at: opened + Spread { delay, jitter, seed }.delay_of(0),
                removed: removed.clone(),
            }),
            // The packet hooks carry it out.
            Effect::Packet(_) => {}
            // The kernel could not tell whether this connection was meant.
            Effect::Refuse => {
                self.fails = Some(ConnectFailure::Refused);
                self.resets_at_once = true;
            }
            Effect::Reset { after } => {
                self.resets_at_once = after.is_zero();
                self.end_at(opened + after, removed);
            }
            Effect::Timeout { after } => {
                if let Some(after) = after {
                    self.resets_at_once = after.is_zero();
                    self.end_at(opened + after, removed);
                }
                self.stalls.push(removed.clone());
                self.add_stages(Direction::Both, |_| {
                    Stage::Stall(Stall {
                        removed: removed.clone(),
                    })
                });
            }
            Effect::Latency {
                delay,
                jitter,
                direction,
            } => self.add_stages(direction, |way| {
                // The two directions of a connection are delayed by different chances.
                Stage::Latency(Latency {
                    delay,
                    jitter,
                    seed: if way == Direction::Request { seed } else { !seed },
                    removed: removed.clone(),
                })
            }),
            Effect::Bandwidth { rate, direction } => self.add_stages(direction, |_| {
                Stage::Bandwidth(Bandwidth {
                    rate,
                    removed: removed.clone(),
                })
            }),
        }
    }

    fn add_stages(&mut self, direction: Direction, stage: impl Fn(Direction) -> Stage) {
        if direction.affects_request() {
            self.request.push(stage(Direction::Request));
        }
        if direction.affects_response() {
            self.response.push(stage(Direction::Response));
        }
    }

    fn end_at(&mut self, at: Instant, removed: &CancellationToken) {
        self.ends.push(End {
            at,
            removed: removed.clone(),
        });
    }
}

impl End {
    /// Waits until the first of `ends`; for ever when there is none.
    pub async fn first(ends: Vec<Self>) {
        if ends.is_empty() {
            return future::pending().await;
        }
        future::select_all(ends.into_iter().map(|end| Box::pin(end.passes()))).await;
    }

    /// Waits until all of `times` have passed or their faults are gone.
    pub async fn all(times: Vec<Self>) {
        for time in times {
            tokio::select! {
                biased;
                () = time.removed.cancelled() => {}
                () = timer::until(time.at) => {}
            }
        }
    }

    async fn passes(self) {
        tokio::select! {
            biased;
            () = self.removed.cancelled() => future::pending().await,
            () = timer::until(self.at) => {}
        }
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

    fn book(faults: &[&str]) -> Book {
        let book = Book::default();
        for fault in faults {
            let raw = serde_json::from_str::<RawFault>(fault).unwrap();
            book.add(Fault::try_from(&raw).unwrap()).unwrap();
        }
        book
    }

    fn plan(book: &Book) -> Plan {
        let destination: SocketAddr = "10.0.0.1:80".parse().unwrap();
        Plan::new(&book.list(), &Caller::default(), destination, Instant::now())
    }

    #[test]
    fn effects_are_chained_in_the_order_of_the_faults() {
        let book = book(&[
            r#"{"to":{"port":80},"effect":{"type":"bandwidth","rate":"1MB/s"}}"#,
            r#"{"to":{"port":81},"effect":{"type":"refuse"}}"#,
            r#"{"to":{"port":80},"effect":{"type":"latency","delay":"1ms"}}"#,
            r#"{"to":{"port":80},"effect":{"type":"timeout","after":"1s"}}"#,
        ]);
        let plan = plan(&book);
        assert!(!plan.resets_at_once);
        assert!(matches!(plan.request[..], [Stage::Bandwidth(_), Stage::Stall(_)]));
        assert!(matches!(
            plan.response[..],
            [Stage::Bandwidth(_), Stage::Latency(_), Stage::Stall(_)]
        ));
        assert_eq!((plan.ends.len(), plan.stalls.len(), plan.active.len()), (1, 1, 3));
        let matched = book
            .list()
            .iter()
            .map(|armed| armed.matched.load(Ordering::Relaxed))
            .collect::<Vec<_>>();
        assert_eq!(matched, [1, 0, 1, 1]);
    }

    #[test]
    fn nobody_is_asked_after_a_reset() {
        for effect in [
            r#"{"type":"refuse"}"#,
            r#"{"type":"reset"}"#,
            r#"{"type":"timeout","after":"0s"}"#,
        ] {
            let first = format!(r#"{{"everything":true,"effect":{effect}}}"#);
            let second = r#"{"everything":true,"effect":{"type":"latency","delay":"1ms"}}"#;
            let book = book(&[&first, second]);
            assert!(plan(&book).resets_at_once, "{effect}");
            assert_eq!(book.list()[1].matched.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_share_is_chosen_by_the_seed_alone() {
        let chosen = |seed: u64| {
            let fault =
                format!(r#"{{"everything":true,"effect":{{"type":"refuse"}},"percent":30,"seed":{seed}}}"#);
            let book = book(&[&fault]);
            let chosen = (0..1000).map(|_| plan(&book).resets_at_once).collect::<Vec<_>>();
            let hits = chosen.iter().filter(|hit| **hit).count() as u64;
            let armed = &book.list()[0];
            assert!((230..370).contains(&hits), "{hits}");
            assert_eq!(armed.matched.load(Ordering::Relaxed), 1000);
            assert_eq!(armed.affected.load(Ordering::Relaxed), hits);
            assert_eq!(armed.escaped.load(Ordering::Relaxed), 1000 - hits);
            chosen
        };
        assert_eq!(chosen(7), chosen(7));
        assert_ne!(chosen(7), chosen(8));
    }

    #[test]
    fn a_full_fault_lets_connections_escape_until_one_ends() {
        let book = book(&[r#"{"everything":true,"effect":{"type":"timeout"},"max_active":1}"#]);
        let first = plan(&book);
        assert_eq!((first.stalls.len(), plan(&book).stalls.len()), (1, 0));
        drop(first);
        assert_eq!(plan(&book).stalls.len(), 1);
    }

    #[test]
    fn a_removed_fault_does_nothing_more() {
        let book = book(&[r#"{"everything":true,"effect":{"type":"reset"}}"#]);
        let snapshot = book.list();
        book.clear();
        let destination: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let plan = Plan::new(&snapshot, &Caller::default(), destination, Instant::now());
        assert!(!plan.resets_at_once && plan.active.is_empty());
    }
}
