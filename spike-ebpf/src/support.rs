//! What several hooks need: the current task, the socket's state, the rules, the counts, TCP's own numbers, host names.

pub(crate) mod counts;
pub(crate) mod handshakes;
pub(crate) mod headers;
pub(crate) mod health;
pub(crate) mod names;
pub(crate) mod rules;
pub(crate) mod sampling;
pub(crate) mod storage;
pub(crate) mod tasks;
