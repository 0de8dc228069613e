//! One direction of a conversation: what isn't read yet, and when it came.

use std::collections::VecDeque;

use super::{Side, calls::Part, messages::Event};

/// Longest head of a message, and so what a direction buffers at most.
pub(super) const HEAD_LIMIT: usize = 64 * 1024;
/// Bounds the times kept for a buffer that comes in tiny packets; beyond it they get coarser.
const MARKS_LIMIT: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A message, or the next part of one, starts at the next byte.
    Framed,
    /// So many bytes of body come first.
    Skip(u64),
    /// Body up to the end of the connection.
    Rest,
    /// Where the next message starts is not known.
    Unsynced,
}

/// When a run of bytes came.
#[derive(Clone, Copy)]
struct Mark {
    /// Positions in the stream.
    start: u64,
    end: u64,
    at: u64,
    before: Before,
}

/// What was on the connection before a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// Who sent last; none at the start of the conversation.
    pub(super) side: Option<Side>,
    /// Nanoseconds without a byte in either direction; 0 at the start of the conversation.
    pub(super) quiet_ns: u64,
}

pub(super) struct Stream {
    pub(super) mode: Mode,
    /// Bytes that were given but not consumed.
    pub(super) held: Vec<u8>,
    /// The head is not complete below this size.
    pub(super) need: usize,
    /// What ends when the body does.
    pub(super) ends: Vec<Event>,
    /// Whose body it is.
    pub(super) part: Option<Part>,
    /// Captured bytes consumed so far.
    position: u64,
    /// Bytes that passed uncaptured.
    passed: u64,
    marks: VecDeque<Mark>,
    last_at: u64,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Framed,
            held: Vec::new(),
            need: 0,
            ends: Vec::new(),
            part: None,
            position: 0,
            passed: 0,
            marks: VecDeque::new(),
            last_at: 0,
        }
    }

    /// Bytes came, in addition to those that are held.
    pub(super) fn came(&mut self, count: usize, at: u64, before: Before) {
        let start = self.marks.back().map_or(self.position, |mark| mark.end);
        let end = start + count as u64;
        let full = self.marks.len() >= MARKS_LIMIT;
        match self.marks.back_mut().filter(|_| full) {
            Some(last) => (last.end, last.at) = (end, at),
            None => self.marks.push_back(Mark {
                start,
                end,
                at,
                before,
            }),
        }
    }

    /// When the first byte that is not consumed came.
    pub(super) fn first_at(&self) -> u64 {
        self.marks.front().map_or(self.last_at, |mark| mark.at)
    }

    /// What was before the first byte that is not consumed.
    pub(super) fn before(&self, own: Side) -> Before {
        let begins = self.marks.front().filter(|mark| mark.start == self.position);
        begins.map_or(
            Before {
                side: Some(own),
                quiet_ns: 0,
            },
            |mark| mark.before,
        )
    }

    /// Goes past `count` bytes, and says when the last of them came.
    pub(super) fn consume(&mut self, count: u64) -> u64 {
        self.need = 0;
        if count == 0 {
            return self.last_at;
        }
        self.position += count;
        while let Some(mark) = self.marks.front().filter(|mark| mark.start < self.position) {
            self.last_at = mark.at;
            if mark.end > self.position {
                break;
            }
            self.marks.pop_front();
        }
        self.last_at
    }

    /// Bytes passed that were not captured; only when none is held. Positions don't count them, places do.
    pub(super) fn pass(&mut self, at: u64, count: u64) {
        self.last_at = at;
        self.passed = self.passed.saturating_add(count);
    }

    /// Where the first byte that is not consumed is in what the side sent.
    pub(super) fn place(&self) -> u64 {
        self.position.saturating_add(self.passed)
    }

    /// Its place is lost: forgets what is held, and says how many bytes that were.
    pub(super) fn lose(&mut self) -> u64 {
        self.mode = Mode::Unsynced;
        self.forget()
    }

    /// Forgets what is held and what is open, and says how many bytes that were.
    pub(super) fn forget(&mut self) -> u64 {
        let held = self.held.len() as u64;
        self.consume(held);
        self.marks.clear();
        self.held = Vec::new();
        self.ends.clear();
        self.part = None;
        held
    }

    /// Keeps what was not consumed of `taken` (the former `held`) or, if there was none, of `bytes`.
    pub(super) fn hold(&mut self, mut taken: Vec<u8>, bytes: &[u8], used: usize) {
        if taken.is_empty() {
            taken.extend_from_slice(&bytes[used..]);
        } else {
            taken.drain(..used);
        }
        if taken.is_empty() {
            taken = Vec::new();
        }
        self.held = taken;
    }
}
