//! Sends recorded requests again, in their recorded time, and compares the answers with the recorded ones.

mod answered;
mod bytes;
mod compare;
mod http1;
mod http2;
mod plan;
mod postgres;
pub mod report;
mod target;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use compare::Outcome;
pub use plan::{PlanError, servers};
pub use report::Report;
pub use target::Target;

use super::{exchange::Talk, noise::Noise};
use crate::{fault::timer, protocol::ProtocolName};
use answered::Answered;
use plan::{Plan, Step};
use turns::{Turn, Turns};

/// How long before its time a request gets its connection, so that to connect does not make it late.
const LEAD: Duration = Duration::from_millis(100);
/// From the beginning to the first request.
const START: Duration = Duration::from_millis(150);
/// Requests under way at one time when nothing else is said.
const UNDER_WAY_LIMIT: usize = 4096;

/// How recorded requests are sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub target: Target,
    /// The recorded server whose requests are sent; all when there is one.
    pub server: Option<String>,
    /// When.
    pub pace: Pace,
    /// Requests under way at one time; with it they are sent as fast as answers come, unless a rate is given.
    pub concurrency: Option<usize>,
    /// How often all of it is sent; 0 until it is stopped.
    pub rounds: u64,
    /// How a request is changed.
    pub changes: Changes,
    /// What of answers does not count.
    pub noise: Noise,
    /// How long an answer may take.
    pub patience: Duration,
    /// As whom to log in, where a protocol has that.
    pub login: Login,
}

/// As whom to log in; what is not said is as recorded.
#[derive(Clone, Default)]
pub struct Login {
    /// Name of the user.
    pub user: Option<String>,
    /// Name of the database.
    pub database: Option<String>,
    /// What proves who that is; a recorded proof cannot be given again.
    pub password: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, database, .. } = self;
        write!(f, "Login {{ user: {user:?}, database: {database:?}, .. }}")
    }
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// In recorded time, so many times as fast.
    Speed(f64),
    /// So many a second, in recorded order.
    Rate(f64),
}

/// How a request is changed before it is sent.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The recorded `Host` is sent, and not that of the target.
    pub keep_host: bool,
    /// Headers that are set, in place of recorded ones.
    pub headers: Vec<(String, String)>,
    /// Texts that are replaced in path, headers and body.
    pub replace: Vec<(String, String)>,
    /// Parts of answers whose new value takes the place of the recorded one in later requests.
    pub carry: Vec<String>,
}

/// What those who send share.
#[derive(Debug)]
struct Shared {
    options: Options,
    /// Values that were carried on: recorded, and new.
    carried: Mutex<Vec<(String, String)>>,
    outcomes: Mutex<Vec<Outcome>>,
    done: AtomicU64,
}

impl Shared {
    /// All texts that are to be replaced now.
    fn replacements(&self) -> Vec<(String, String)> {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        self.options
            .changes
            .replace
            .iter()
            .chain(carried.iter())
            .cloned()
            .collect()
    }

    fn add(&self, outcome: Outcome) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(outcome);
    }
}

/// Sends the requests of a recording. `progress` hears now and then how many are answered, and how many there are.
///
/// # Errors
/// When nothing in the recording can be sent there.
pub async fn drive(
    talks: &[Talk],
    options: Options,
    progress: impl Fn(u64, u64),
    stop: CancellationToken,
) -> Result<Report, PlanError> {
    let plan = Plan::new(talks, &options)?;
    let rounds = options.rounds;
    let total = plan.len() as u64 * rounds;
    let shared = Arc::new(Shared {
        options,
        carried: Mutex::default(),
        outcomes: Mutex::default(),
        done: AtomicU64::new(0),
    });
    let begun = Instant::now();
    let running = async {
        let mut round = 0;
        while (rounds == 0 || round < rounds) && !stop.is_cancelled() {
            once(&plan, &shared, &stop).await;
            round += 1;
        }
    };
    let mut running = std::pin::pin!(running);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            () = &mut running => break,
            _ = ticks.tick() => progress(shared.done.load(Ordering::Relaxed), total),
        }
    }
    progress(shared.done.load(Ordering::Relaxed), total);
    let outcomes = std::mem::take(&mut *shared.outcomes.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Report::new(
        &shared.options,
        outcomes,
        plan.left_out.clone(),
        begun.elapsed(),
    ))
}

/// Sends all of it once.
async fn once(plan: &Plan, shared: &Arc<Shared>, stop: &CancellationToken) {
    let start = Instant::now() + START;
    let mut tasks = JoinSet::new();
    let answered = Arc::new(Answered::none_of(&plan.lanes));
    for lane in &plan.lanes {
        let (lane, shared, answered) = (lane.clone(), shared.clone(), answered.clone());
        tasks.spawn(bytes::send_all(lane, shared, answered, start));
    }
    let sender = Arc::new(Sender {
        http1: http1::Pool::default(),
        http2: http2::Shared::default(),
    });
    match shared.options.concurrency {
        Some(workers) if !matches!(shared.options.pace, Pace::Rate(_)) => {
            let next = Arc::new(AtomicUsize::new(0));
            for _ in 0..workers {
                let (steps, next) = (plan.steps.clone(), next.clone());
                let (shared, sender, stop) = (shared.clone(), sender.clone(), stop.clone());
                tasks.spawn(async move {
                    while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed))
                        && !stop.is_cancelled()
                    {
                        sender.send(step, &shared, Turn::now()).await;
                    }
                });
            }
        }
        limit => {
            let room = Arc::new(tokio::sync::Semaphore::new(limit.unwrap_or(UNDER_WAY_LIMIT)));
            let turns = Turns::new();
            for index in 0..plan.steps.len() {
                let due = start + plan.steps[index].due;
                if let Some(early) = due.checked_sub(LEAD) {
                    timer::until(early).await;
                }
                let Ok(permit) = room.clone().acquire_owned().await else {
                    break;
                };
                if stop.is_cancelled() {
                    break;
                }
                let (steps, shared, sender) = (plan.steps.clone(), shared.clone(), sender.clone());
                let turn = turns.of(index, due);
                tasks.spawn(async move {
                    sender.send(&steps[index], &shared, turn).await;
                    drop(permit);
                });
            }
        }
    }
    tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => {}
        () = stop.cancelled() => {}
    }
}

/// Connections to the target.
struct Sender {
    http1: http1::Pool,
    http2: http2::Shared,
}

impl Sender {
    async fn send(&self, step: &Step, shared: &Shared, turn: Turn) {
        let outcome = match step.protocol {
            ProtocolName::Http1 => self.http1.send(step, shared, turn).await,
            _ => self.http2.send(step, shared, turn).await,
        };
        shared.add(outcome);
    }
}
