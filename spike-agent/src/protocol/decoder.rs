//! What a protocol is asked, and what it may answer.

use super::{Messages, ProtocolName, Side};

/// Frames and names the messages of one connection.
///
/// It may keep state (a phase, header tables), but none that grows with what it is fed.
pub trait Protocol: Send {
    /// Reads one message, or the next part of one, at the start of `bytes`.
    ///
    /// `bytes` is never empty and at most 64 KiB. After [`Step::More`] the same bytes come again with more behind
    /// them, so nothing may be said or remembered before the step is taken, and the step must not depend on how much
    /// follows it.
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step;

    /// Where in `bytes` a message of `from` surely begins, after a gap.
    ///
    /// `bytes` most often starts where a packet does. [`Self::read`] is called next at the place that is given.
    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize>;

    /// A part of the stream of `from` is gone: forget what was known of the message that it was in. Said first of all
    /// where it is the start of the connection that is gone.
    fn lost(&mut self, _from: Side) {}

    /// Least silence, in nanoseconds, after which a request is taken to be the only one in flight, when it isn't
    /// known what was before it. 0 for protocols whose clients wait for each response; ask for some milliseconds
    /// where clients pipeline. Has no meaning for messages that have an id.
    fn quiet_ns(&self) -> u64 {
        0
    }
}

/// What was done with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The head isn't complete.
    More,
    /// The head isn't complete before there are that many bytes.
    Need(usize),
    /// `bytes` were understood, and `skip` bytes behind them are body and need not be looked at.
    ///
    /// What was said to end in this step ends with the last byte of the body.
    Took {
        /// At least 1.
        bytes: usize,
        /// May be captured or not.
        skip: u64,
    },
    /// As `Took`, with a body up to the connection's end.
    TookRest {
        /// At least 1.
        bytes: usize,
    },
    /// After these bytes both directions speak another protocol. Calls that are open then are dropped.
    Switch {
        /// At least 1.
        bytes: usize,
        /// What comes.
        next: Next,
    },
    /// Not a message of this protocol.
    Lost,
}

/// What follows in a conversation that leaves its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing that can be read, such as TLS.
    Opaque,
    /// Anything, as at the start of a connection.
    Unknown,
    /// This protocol.
    Protocol(ProtocolName),
    /// This protocol, in which the server answers the open request under an id.
    Upgraded(ProtocolName, u64),
}

/// Whether bytes are of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// They can't be.
    No,
    /// There are too few to tell, or other protocols start so too.
    Maybe,
    /// They are.
    Yes,
}
