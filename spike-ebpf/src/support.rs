//! What several hooks need: the current task, the socket's state, the rules, the counts.

pub(crate) mod counts;
pub(crate) mod headers;
pub(crate) mod rules;
pub(crate) mod sampling;
pub(crate) mod storage;
pub(crate) mod tasks;
