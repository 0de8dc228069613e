//! What faults do to connections, and which faults are armed.

pub mod bandwidth;
pub mod book;
pub mod chance;
pub mod datagrams;
pub mod latency;
pub mod pipeline;
pub mod stage;
pub mod stall;
pub mod timer;
