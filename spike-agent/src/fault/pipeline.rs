//! Decides what the armed faults do to one connection; the proxy carries it out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future};

use super::{book::ArmedFault, chance, lane::Lane, taken::Taken};
use crate::model::{Caller, Destination, Direction};

/// What is done to one connection: by each fault that has it, in the order in which they were armed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The faults that have it.
    pub taken: Vec<Taken>,
    /// It is reset before the server is asked.
    pub resets_at_once: bool,
    /// How the attempt to connect fails, with nobody asked. Where the attempt cannot be held it is reset, or for a
    /// time-out held still, once it was accepted.
    pub fails: Option<ConnectFailure>,
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

impl Plan {
    /// Asks each fault in order about a connection that `caller` opened to `destination` at `opened`. The first that
    /// resets it at once, or has the attempt fail, is the last that is asked.
    pub fn new(
        faults: &[Arc<ArmedFault>],
        caller: &Arc<Caller>,
        destination: &Destination,
        opened: Instant,
    ) -> Self {
        let mut plan = Self::default();
        for armed in faults {
            if armed.removed.is_cancelled()
                || armed.fault.packet().is_some()
                || armed.fault.is_on_datagrams()
                || armed.fault.dry_run
                || armed.fault.relay.is_some()
                || is_decided_in_kernel(armed, caller)
                || !armed.fault.selector.matches(caller, destination)
            {
                continue;
            }
            let call = Some((caller.clone(), destination.clone()));
            plan.take(armed, call, opened);
            if plan.resets_at_once || plan.fails.is_some() {
                break;
            }
        }
        plan
    }

    /// Of a connection that came to the listener of a relay.
    pub fn of_relay(armed: &ArmedFault, opened: Instant) -> Self {
        let mut plan = Self::default();
        if !armed.removed.is_cancelled() {
            plan.take(armed, None, opened);
        }
        plan
    }

    fn take(&mut self, armed: &ArmedFault, call: Option<(Arc<Caller>, Destination)>, opened: Instant) {
        if let Some((number, active)) = chance::take(armed) {
            let mut taken = Taken::new(armed.id, number, active, call, opened);
            self.resets_at_once |= taken.end() == Some(opened);
            self.fails = self.fails.or(taken.connect_failure());
            self.taken.push(taken);
        }
    }

    /// What the bytes that go `way`, which is not both, pass through: a lane for each fault.
    pub fn lanes(&self, way: Direction) -> Vec<Lane> {
        self.taken
            .iter()
            .map(|taken| Lane::new(taken.clone(), way))
            .collect()
    }

    /// Waits until no fault leaves the attempt to connect without an answer.
    pub fn is_unsilenced(&self) -> impl Future<Output = ()> + use<> {
        let all: Vec<_> = self
            .taken
            .iter()
            .map(|taken| taken.clone().unsilenced())
            .collect();
        future::join_all(all).map(drop)
    }

    /// Waits until the server may be asked: no fault leaves the attempt without an answer, or delays it.
    pub fn may_connect(&self) -> impl Future<Output = ()> + use<> {
        let all: Vec<_> = self
            .taken
            .iter()
            .map(|taken| taken.clone().may_connect())
            .collect();
        future::join_all(all).map(drop)
    }

    /// Waits until the connection is to be reset, as the faults are at any time; for ever when none resets it.
    pub fn ends(&self) -> impl Future<Output = ()> + use<> {
        let ends: Vec<_> = self
            .taken
            .iter()
            .map(|taken| Box::pin(taken.clone().ends()))
            .collect();
        async {
            if ends.is_empty() {
                return future::pending().await;
            }
            future::select_all(ends).await;
        }
    }

    /// Waits until a fault holds a direction of the connection still.
    pub async fn is_held(&mut self) {
        self.held(true).await;
    }

    /// Waits until no fault holds the connection still.
    pub async fn is_released(&mut self) {
        self.held(false).await;
    }

