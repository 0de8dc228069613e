//! A connection that a fault has, and what the fault does to it as it is at any time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    bandwidth::Bandwidth, book::Active, chance, corrupt::Corrupt, delays::Delays, latency::Latency,
    limit_data::LimitData, pipeline::ConnectFailure, slicer::Slicer, slow_close::SlowClose, stage::Stage,
    stall::Stall, timer,
};
use crate::model::{Caller, Destination, Direction, Distribution, Effect, Fault};

/// A connection that a fault has.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The fault as it is now: changes arrive here, none when it is removed.
    now_rx: watch::Receiver<Option<Arc<Fault>>>,
    fault_id: u64,
    connection: Arc<Connection>,
}

/// What the choices of a fault about a connection depend on.
#[derive(Debug)]
struct Connection {
    /// The how-many-th connection of the fault it is, from 0.
    number: u64,
    /// None of one that came to the listener of a relay.
    call: Option<(Arc<Caller>, Destination)>,
    opened: Instant,
    /// Keeps it counted.
    _active: Active,
}

impl Taken {
    /// Of a connection that `caller` opened to `destination` at `opened`.
    pub(super) fn new(
        fault_id: u64,
        number: u64,
        active: Active,
        call: Option<(Arc<Caller>, Destination)>,
        opened: Instant,
    ) -> Self {
        Self {
            now_rx: active.now(),
            fault_id,
            connection: Arc::new(Connection {
                number,
                call,
                opened,
                _active: active,
            }),
        }
    }

    /// The fault's number.
    pub fn fault_id(&self) -> u64 {
        self.fault_id
    }

