//! Paces a direction to a rate in small pieces, so that a slow link trickles as a real one does and does not stutter.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{
    stage::{Chunk, Next, receive},
    timer,
};
use crate::model::Rate;

/// Pieces are this much of the rate.
const QUANTUM: Duration = Duration::from_millis(5);
/// Largest piece in bytes, for high rates.
const MAX_PIECE: u64 = 64 << 10;
/// How far behind its schedule a direction may catch up, so that late wake-ups of a busy machine do not cost rate.
const MAX_LAG: Duration = Duration::from_secs(1);
/// A receiver that makes a piece wait longer than this pauses; that time is not made good by a burst.
const PAUSE: Duration = Duration::from_millis(2);

/// Lets bytes out no faster than a rate.
#[derive(Debug)]
pub struct Bandwidth {
    /// The rate.
    pub rate: Rate,
}

impl Bandwidth {
    pub(super) async fn run(
        self,
        chunk_rx: &mut Receiver<Chunk>,
        chunk_tx: &Sender<Chunk>,
        interrupt: &CancellationToken,
    ) -> Next {
        let piece_length = piece_length(self.rate);
        let mut schedule = Schedule {
            rate: self.rate,
            free_at: None,
        };
        loop {
            if interrupt.is_cancelled() {
                return Next::More;
            }
            // What lies here already does not begin later because this machine was late with what came before.
            let waiting = chunk_rx.try_recv().ok();
            let is_waiting = waiting.is_some();
            let mut chunk = match waiting {
                Some(chunk) => chunk,
                None => match receive(chunk_rx, interrupt).await {
                    Ok(chunk) => chunk,
                    Err(next) => return next,
                },
            };
            let free_at = schedule.free_at.filter(|_| is_waiting);
            let at = free_at.map_or(chunk.at, |free_at| free_at.min(chunk.at));
            while !chunk.is_empty() {
                let length = piece_length.min(chunk.len());
                let due = schedule.next(length, at, Instant::now());
                tokio::select! {
                    () = timer::until(due) => {}
                    () = interrupt.cancelled() => break,
                }
                let sent = Instant::now();
                if chunk_tx.send(chunk.split_to(length).go_on()).await.is_err() {
                    return Next::Over;
                }
                schedule.waited(sent.elapsed());
            }
            let has_more = chunk.has_more();
            if (!has_more || !chunk.is_empty()) && chunk_tx.send(chunk.go_on()).await.is_err() {
                return Next::Over;
            }
            if !has_more {
                return Next::Over;
            }
        }
    }
}

fn piece_length(rate: Rate) -> usize {
    let length = u128::from(rate.bytes_per_second()) * QUANTUM.as_nanos() / 1_000_000_000;
    usize::try_from(length.clamp(1, u128::from(MAX_PIECE))).unwrap_or(1)
}

/// Times by an absolute schedule, so that the errors of single waits do not add up.
struct Schedule {
    rate: Rate,
    /// When the last piece has left.
    free_at: Option<Instant>,
}

impl Schedule {
    /// The receiver took so long to take a piece.
    fn waited(&mut self, time: Duration) {
        if time > PAUSE {
            self.free_at = self.free_at.map(|free_at| free_at + time);
        }
    }

    /// When the last of `length` bytes that came `at` has left.
    fn next(&mut self, length: usize, at: Instant, now: Instant) -> Instant {
        let nanos = (length as u128 * 1_000_000_000).div_ceil(u128::from(self.rate.bytes_per_second()));
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let start = self.free_at.map_or(at, |free_at| free_at.max(at));
        let start = now.checked_sub(MAX_LAG).map_or(start, |oldest| start.max(oldest));
        let due = start + time;
        self.free_at = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes: u64) -> Rate {
        Rate::from_bytes_per_second(bytes).unwrap()
    }

    #[test]
    fn pieces_are_five_milliseconds_long() {
        for (bytes, length) in [
            (1, 1),
            (199, 1),
            (100_000, 500),
            (1 << 30, 64 << 10),
            (1_000_000_000_000, 64 << 10),
        ] {
            assert_eq!(piece_length(rate(bytes)), length, "{bytes}");
        }
    }

    #[test]
    fn late_pieces_keep_the_rate_and_pauses_give_no_credit() {
        let start = Instant::now();
        let milliseconds = Duration::from_millis;
        let mut schedule = Schedule {
            rate: rate(1000),
            free_at: None,
        };
        assert_eq!(schedule.next(5, start, start), start + milliseconds(5));
        // Three milliseconds late, and still on time with the next.
        assert_eq!(
            schedule.next(5, start, start + milliseconds(8)),
            start + milliseconds(10)
        );
        // The input paused.
        let later = start + milliseconds(1000);
        assert_eq!(schedule.next(5, later, later), later + milliseconds(5));
        // The receiver paused.
        schedule.waited(milliseconds(1000));
        let much_later = later + milliseconds(1000);
        assert_eq!(schedule.next(5, later, much_later), much_later + milliseconds(10));
        // This machine did.
        let very_late = much_later + milliseconds(5000);
        assert_eq!(
            schedule.next(5, later, very_late),
            very_late - MAX_LAG + milliseconds(5)
        );
    }
}