    async fn held(&mut self, wanted: bool) {
        loop {
            let is_held = self
                .taken
                .iter_mut()
                .fold(false, |held, taken| held | taken.is_held());
            if is_held == wanted {
                return;
            }
            if self.taken.is_empty() {
                return future::pending().await;
            }
            future::select_all(self.taken.iter_mut().map(|taken| Box::pin(taken.changed()))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        fault::{book::Book, stage::Stage},
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
        Plan::new(&book.list(), &Arc::default(), &destination.into(), Instant::now())
    }

    fn stages(plan: &mut Plan, way: Direction) -> Vec<Stage> {
        let taken = plan.taken.iter_mut();
        taken.flat_map(|taken| taken.stages(way)).collect()
    }

    #[test]
    fn effects_are_chained_in_the_order_of_the_faults() {
        let book = book(&[
            r#"{"to":{"port":80},"effect":{"type":"bandwidth","rate":"1MB/s"}}"#,
            r#"{"to":{"port":81},"effect":{"type":"refuse"}}"#,
            r#"{"to":{"port":80},"effect":{"type":"latency","delay":"1ms"}}"#,
            r#"{"to":{"port":80},"effect":{"type":"timeout","after":"1s"}}"#,
        ]);
        let mut plan = plan(&book);
        assert!(!plan.resets_at_once);
        assert!(matches!(
            stages(&mut plan, Direction::Request)[..],
            [Stage::Bandwidth(_), Stage::Stall(_)]
        ));
        assert!(matches!(
            stages(&mut plan, Direction::Response)[..],
            [Stage::Bandwidth(_), Stage::Latency(_), Stage::Stall(_)]
        ));
        assert_eq!(plan.taken.len(), 3);
        let ends = plan.taken.iter_mut().filter_map(Taken::end);
        assert_eq!(ends.count(), 1);
        let matched = book
            .list()
            .iter()
            .map(|armed| armed.counts.matched.load(Ordering::Relaxed))
            .collect::<Vec<_>>();
        assert_eq!(matched, [1, 0, 1, 1]);
    }

    #[test]
    fn effects_of_one_fault_are_chained_in_their_order_and_have_shares() {
        let book = book(&[r#"{"everything":true,"seed":3,"effects":[
                {"type":"corrupt","share":1,"direction":"both"},
                {"type":"slicer","size":"8B"},
                {"type":"latency","delay":"1ms","direction":"request","percent":30}]}"#]);
        let mut with_latency = 0;
        for _ in 0..1000 {
            let mut plan = plan(&book);
            assert!(matches!(
                stages(&mut plan, Direction::Response)[..],
                [Stage::Corrupt(_), Stage::Slicer(_)]
            ));
            match &stages(&mut plan, Direction::Request)[..] {
                [Stage::Corrupt(_)] => {}
                [Stage::Corrupt(_), Stage::Latency(_)] => with_latency += 1,
                other => panic!("{other:?}"),
            }
        }
        // 300 ± 5 standard deviations.
        assert!((228..=372).contains(&with_latency), "{with_latency}");
    }

    #[test]
    fn a_changed_fault_goes_on_with_what_it_still_means() {
        let book = book(&[r#"{"name":"a","to":{"port":80},"effect":{"type":"latency","delay":"1ms"}}"#]);
        let mut plan = plan(&book);
        let change = |body: &str| {
            let raw = serde_json::from_str::<RawFault>(body).unwrap();
            book.change(1, Fault::try_from(&raw).unwrap()).unwrap();
        };
        change(r#"{"to":{"port":80},"effect":{"type":"timeout","after":"1s"}}"#);
        assert!(matches!(
            stages(&mut plan, Direction::Request)[..],
            [Stage::Stall(_)]
        ));
        assert!(plan.taken[0].end().is_some() && plan.taken[0].is_held());
        change(r#"{"to":{"port":81},"effect":{"type":"timeout","after":"1s"}}"#);
        assert!(stages(&mut plan, Direction::Request).is_empty() && plan.taken[0].end().is_none());
        change(r#"{"to":{"port":80},"effect":{"type":"slow_close","delay":"1s"}}"#);
        assert!(matches!(
            stages(&mut plan, Direction::Request)[..],
            [Stage::SlowClose(_)]
        ));
        book.clear();
        assert!(stages(&mut plan, Direction::Request).is_empty());
    }

    #[test]
    fn a_dry_run_takes_nothing() {
        let book = book(&[r#"{"everything":true,"dry_run":true,"effect":{"type":"reset"}}"#]);
        let plan = plan(&book);
        assert!(!plan.resets_at_once && plan.taken.is_empty());
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
            assert_eq!(book.list()[1].counts.matched.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn attempts_to_connect_fail_and_wait_as_the_first_fault_says() {
        let with = |effect: &str| {
            let book = book(&[&format!(r#"{{"everything":true,"effect":{effect}}}"#)]);
            let plan = plan(&book);
            (book, plan)
        };
        let (_book, refused) = with(r#"{"type":"refuse"}"#);
        assert_eq!(refused.fails, Some(ConnectFailure::Refused));
        let (_book, unreachable) = with(r#"{"type":"unreachable"}"#);
        assert_eq!(unreachable.fails, Some(ConnectFailure::Unreachable));
        assert!(unreachable.resets_at_once);
        let (silent, mut timed_out) = with(r#"{"type":"connect_timeout","after":"2s"}"#);
        let after = Some(Duration::from_secs(2));
        assert_eq!(timed_out.fails, Some(ConnectFailure::TimedOut { after }));
        assert!(!timed_out.resets_at_once && timed_out.taken[0].end().is_none());
        assert_eq!(timed_out.is_unsilenced().now_or_never(), None);
        silent.clear();
        assert_eq!(timed_out.may_connect().now_or_never(), Some(()));
        let (delayed, plan) = with(r#"{"type":"connect_delay","delay":"1h"}"#);
        assert_eq!(plan.fails, None);
        assert_eq!(plan.is_unsilenced().now_or_never(), Some(()));
        let waits = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let _inside = waits.as_ref().unwrap().enter();
        assert_eq!(plan.may_connect().now_or_never(), None);
        delayed.clear();
        assert_eq!(plan.may_connect().now_or_never(), Some(()));
    }

    #[test]
    fn a_share_is_chosen_by_the_seed_alone() {
        let chosen = |seed: u64| {
            let fault =
                format!(r#"{{"everything":true,"effect":{{"type":"refuse"}},"percent":30,"seed":{seed}}}"#);
            let book = book(&[&fault]);
            let chosen = (0..10_000)
                .map(|_| plan(&book).resets_at_once)
                .collect::<Vec<_>>();
            let hits = chosen.iter().filter(|hit| **hit).count() as u64;
            let counts = book.list()[0].counts.clone();
            // 3,000 ± 4 standard deviations of the binomial distribution.
            assert!((2817..=3183).contains(&hits), "{hits}");
            assert_eq!(counts.matched.load(Ordering::Relaxed), 10_000);
            assert_eq!(counts.affected.load(Ordering::Relaxed), hits);
            assert_eq!(counts.escaped.load(Ordering::Relaxed), 10_000 - hits);
            chosen
        };
        assert_eq!(chosen(7), chosen(7));
        assert_ne!(chosen(7), chosen(8));
    }

    #[test]
    fn a_full_fault_lets_connections_escape_until_one_ends() {
        let book = book(&[r#"{"everything":true,"effect":{"type":"timeout"},"max_active":1}"#]);
        let first = plan(&book);
        assert_eq!((first.taken.len(), plan(&book).taken.len()), (1, 0));
        drop(first);
        assert_eq!(plan(&book).taken.len(), 1);
    }

    #[test]
    fn a_removed_fault_does_nothing_more() {
        let book = book(&[r#"{"everything":true,"effect":{"type":"reset"}}"#]);
        let snapshot = book.list();
        book.clear();
        let destination: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let plan = Plan::new(&snapshot, &Arc::default(), &destination.into(), Instant::now());
        assert!(!plan.resets_at_once && plan.taken.is_empty());
    }
}