    /// Waits until the fault is changed or removed; a second change may come before this is told of the first.
    pub(super) async fn changed(&mut self) {
        if self.now_rx.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Calls `each` with the seed and every effect that the fault now has on this connection.
    fn effects(&mut self, mut each: impl FnMut(u64, &Effect)) {
        let now = self.now_rx.borrow_and_update().clone();
        let Some(fault) = now.filter(|fault| self.connection.is_meant_by(fault)) else {
            return;
        };
        let number = self.connection.number;
        for (index, step) in fault.effects.iter().enumerate() {
            if chance::takes_step(fault.seed, index, number, step.percent) {
                // Every connection and effect has chances of its own.
                let seed = if index == 0 {
                    fault.seed
                } else {
                    chance::step_seed(fault.seed, index)
                };
                each(seed ^ number, &step.effect);
            }
        }
    }

    /// What bytes that go `way` pass through, in order.
    pub(super) fn stages(&mut self, way: Direction) -> Vec<Stage> {
        let mut stages = Vec::new();
        // Toxiproxy's time-out closes the connection and does not reset it.
        let cut_from = self.connection.call.is_none().then_some(self.connection.opened);
        self.effects(|seed, effect| {
            // The two directions of a connection have different chances.
            let seed = if way == Direction::Request { seed } else { !seed };
            stages.extend(stage(effect, way, seed, cut_from));
        });
        stages
    }

    /// When the connection is reset; none when it is not.
    pub(super) fn end(&mut self) -> Option<Instant> {
        let opened = self.connection.opened;
        let is_relayed = self.connection.call.is_none();
        let mut end = None::<Duration>;
        self.effects(|_, effect| {
            let after = match *effect {
                // The kernel could not tell whether this connection was meant.
                Effect::Refuse | Effect::Unreachable => Some(Duration::ZERO),
                Effect::Reset { after } => Some(after),
                Effect::Timeout { after, .. } if !is_relayed => after,
                _ => None,
            };
            end = [end, after].into_iter().flatten().min();
        });
        end.map(|end| opened + end)
    }

    /// How the attempt to connect fails; none when it does not.
    pub(super) fn connect_failure(&mut self) -> Option<ConnectFailure> {
        let mut failure = None;
        self.effects(|_, effect| {
            let this = match *effect {
                Effect::Refuse => Some(ConnectFailure::Refused),
                Effect::Unreachable => Some(ConnectFailure::Unreachable),
                Effect::ConnectTimeout { after } => Some(ConnectFailure::TimedOut { after }),
                _ => None,
            };
            failure = failure.or(this);
        });
        failure
    }

    /// Before when the server is not asked; none when at once.
    fn connects_at(&mut self) -> Option<Instant> {
        let mut wait = None::<Duration>;
        self.effects(|seed, effect| {
            if let Effect::ConnectDelay { delay, jitter } = *effect {
                let delays = Delays {
                    delay,
                    jitter,
                    distribution: Distribution::Uniform,
                    seed,
                };
                wait = Some(wait.unwrap_or_default() + delays.at(0));
            }
        });
        wait.map(|wait| self.connection.opened + wait)
    }

    /// Waits until the fault does not leave the attempt to connect without an answer.
    pub(super) async fn unsilenced(mut self) {
        while matches!(self.connect_failure(), Some(ConnectFailure::TimedOut { .. })) {
            self.changed().await;
        }
    }

    /// Waits until the server may be asked, as the fault is at any time.
    pub(super) async fn may_connect(mut self) {
        loop {
            self.clone().unsilenced().await;
            let Some(time) = self.connects_at() else { return };
            tokio::select! {
                biased;
                () = self.changed() => {}
                () = timer::until(time) => return,
            }
        }
    }

    /// Is one of its directions held still?
    pub(super) fn is_held(&mut self) -> bool {
        let mut is_held = false;
        self.effects(|_, effect| is_held |= matches!(effect, Effect::Timeout { .. }));
        is_held
    }

    /// Waits until the connection is to be reset, as the fault is at any time.
    pub(super) async fn ends(mut self) {
        loop {
            let end = self.end();
            tokio::select! {
                biased;
                () = self.changed() => {}
                () = at(end) => return,
            }
        }
    }
}

impl Connection {
    /// A changed fault may mean other connections than it did.
    fn is_meant_by(&self, fault: &Fault) -> bool {
        let is_selected = match &self.call {
            Some((caller, destination)) => fault.selector.matches(caller, destination),
            None => true,
        };
        !fault.dry_run && is_selected && chance::is_chosen(fault, self.number)
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => timer::until(time).await,
        None => std::future::pending().await,
    }
}

/// What an effect does to the bytes that go `way`, if anything. A time-out closes the connection, counted from
/// `cut_from`, when that is given.
fn stage(effect: &Effect, way: Direction, seed: u64, cut_from: Option<Instant>) -> Option<Stage> {
    match *effect {
        Effect::Latency {
            delay,
            jitter,
            distribution,
            direction,
        } => direction.affects(way).then_some(Stage::Latency(Latency {
            delay,
            jitter,
            distribution,
            seed,
        })),
        Effect::Bandwidth { rate, direction } => direction
            .affects(way)
            .then_some(Stage::Bandwidth(Bandwidth { rate })),
        Effect::Timeout { after, direction } => {
            let cut_at = cut_from.zip(after).map(|(from, after)| from + after);
            direction.affects(way).then_some(Stage::Stall(Stall { cut_at }))
        }
        Effect::SlowClose { delay, direction } => direction
            .affects(way)
            .then_some(Stage::SlowClose(SlowClose { delay })),
        Effect::Slicer {
            size,
            variation,
            delay,
            direction,
        } => direction.affects(way).then_some(Stage::Slicer(Slicer {
            size,
            variation,
            delay,
            seed,
        })),
        Effect::LimitData { bytes, direction } => direction
            .affects(way)
            .then_some(Stage::LimitData(LimitData { bytes })),
        Effect::Corrupt { share, direction } => direction
            .affects(way)
            .then_some(Stage::Corrupt(Corrupt { share, seed })),
        Effect::Reset { .. }
        | Effect::Refuse
        | Effect::Unreachable
        | Effect::ConnectTimeout { .. }
        | Effect::ConnectDelay { .. }
        | Effect::UdpDelay { .. }
        | Effect::UdpDrop { .. }
        | Effect::UdpDuplicate { .. }
        | Effect::Packet(_) => None,
    }
}
