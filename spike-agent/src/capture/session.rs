//! Turns the packets of one capture into a pcapng stream that is complete whenever and however it ends.
//!
//! `kernel --PacketRecord--> run --Bytes--> file or API reader`. Nothing is dropped here: a slow reader makes
//! the queue of packets fill up, and its sender counts what no longer fits.

mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::record::{DropCounts, Interface, PacketRecord};
use super::ring::Ring;
use stream::Stream;

/// A packet waits no longer than this for others to be sent with it.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// After a stop: the kernel hands packets over in batches, so silence this long means that none is left.
const SILENCE: Duration = Duration::from_millis(100);
/// After a stop: the end of waiting for silence, should a clock jump make every packet look early.
const DRAIN_MOST: Duration = Duration::from_secs(2);
/// So long a packet is held back where more is learned of it later: a process logs its TLS secrets when it has read the
/// packet, and readers want them before it.
const HOLD: Duration = Duration::from_millis(200);
/// What is held back may take so much; then the oldest is written early.
const HOLD_BYTES: usize = 32 * 1024 * 1024;

/// What to capture, and for how long.
#[derive(Debug, Clone, Default)]
pub struct SessionSpec {
    /// The interfaces that packets refer to by index.
    pub interfaces: Vec<Interface>,
    /// Ends the capture after so many packets.
    pub count: Option<u64>,
    /// Ends the capture after this time.
    pub duration: Option<Duration>,
    /// Ends the capture after so many bytes.
    pub size: Option<u64>,
    /// Begins a new section, which is a file of its own, after so many bytes.
    pub file_size: Option<u64>,
    /// Keeps packets in memory until something happens.
    pub wait: Option<Waiting>,
    /// More is learned of packets than can be known when they come: hold each back a little.
    pub holds: bool,
}

/// How a session waits.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Age of the oldest packet kept.
    pub before: Duration,
    /// How long it goes on then.
    pub after: Duration,
    /// A reset is what it waits for.
    pub for_reset: bool,
}

/// How a session is told.
#[derive(Debug, Clone)]
pub struct Controls {
    /// To end.
    pub stop: CancellationToken,
    /// That what it waits for has happened, and what that is.
    pub trigger: watch::Receiver<Option<String>>,
}

/// Why a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It was told to.
    Stopped,
    /// It had as many packets as were asked for.
    Count,
    /// It had as many bytes as were asked for.
    Size,
    /// Its time was over.
    Duration,
    /// No more packets can come: their source has gone.
    SourceClosed,
    /// Nobody reads it any more; the last bytes are lost.
    ReaderGone,
}

/// What a capture amounted to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// Packets written.
    pub packets: u64,
    /// Bytes of pcapng that were handed to the reader.
    pub bytes: u64,
    /// Packets that the kernel chose, over all interfaces.
    pub received: u64,
    /// Packets of these that were lost on the way, over all interfaces.
    pub dropped: u64,
    /// Packets of an interface that is not in the table: not written, and a mistake of the sender.
    pub unknown_interface: u64,
}

/// Writes `packets` to `out` until stopped, then what was captured before the stop, then the statistics.
///
/// Waits for the reader of `out` as long as that exists, after a stop too.
pub async fn run(
    spec: SessionSpec,
    mut packets: mpsc::Receiver<PacketRecord>,
    out: mpsc::Sender<Bytes>,
    controls: Controls,
    counts: Arc<dyn DropCounts>,
) -> Summary {
    let started = Instant::now();
    let start_ns = unix_now();
    let Controls { stop, mut trigger } = controls;
    let mut session = Session {
        waiting: spec.wait.map(|wait| (Ring::new(wait.before), wait)),
        deadline: spec.duration.map(|duration| started + duration),
        holds: spec.holds,
        held: VecDeque::new(),
        held_bytes: 0,
        counts: Arc::clone(&counts),
        stream: Stream::new(&spec, out.clone(), counts, start_ns),
    };
    session.stream.header();
    let mut batch = Vec::with_capacity(256);
    let mut flush_at = Some(started); // the header goes out at once

    let mut end = loop {
        let hold_at = session.held.front().map(|(since, _)| *since + HOLD);
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => Err(End::Stopped),
            () = at(session.deadline) => Err(End::Duration),
            () = out.closed() => Err(End::ReaderGone),
            what = told(&mut trigger), if session.waiting.is_some() => session.triggered(&what, None).await,
            () = at(flush_at) => {
                flush_at = None;
                session.stream.flush().await
            }
            () = at(hold_at) => session.release(HOLD / 2).await,
            received = packets.recv_many(&mut batch, 256) => match received {
                0 => Err(End::SourceClosed),
                _ => session.take_all(&mut batch).await,
            },
        };
        if let Err(end) = done {
            break end;
        }
        flush_at = match session.stream.is_flushed() {
            true => None,
            false => flush_at.or_else(|| Some(Instant::now() + FLUSH_AFTER)),
        };
    };

    let end_ns = match (end, spec.duration) {
        (End::Duration, Some(duration)) if spec.wait.is_none() => start_ns.saturating_add(nanos(duration)),
        _ => unix_now(),
    };
    if matches!(end, End::Stopped | End::Duration)
        && let Err(sooner) = session.drain(&mut packets, end_ns).await
        && sooner == End::ReaderGone
    {
        end = sooner;
    }
    if end != End::ReaderGone
        && let Err(sooner) = session.release(Duration::ZERO).await
    {
        end = sooner;
    }
    let (received, dropped) = session.stream.statistics(end_ns);
    if session.stream.flush().await.is_err() {
        end = End::ReaderGone;
    }
    Summary {
        end,
        packets: session.stream.packets(),
        bytes: session.stream.sent(),
        received,
        dropped,
        unknown_interface: session.stream.unknown_interface(),
    }
}

