//! PostgreSQL's protocol, version 3: each message that asks for something, and what answers it.
//!
//! Messages are answered one by one, and not by the group that they were sent in, so that a client which prepares a
//! statement at another time, or under another name, still finds its answers: a statement is known by its text.

mod message;
mod rounds;
mod walk;

pub(in crate::replay) use message::message;
pub use message::{Bound, Start, body, close, frame, names, ready, start};
pub use walk::{Asked, State, error_text, ready_at, row_parts};

use super::Recorded;
use crate::replay::exchange::Talk;

pub(super) fn split(recorded: &Recorded, talk: &mut Talk) {
    walk::split(recorded, talk);
}

#[cfg(test)]
mod tests;
