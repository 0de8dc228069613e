//! What faults do to connections, and which faults are armed.

pub mod abort;
pub mod bandwidth;
pub mod book;
pub mod chance;
pub mod corrupt;
pub mod datagrams;
pub mod delays;
pub mod lane;
pub mod latency;
pub mod limit_data;
pub mod pipeline;
pub mod slicer;
pub mod slow_close;
pub mod stage;
pub mod stall;
pub mod taken;
pub mod timer;