/// A session that runs.
struct Session {
    /// Until what it waits for has happened.
    waiting: Option<(Ring, Waiting)>,
    deadline: Option<Instant>,
    holds: bool,
    /// Packets of which more may be learned, and since when they are here.
    held: VecDeque<(Instant, PacketRecord)>,
    held_bytes: usize,
    counts: Arc<dyn DropCounts>,
    stream: Stream,
}

impl Session {
    async fn take_all(&mut self, batch: &mut Vec<PacketRecord>) -> Result<(), End> {
        for packet in batch.drain(..) {
            self.take(packet).await?;
        }
        Ok(())
    }

    async fn take(&mut self, packet: PacketRecord) -> Result<(), End> {
        if self.stream.learn(&packet) {
            self.holds = true;
        }
        if let Some((ring, wait)) = &mut self.waiting {
            if packet.resets && wait.for_reset {
                return self.triggered("reset", Some(packet)).await;
            }
            ring.push(packet);
            return Ok(());
        }
        if !self.holds {
            return self.stream.packet(&packet).await;
        }
        self.held_bytes += packet.data.len();
        // Some come late, once it is known whom they are for.
        let earlier = |(_, held): &(Instant, PacketRecord)| held.timestamp_ns <= packet.timestamp_ns;
        let place = self.held.iter().rposition(earlier).map_or(0, |before| before + 1);
        self.held.insert(place, (Instant::now(), packet));
        while self.held_bytes > HOLD_BYTES {
            self.write_first().await?;
        }
        Ok(())
    }

    /// What it waited for has happened, with this packet: writes all that is kept, and goes on.
    async fn triggered(&mut self, what: &str, by: Option<PacketRecord>) -> Result<(), End> {
        let Some((mut ring, wait)) = self.waiting.take() else {
            return Ok(());
        };
        self.counts.triggered(what);
        self.deadline = Some(Instant::now() + wait.after);
        let (kept, covered) = ring.take(unix_now());
        if let Some(covered) = covered {
            self.counts.note(format!(
                "memory held the last {:.1} s before it only: choose less, or a smaller snaplen",
                covered.as_secs_f64()
            ));
        }
        self.stream.read_secrets().await;
        for packet in kept {
            self.stream.packet(&packet).await?;
        }
        self.stream.mark(what);
        match by {
            Some(packet) => self.stream.packet(&packet).await,
            None => Ok(()),
        }
    }

    /// Writes what has been held back for `least`.
    async fn release(&mut self, least: Duration) -> Result<(), End> {
        self.stream.read_secrets().await;
        let now = Instant::now();
        while self.held.front().is_some_and(|(since, _)| now - *since >= least) {
            self.write_first().await?;
        }
        Ok(())
    }

    async fn write_first(&mut self) -> Result<(), End> {
        let Some((_, packet)) = self.held.pop_front() else {
            self.held_bytes = 0;
            return Ok(());
        };
        self.held_bytes -= packet.data.len();
        self.stream.packet(&packet).await
    }

    /// Takes what was captured up to `end_ns` and is still on its way.
    async fn drain(&mut self, packets: &mut mpsc::Receiver<PacketRecord>, end_ns: u64) -> Result<(), End> {
        let last = Instant::now() + DRAIN_MOST;
        while Instant::now() < last
            && let Ok(Some(packet)) = timeout(SILENCE, packets.recv()).await
        {
            if packet.timestamp_ns <= end_ns {
                self.take(packet).await?;
            } else if packet.timestamp_ns > end_ns.saturating_add(nanos(SILENCE)) {
                break; // traffic goes on, and what came before the end has arrived
            }
        }
        Ok(())
    }
}

/// Never, when there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What has happened, once it has.
async fn told(trigger: &mut watch::Receiver<Option<String>>) -> String {
    let what = trigger
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|what| what.clone());
    match what {
        Some(what) => what,
        // Nobody can tell any more.
        None => std::future::pending().await,
    }
}

fn unix_now() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
